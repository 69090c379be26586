"""Rows of token ids: a tensor of them, or columns as a tokenizer gives them, with their mask, their targets or their classes.

list(array_rows(torch.tensor([[5, 6, 7]])))  # [Body(ids=[5, 6, 7])]
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablation_core.data.windows import Body
from ablation_core.errors import DataError, a_type

CLASS_COLUMNS = ("label", "labels", "fine_label", "class")


def ids_and_more(ids: Any, more: Any) -> Iterator[Any]:
    """Rows of ids beside their classes, their attention mask, or the targets that are theirs anyway.

    Raises:
        DataError: the second part is something else, which would be lost.
    """
    rows = list(array_rows(torch.as_tensor(ids)))
    if np.ndim(more) == 1 and len(more) == len(rows):
        yield from map(_with_label, rows, list(more))
        return
    second = torch.as_tensor(more) if isinstance(more, torch.Tensor | np.ndarray) else None
    first = torch.as_tensor(ids)
    if second is not None and second.shape == first.shape:
        if bool(((second == 0) | (second == 1)).all()):
            yield from tokenised_rows({"input_ids": first, "attention_mask": second})
            return
        if torch.equal(first, second) or torch.equal(first[:, 1:], second[:, :-1]):  # the next tokens
            yield from rows
            return
    raise DataError(
        "Rows of ids come with a second part that is neither a class per row, nor an attention mask of 0 and 1, nor their "
        "next tokens; give a dictionary of input_ids, attention_mask and labels."
    )


def check_whole(ids: Tensor) -> None:
    """Refuse what cannot be ids of tokens."""
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise DataError(
            f"A tensor of {str(ids.dtype).removeprefix('torch.')} was given; ids of tokens are whole numbers, and images "
            f"come in pairs with their classes."
        )


def array_rows(ids: Tensor) -> Iterator[Body]:
    check_whole(ids)
    if ids.ndim != 2:
        raise DataError(f"A tensor of ids has two dimensions (sequences, tokens); this one has {ids.ndim}.")
    for row in ids.tolist():
        yield Body(row)


def tokenised_rows(row: Any) -> Iterator[Body]:
    """Ids with their attention mask, and labels as transformers has them: one per token at its own place, or one per row.

    Raises:
        DataError: a column says something that would be lost: a gap in the mask, labels of another length, second segments.
    """
    ids = _rows_of(row["input_ids"], "input_ids")
    masks = _column(row, "attention_mask", ids)
    per_token = row.get("labels") if _is_per_token(row.get("labels"), ids) else None
    labels = _rows_of(per_token, "labels") if per_token is not None else [None] * len(ids)
    classes = next((row[name] for name in CLASS_COLUMNS if row.get(name) is not None), None)
    classes = [None] * len(ids) if per_token is not None or classes is None else list(np.ravel(classes))
    if other := {len(classes), len(labels)} - {len(ids)}:
        raise DataError(f"{len(ids)} rows of ids come with {other.pop()} labels; give one per row.")
    for name, plain in (("token_type_ids", lambda length: [0] * length), ("position_ids", lambda n: list(range(n)))):
        if any(one is not None and one != plain(len(one)) for one in _column(row, name, ids)):
            raise DataError(
                f"The rows given have {name} of their own, which would be lost; only input_ids are given on."
            )
    if any(flag not in (0, 1) for mask in masks for flag in mask or ()):
        raise DataError("An attention mask has 1 for a token and 0 for padding; the one given has other numbers.")
    for one, mask, wanted, label in zip(ids, masks, labels, classes, strict=True):
        kept = [True] * len(one) if mask is None else [bool(flag) for flag in mask]
        if len(kept) != len(one) or (wanted is not None and len(wanted) != len(one)):
            raise DataError(
                f"A row of {len(one)} ids has {len(kept)} flags in its attention mask and "
                f"{len(one if wanted is None else wanted)} labels; each token needs one."
            )
        first, end = (kept.index(True), len(kept) - kept[::-1].index(True)) if any(kept) else (0, 0)
        if not all(kept[first:end]):
            raise DataError("The attention mask of a row hides tokens in its middle; only padding at its ends can be.")
        body = Body(one[first:end], targets=wanted[first:end] if wanted is not None else None, label=label)
        yield replace(body, trimmed=mask is not None)


def _rows_of(value: Any, name: str) -> list[list[int]]:
    """One row of whole numbers, or several, in whatever they are held.

    Raises:
        DataError: they hold something else, such as fractions, whose ends would be cut off.
    """
    value = value.tolist() if hasattr(value, "tolist") else list(value)
    rows = [one.tolist() if hasattr(one, "tolist") else one for one in value]
    several = rows if not rows or isinstance(rows[0], list | tuple) else [rows]
    flags = name == "attention_mask"  # may be true and false
    for number in (number for one in several for number in one):
        whole = isinstance(number, int | np.integer) or (isinstance(number, float) and number.is_integer())
        if not whole or (isinstance(number, bool) and not flags):
            shown = a_type(number) if isinstance(number, list | tuple) else repr(number)
            raise DataError(f"The {name} given hold {shown}; expected one row of whole numbers per sequence.")
    return [[int(number) for number in one] for one in several]


def _column(row: Any, name: str, ids: list[list[int]]) -> list[list[int] | None]:
    """A column of one number per token, for each row of ids; None where it is not there."""
    found = row.get(name)
    if found is None:
        return [None] * len(ids)
    rows: list[list[int] | None] = [*_rows_of(found, name)]
    if len(rows) != len(ids):
        raise DataError(f"{len(ids)} rows of ids come with {len(rows)} of {name}; give one per row.")
    return rows


def _is_per_token(labels: Any, ids: list[list[int]]) -> bool:
    """Whether labels are the tokens' own: a list of them for one row of ids, or lists of them for several."""
    if labels is None or np.ndim(labels) == 0:
        return False
    first: Any = labels[0] if len(labels) else None
    return np.ndim(first) == 1 or (len(ids) == 1 and len(labels) > 1)


def _with_label(row: Body, label: Any) -> Body:
    return replace(row, label=label)
