"""The rows of anything that a person has in memory: a list, a tensor, a loader, a data set, a table.

    list(given_rows([(image, 3), (other, "dog")]))  # [GivenImage, GivenImage]

A row is a text, a `GivenText`, a `GivenImage`, or a `Body` of token ids. They are made one at a time.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from ablation_core.data.given.token_rows import CLASS_COLUMNS, array_rows, check_whole, ids_and_more, tokenised_rows
from ablation_core.data.windows import Body
from ablation_core.errors import DataError, a_type

EXPECTED = (
    "texts, a tensor of token ids (one row per sequence), pairs of an image (or a text) and its class, a DataLoader or a data "
    "set of these"
)
IMAGE_COLUMNS = ("image", "img", "pixel_values", "pixels")
_TEXT_COLUMNS = ("text", "content", "sentence")


@dataclass(frozen=True, eq=False)
class GivenImage:
    """An image in any form, and its class by name or number."""

    image: Any
    label: Any


@dataclass(frozen=True, eq=False)
class GivenText:
    """A text and its class, if it has one."""

    text: str
    label: Any
    paired: bool = False  # given as a pair, so that its second part is no column that may be left out


def given_rows(given: Any) -> Iterator[Any]:
    """The rows of anything given."""
    if isinstance(given, torch.utils.data.DataLoader):
        as_they_were = given.collate_fn is not default_collate  # which turns rows of lists into columns
        for batch in given:
            if as_they_were and _are_rows(batch):
                yield from (_one(row, number) for number, row in enumerate(batch))
            else:
                yield from _batch(batch)
    elif isinstance(given, torch.Tensor | np.ndarray) and not holds_objects(given):
        yield from array_rows(torch.as_tensor(given))
    elif isinstance(given, Mapping) or hasattr(given, "input_ids"):
        if type(given).__module__.startswith("datasets."):
            names = ", ".join(map(repr, given))
            raise DataError(
                f"This data set has the parts {names}; give one of them, as in dataset[{next(iter(given))!r}]."
            )
        yield from rows_by_name(given)
    elif isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], torch.Tensor | np.ndarray):
        yield from _batch(given)
    elif type(given).__module__.split(".")[0] == "pandas" and hasattr(given, "columns"):
        yield from (row for record in given.to_dict("records") for row in rows_by_name(record))
    elif isinstance(given, set | frozenset):
        raise DataError("A set has no order, so that its rows would differ from run to run; give a list.")
    elif isinstance(given, Iterable) or hasattr(given, "__getitem__"):
        for number, row in enumerate(_each(given)):
            yield _one(row, number)
    else:
        raise DataError(f"Data cannot be {a_type(given)}; expected a reference, {EXPECTED}.")


def holds_objects(given: Any) -> bool:
    """Whether an array is a list of texts or other things, not of numbers."""
    return isinstance(given, np.ndarray) and given.dtype.kind in "OSUT"


def is_gap(value: Any) -> bool:
    """Whether a table says that it has nothing here: None, or a number that is none."""
    return value is None or (isinstance(value, float) and value != value)


def _each(given: Any) -> Iterator[Any]:
    """The items of an iterable, or of a torch data set, which may only be indexed."""
    if hasattr(given, "__iter__"):
        yield from given
    else:
        yield from (given[number] for number in range(len(given)))


def _one(row: Any, number: int) -> Any:
    """One row of a list or data set."""
    if isinstance(row, str):
        return row
    if is_gap(row):
        return ""  # a gap is an empty text
    if isinstance(row, Mapping):
        made = list(rows_by_name(row))
        if len(made) == 1:
            return made[0]
    elif isinstance(row, tuple | list) and len(row) == 2 and _is_image(row[0]):
        return GivenImage(*row)
    elif isinstance(row, tuple | list) and len(row) == 2 and isinstance(row[0], str):
        return GivenText(row[0], row[1], paired=True)
    elif isinstance(row, tuple | list) and len(row) == 2 and _is_image(row[1]) and isinstance(row[0], int | np.integer):
        raise DataError(
            f"Row {number} of the data given is a class and an image; give the image first, then its class."
        )
    elif isinstance(row, torch.Tensor | np.ndarray | list | tuple):
        scalar = isinstance(row, torch.Tensor | np.ndarray) and row.ndim == 0
        single = not scalar and len(row) and not isinstance(row[0], str) and np.ndim(row[0]) == 0
        ids = _numbers(row) if single else None
        if ids is not None and ids.ndim == 1:
            check_whole(ids)
            return Body(ids.tolist())
    what = "an image without its class" if _is_image(row) else a_type(row)
    raise DataError(f"Row {number} of the data given is {what}; expected {EXPECTED}.")


def _numbers(row: Any) -> Tensor | None:
    try:
        return torch.as_tensor(row)
    except (TypeError, ValueError, RuntimeError):  # of several kinds, or of none that are numbers
        return None


def _is_image(value: Any) -> bool:
    return isinstance(value, Image.Image | Path | bytes) or (
        isinstance(value, torch.Tensor | np.ndarray) and np.ndim(value) in (2, 3)
    )


def _batch(batch: Any) -> Iterator[Any]:
    """The rows of a loader's batch: a dictionary, a pair of inputs and classes, a tensor of ids, or texts."""
    if isinstance(batch, Mapping) or hasattr(batch, "input_ids"):
        yield from rows_by_name(batch)
    elif isinstance(batch, torch.Tensor | np.ndarray):
        yield from array_rows(torch.as_tensor(batch))
    elif isinstance(batch, tuple | list) and batch and all(isinstance(text, str) for text in batch):
        yield from batch
    elif isinstance(batch, tuple | list) and len(batch) == 2:
        inputs, labels = batch
        if (isinstance(inputs, torch.Tensor | np.ndarray) and torch.as_tensor(inputs).is_floating_point()) or np.ndim(
            inputs
        ) > 2:
            yield from (GivenImage(image, label) for image, label in zip(inputs, labels, strict=True))
        elif isinstance(inputs, torch.Tensor | np.ndarray) and np.ndim(inputs) == 2:
            yield from ids_and_more(inputs, labels)
        elif len(inputs) and isinstance(inputs[0], str):
            labels = labels if len(labels) == len(inputs) else [None] * len(inputs)
            yield from map(GivenText, inputs, labels)
        else:
            yield from (GivenImage(image, label) for image, label in zip(inputs, labels, strict=True))
    elif isinstance(batch, tuple | list) and len(batch) == 1:
        yield from _batch(batch[0])
    elif isinstance(batch, tuple | list) and all(isinstance(part, torch.Tensor | np.ndarray) for part in batch):
        raise DataError(
            f"A batch of the loader has {len(batch)} parts without names; give a dictionary of input_ids, attention_mask and "
            f"labels, or pairs of an input and its class."
        )
    elif isinstance(batch, tuple | list):
        yield from (_one(row, number) for number, row in enumerate(batch))
    else:
        raise DataError(f"A batch of the loader is {a_type(batch)}; expected {EXPECTED}.")


def _are_rows(batch: Any) -> bool:
    """Whether a batch is a list of rows as they were, of a loader whose `collate_fn` leaves them so.

    A batch of two such pairs looks much like inputs beside their classes; but there the classes are as many as the inputs,
    in one list or tensor, and here each is one value. Of two pairs of texts nothing says which they are: they are columns.
    """
    if not isinstance(batch, tuple | list) or not batch:
        return False
    return all(isinstance(row, Mapping) or _is_pair(row) or _is_row_of_ids(row) for row in batch)


def _is_pair(row: Any) -> bool:
    """Whether a row is an image or a text with its class."""
    if not isinstance(row, tuple | list) or len(row) != 2:
        return False
    one_class = isinstance(row[1], str | int | float | np.generic) or (
        isinstance(row[1], torch.Tensor | np.ndarray) and np.ndim(row[1]) == 0
    )
    return one_class and (_is_image(row[0]) or (isinstance(row[0], str) and not isinstance(row[1], str)))


def _is_row_of_ids(row: Any) -> bool:
    if isinstance(row, torch.Tensor | np.ndarray):
        return np.ndim(row) == 1 and not holds_objects(row)
    return isinstance(row, list) and bool(row) and all(isinstance(one, int | np.integer) for one in row)


def rows_by_name(row: Any) -> Iterator[Any]:
    """A row, or a batch of rows, by the names of its columns."""
    keys = list(row.keys())
    if "input_ids" in keys:
        yield from tokenised_rows(row)
        return
    image = next((name for name in IMAGE_COLUMNS if name in keys), None)
    label = next((name for name in CLASS_COLUMNS if name in keys), None)
    if image and label:
        images, labels = row[image], row[label]
        if isinstance(images, list) or (isinstance(images, torch.Tensor | np.ndarray) and np.ndim(images) == 4):
            yield from (GivenImage(*pair) for pair in zip(images, labels, strict=True))
        else:
            yield GivenImage(images, labels)
        return
    text = next((name for name in _TEXT_COLUMNS if name in keys), None)
    text = text or (keys[0] if len(keys) == 1 and _are_texts(row[keys[0]]) else None)
    if text is not None and label:
        several = isinstance(row[text], list | tuple)
        texts, labels = (row[text], row[label]) if several else ([row[text]], [row[label]])
        yield from map(GivenText, texts, labels)
        return
    if text is None:
        raise DataError(
            f"The rows given have the columns {', '.join(map(str, keys))}; expected text, input_ids, or image and label. "
            f"Of texts under another name give the column, as in data[{keys[-1]!r}]."
        )
    for one in row[text] if isinstance(row[text], list | tuple) else [row[text]]:
        yield "" if is_gap(one) else one


def _are_texts(value: Any) -> bool:
    return all(isinstance(one, str) or is_gap(one) for one in (value if isinstance(value, list | tuple) else [value]))
