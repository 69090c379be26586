"""Data that a person has in memory already: texts, ids of tokens, images with their classes, a loader or data set of them.

    load_data(["A text.", "Another one."], model)
    load_data(torch.randint(5, 4096, (20, 64)), model)  # one row per sequence, scored as they are
    load_data([(image, 3), (other, "dog")], vision_model)
    load_data([("Good.", "positive"), ("Bad.", 0)], text_classifier)

What is given is looked at row by row and only as far as it is needed, then kept: a loader that shuffles gives the same rows
at every iteration here. All of it is used, in the order given; with `split` every other row.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablation_core.data import hub_datasets
from ablation_core.data.dataset import IGNORED, Data
from ablation_core.data.files.text_files import plain_line_ends
from ablation_core.data.given.images import class_names, load_given_images
from ablation_core.data.given.rows import EXPECTED, GivenImage, GivenText, given_rows, holds_objects, is_gap
from ablation_core.data.labelled.classes import ClassLabels, is_missing
from ablation_core.data.labelled.rows import LabelledText
from ablation_core.data.labelled.texts import labelled_data, needs_labels, readable, window_of
from ablation_core.data.references import Split
from ablation_core.data.request import DataRequest
from ablation_core.data.texts import check_window, text_data
from ablation_core.data.windows import Body, Reading, Window, check_ids, document_bodies, given_bodies, packed_documents
from ablation_core.errors import AblationError, DataError, a_type, first_line
from ablation_core.models.loaded import LoadedModel


def load_given(given: Any, request: DataRequest, model: LoadedModel, split: Split | None) -> Data:
    """What is in memory as a data set.

    Args:
        split: which part: every other row; None: all.

    Raises:
        DataError: it is none of the kinds that are known, is empty, or does not fit the model.
    """
    numbers = isinstance(given, torch.Tensor | np.ndarray) and not holds_objects(given)
    if numbers and np.ndim(given) == 1 and model.modality != "vision":
        given = _cut(given, request)
    rows = _guarded(_part(given_rows(given), split))
    first = next(rows, None)
    if first is None:
        raise DataError(f"The data given is empty{f' in its {split} part' if split else ''}; expected {EXPECTED}.")
    return replace(_data(first, chain([first], rows), request, model, _class_names(given)), split=split or "all")


def _data(first: Any, rows: Iterator[Any], request: DataRequest, model: LoadedModel, names: tuple[str, ...]) -> Data:
    """The rows as what the model reads; the first says what they are."""
    if model.modality == "text-classification":
        return _labelled(rows, request, model, names)
    if model.modality == "vision" and isinstance(first, GivenText) and first.paired:
        images = (GivenImage(Path(row.text), row.label) if isinstance(row, GivenText) else row for row in rows)
        return load_given_images(images, request, model, names)
    if isinstance(first, GivenText):
        if first.paired:
            raise DataError(f"Pairs of a text and its class were given, but {model.ref} is no text classifier.")
        rows = (row.text if isinstance(row, GivenText) else row for row in rows)
        first = first.text
    if model.modality == "vision":
        if isinstance(first, str):
            raise DataError(f"{model.ref} reads images, but texts were given; give pairs of an image and its class.")
        if isinstance(first, Body):
            raise DataError(f"{model.ref} reads images, but ids of tokens were given.")
        return load_given_images(rows, request, model, names)
    if isinstance(first, str):
        return _texts(rows, request, model)
    if isinstance(first, Body):
        return _ids(rows, request, model)
    what = "images were" if isinstance(first, GivenImage) else f"{a_type(first)} was"
    raise DataError(f"{model.ref} reads text, but {what} given; give {EXPECTED}.")


def _class_names(given: Any) -> tuple[str, ...]:
    """What a data set of the `datasets` library calls the classes that it numbers; nothing for other data."""
    return class_names(hub_datasets.class_names(given)) if type(given).__module__.startswith("datasets.") else ()


def _labelled(rows: Iterator[Any], request: DataRequest, model: LoadedModel, names: tuple[str, ...]) -> Data:
    """Texts, or ids of tokens, with their classes."""
    reading, classes = Reading(), ClassLabels(model.labels, names)
    seq_len = readable(model, request.seq_len) if model.tokenizer is not None else None  # ids are taken as they are
    windows: list[Window] = []
    empty: list[int] = []
    for number, row in islice(_with_text(rows, empty), max(2, request.predictions)):
        label = row.label if isinstance(row, GivenText | Body) else None
        if label is None or is_missing(label, model.labels):
            raise DataError(needs_labels(model, f"row {number} of the data given has none"))
        target = classes(label, f"row {number}")
        if isinstance(row, Body):
            check_ids(row.ids, number, model)
            one: Any = replace(_unpadded(row, model), label=target)
        else:
            one = LabelledText(plain_line_ends(row.text, "it")[0], target)
        windows.append(window_of(one, model, seq_len, reading))
    if said := classes.note():
        reading.notes.append(said)
    if empty:
        reading.notes.append(f"{len(empty):,} texts with nothing in them were left out.")
    if not windows:
        raise DataError("The texts given hold nothing; give pairs of a text and its class.")
    data = labelled_data(request, model, windows, reading)
    return _named(data, f"{len(windows):,} labelled texts", data.fingerprint.encode())


def _with_text(rows: Iterator[Any], empty: list[int]) -> Iterator[tuple[int, Any]]:
    """The rows with their numbers, without texts that hold nothing, whose numbers go to `empty`.

    Raises:
        DataError: a row's text is something else.
    """
    for number, row in enumerate(rows):
        if isinstance(row, GivenText) and not is_gap(row.text) and not isinstance(row.text, str):
            raise DataError(f"Row {number} of the data given has {a_type(row.text)} for a text.")
        if isinstance(row, GivenText) and (is_gap(row.text) or not row.text.strip()):
            empty.append(number)
        else:
            yield number, row


def _texts(texts: Iterator[Any], request: DataRequest, model: LoadedModel) -> Data:
    """Texts, packed or each by itself; where all of them are shorter than one window, each by itself."""
    assert request.seq_len is not None
    check_window(model, request.seq_len)
    reading, held = Reading(), _Held(texts)
    make = document_bodies if request.documents else packed_documents
    data = text_data(request, model, make(held, model, request.seq_len, reading), reading)
    if data is None and not request.documents:
        reading.notes.append(
            f"The texts are shorter than one window of {request.seq_len} tokens: each has a window of its own."
        )
        bodies = document_bodies(list(held.read), model, request.seq_len, reading)
        data = text_data(replace(request, documents=True), model, bodies, reading)
    if data is None:
        raise DataError("The texts given hold nothing to predict; give longer ones.")
    if held.empty:
        held.notes.append(f"{held.empty:,} texts with nothing in them were left out.")
    data = replace(data, notes=(*data.notes, *held.notes))
    return _named(data, f"{len(held.read):,} texts", "\0".join(held.read).encode())


def _ids(rows: Iterator[Any], request: DataRequest, model: LoadedModel) -> Data:
    reading = Reading()
    bodies = given_bodies((_unpadded(row, model) for row in rows), model)
    data = text_data(replace(request, seq_len=None, documents=None), model, bodies, reading)
    if data is None:
        raise DataError(
            "The ids given hold nothing to predict: a sequence needs at least two tokens that are not special."
        )
    return _named(data, f"{data.pool:,} rows of ids", data.fingerprint.encode())


def _named(data: Data, what: str, content: bytes) -> Data:
    return replace(data, ref=f"in memory: {what}", source=hashlib.sha256(content).hexdigest()[:16])


class _Held:
    """Texts that are kept as they are read, with plain line ends, and a note about the first that had others."""

    def __init__(self, texts: Iterator[Any]) -> None:
        self.texts, self.read, self.notes, self.empty = texts, list[str](), list[str](), 0

    def __iter__(self) -> Iterator[str]:
        for number, text in enumerate(self.texts):
            if not isinstance(text, str):
                raise DataError(f"Row {number} of the data given is {a_type(text)}, whereas the first is a text.")
            if not text.strip():
                self.empty += 1
            else:
                plain, changed = plain_line_ends(text, f"text {number}")
                if changed and not self.notes:
                    self.notes.append(changed)
                self.read.append(plain)
                yield self.read[-1]


def _part(rows: Iterator[Any], split: Split | None) -> Iterator[Any]:
    return (row for number, row in enumerate(rows) if split is None or number % 2 == (split != "evaluation"))


def _guarded(rows: Iterator[Any]) -> Iterator[Any]:
    """The rows; a person's own loader may fail in any way."""
    try:
        yield from rows
    except (AblationError, GeneratorExit):
        raise
    except Exception as error:
        raise DataError(f"The data given cannot be read: {type(error).__name__}: {first_line(error)}") from error


def _cut(ids: Any, request: DataRequest) -> Tensor:
    """A run of tokens as windows; what is left at the end is unused."""
    ids, seq_len = torch.as_tensor(ids), request.seq_len
    assert seq_len is not None
    if len(ids) < seq_len:
        return ids[None]
    return ids[: len(ids) // seq_len * seq_len].reshape(-1, seq_len)


def _unpadded(row: Any, model: LoadedModel) -> Body:
    """A row without the padding at its ends, its labels at the logits' places."""
    if not isinstance(row, Body):
        raise DataError(f"The data given mixes ids of tokens with a {type(row).__name__}.")
    ids, targets = list(row.ids), row.targets
    first, end = (0, len(ids)) if row.trimmed else _without_padding(ids, model)
    if targets is not None:
        targets = targets[first:end]
        if model.modality == "causal":
            targets = [*targets[1:], IGNORED]
    return Body(ids[first:end], targets=targets, label=row.label)


def _without_padding(ids: list[int], model: LoadedModel) -> tuple[int, int]:
    """Where a row without an attention mask begins and ends. A padding token that also begins or ends texts may be real: one
    stays."""
    tokenizer = model.tokenizer
    pad = tokenizer.pad_token_id if tokenizer is not None else None
    first, end = 0, len(ids)
    while end > first and ids[end - 1] == pad:
        end -= 1
    while first < end and ids[first] == pad:
        first += 1
    if pad is not None and first < end:
        first -= first > 0 and pad in (tokenizer.bos_token_id, tokenizer.cls_token_id)
        end += end < len(ids) and pad in (tokenizer.eos_token_id, tokenizer.sep_token_id)
    return first, end
