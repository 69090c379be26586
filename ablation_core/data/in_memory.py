"""Data that a person has in memory already: texts, ids of tokens, images with their classes, a loader or data set of them.

    load_data(["A text.", "Another one."], model)
    load_data(torch.randint(5, 4096, (20, 64)), model)  # one row per sequence, scored as they are
    load_data([(image, 3), (other, "dog")], vision_model)
    load_data([("Good.", "positive"), ("Bad.", 0)], text_classifier)

What is given is looked at row by row and only as far as it is needed, then kept: a loader that shuffles gives the same rows
at every iteration here. All of it is used, in the order given; with `split` every other row.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ablation_core.data import hub_datasets
from ablation_core.data.dataset import Data, Item, check_window, image_data, text_data
from ablation_core.data.images import ImageItem, eight_bit
from ablation_core.data.labelled.classes import ClassLabels, is_missing
from ablation_core.data.labelled.rows import LabelledText
from ablation_core.data.labelled.texts import labelled_data, needs_labels, readable, window_of
from ablation_core.data.text_files import plain_line_ends
from ablation_core.data.windows import IGNORED, Body, Reading, Window, document_bodies, given_bodies, packed_documents
from ablation_core.errors import AblationError, DataError, a_type, first_line
from ablation_core.models.loaded import LoadedModel

EXPECTED = (
    "texts, a tensor of token ids (one row per sequence), pairs of an image (or a text) and its class, a DataLoader or a data "
    "set of these"
)
_TEXT_COLUMNS = ("text", "content", "sentence")
_IMAGE_COLUMNS, _CLASS_COLUMNS = ("image", "img", "pixel_values", "pixels"), ("label", "labels", "fine_label", "class")


@dataclass(frozen=True, eq=False)
class Pixels:
    """An image that is prepared already, (channels, height, width), and its class."""

    source: Tensor
    target: int

    def pixels(self, to_pixels: Any) -> Tensor:
        return self.source

    def digest(self) -> bytes:
        return hashlib.sha256(self.source.numpy().tobytes() + self.target.to_bytes(8, "little")).digest()


def load_given(
    given: Any,
    model: LoadedModel,
    predictions: int,
    seq_len: int,
    batch_size: int,
    seed: int,
    split: str | None,
    documents: bool,
) -> Data:
    """What is in memory as a data set.

    Raises:
        DataError: it is none of the kinds that are known, is empty, or does not fit the model.
    """
    if isinstance(given, torch.Tensor | np.ndarray) and np.ndim(given) == 1 and model.modality != "vision":
        given = _cut(given, seq_len)
    try:
        rows = _part(_rows(given), split)
        first = next(rows, None)
    except AblationError:
        raise
    except Exception as error:  # a person's own loader may fail in any way
        raise DataError(f"The data given cannot be read: {type(error).__name__}: {first_line(error)}") from error
    if first is None:
        raise DataError(f"The data given is empty{f' in its {split} part' if split else ''}; expected {EXPECTED}.")
    everything = _guarded(chain([first], rows))
    part = split or "all"
    if model.modality == "text-classification":
        return _labelled(everything, given, model, predictions, seq_len, batch_size, seed, part)
    if isinstance(first, _LabelledText):
        if first.paired:
            raise DataError(f"Pairs of a text and its class were given, but {model.ref} is no text classifier.")
        everything = (row.text if isinstance(row, _LabelledText) else row for row in everything)
        first = first.text
    if isinstance(first, str):
        if model.modality == "vision":
            raise DataError(f"{model.ref} reads images, but texts were given; give pairs of an image and its class.")
        return _texts(everything, given, model, predictions, seq_len, batch_size, seed, part, documents)
    if isinstance(first, Body):
        if model.modality == "vision":
            raise DataError(f"{model.ref} reads images, but ids of tokens were given.")
        return _ids(everything, given, model, predictions, batch_size, seed, part)
    if model.modality != "vision":
        raise DataError(f"{model.ref} reads text, but images were given; give {EXPECTED}.")
    classes = ClassLabels(model.labels, _class_names(given))
    items = [_item(row, classes) for row in islice(everything, max(2, predictions))]
    notes = [said] if (said := classes.note()) else []
    digest = hashlib.sha256(b"".join(item.digest() for item in items)).hexdigest()[:16]
    ref = f"in memory: {len(items):,} images"
    return image_data(ref, model, items, predictions, batch_size, seed, part, notes, digest, given)


def load_hub_images(ref: str, model: LoadedModel, predictions: int, batch_size: int, seed: int, split: str) -> Data:
    """The images of a data set of the `datasets` library."""
    records, names = hub_datasets.read_labelled(ref, split)
    rows = (_from_mapping(row) for row in records)
    pairs = list(islice((row for some in rows for row in some), max(2, predictions)))
    if not pairs or not isinstance(pairs[0], _Labelled):
        raise DataError(f"{model.ref} reads images, but {ref} has no image and label columns.")
    classes = ClassLabels(model.labels, next((names[one] for one in _CLASS_COLUMNS if one in names), ()))
    items = [_item(row, classes) for row in pairs]
    notes = [said] if (said := classes.note()) else []
    return image_data(ref, model, items, predictions, batch_size, seed, split, notes, hub_datasets.source_digest(ref))


def _class_names(given: Any) -> tuple[str, ...]:
    """What a data set of the `datasets` library calls the classes that it numbers; nothing for other data."""
    names = hub_datasets.class_names(given) if type(given).__module__.startswith("datasets.") else {}
    return next((names[one] for one in _CLASS_COLUMNS if one in names), ())


@dataclass(frozen=True, eq=False)
class _Labelled:
    image: Any
    label: Any


@dataclass(frozen=True, eq=False)
class _LabelledText:
    text: str
    label: Any
    paired: bool = False  # given as a pair, so that its second part is no column that may be left out


def _labelled(
    rows: Iterator[Any],
    given: Any,
    model: LoadedModel,
    predictions: int,
    seq_len: int,
    batch_size: int,
    seed: int,
    split: str,
) -> Data:
    """Texts, or ids of tokens, with their classes."""
    reading, seq_len = Reading(), readable(model, seq_len)
    classes = ClassLabels(model.labels, _class_names(given))
    windows: list[Window] = []
    for number, row in enumerate(islice(rows, max(2, predictions))):
        label = row.label if isinstance(row, _LabelledText | Body) else None
        if label is None or is_missing(label):
            raise DataError(needs_labels(model, f"row {number} of the data given has none"))
        target = classes(label, f"row {number}")
        if isinstance(row, Body):
            one: Any = replace(_unpadded(row, model), label=target)
        else:
            one = LabelledText(plain_line_ends(row.text, "it")[0], target)
        windows.append(window_of(one, model, seq_len, reading))
    if said := classes.note():
        reading.notes.append(said)
    data = labelled_data("in memory", model, windows, predictions, batch_size, seed, split, reading, "", given)
    return _named(data, f"{len(windows):,} labelled texts", data.fingerprint.encode())


def _texts(
    texts: Iterator[Any],
    given: Any,
    model: LoadedModel,
    predictions: int,
    seq_len: int,
    batch_size: int,
    seed: int,
    split: str,
    documents: bool,
) -> Data:
    """Texts, packed or each by itself; where all of them are shorter than one window, each by itself."""
    check_window(model, seq_len)
    reading, held = Reading(), _Held(texts)
    make = document_bodies if documents else packed_documents
    common = (predictions, seq_len, batch_size, seed, split, reading)
    data = text_data("in memory", model, make(held, model, seq_len, reading), *common, documents, "", given)
    if data is None and not documents:
        documents = True
        reading.notes.append(
            f"The texts are shorter than one window of {seq_len} tokens: each has a window of its own."
        )
        bodies = document_bodies(list(held.read), model, seq_len, reading)
        data = text_data("in memory", model, bodies, *common, True, "", given)
    if data is not None and held.notes:
        data = replace(data, notes=(*data.notes, *held.notes))
    if data is None:
        raise DataError("The texts given hold nothing to predict; give longer ones.")
    return _named(data, f"{len(held.read):,} texts", "\0".join(held.read).encode())


def _ids(
    rows: Iterator[Any], given: Any, model: LoadedModel, predictions: int, batch_size: int, seed: int, split: str
) -> Data:
    reading = Reading()
    bodies = given_bodies((_unpadded(row, model) for row in rows), model)
    data = text_data("in memory", model, bodies, predictions, None, batch_size, seed, split, reading, None, "", given)
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
        self.texts, self.read, self.notes = texts, list[str](), list[str]()

    def __iter__(self) -> Iterator[str]:
        for number, text in enumerate(self.texts):
            if not isinstance(text, str):
                raise DataError(f"Row {number} of the data given is {a_type(text)}, whereas the first is a text.")
            if text.strip():
                plain, changed = plain_line_ends(text, f"text {number}")
                if changed and not self.notes:
                    self.notes.append(changed)
                self.read.append(plain)
                yield self.read[-1]


def _part(rows: Iterator[Any], split: str | None) -> Iterator[Any]:
    if split is None:
        yield from rows
        return
    yield from (row for number, row in enumerate(rows) if number % 2 == (split != "evaluation"))


def _guarded(rows: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from rows
    except (AblationError, GeneratorExit):
        raise
    except Exception as error:
        raise DataError(f"The data given cannot be read: {type(error).__name__}: {first_line(error)}") from error


def _cut(ids: Any, seq_len: int) -> Tensor:
    """A run of tokens as windows; what is left at the end is unused."""
    ids = torch.as_tensor(ids)
    if len(ids) < seq_len:
        return ids[None]
    return ids[: len(ids) // seq_len * seq_len].reshape(-1, seq_len)


def _rows(given: Any) -> Iterator[Any]:
    """The rows of anything given: texts, `Body` for ids, `_Labelled` for images; one at a time."""
    if isinstance(given, torch.utils.data.DataLoader):
        for batch in given:
            yield from _batch(batch)
    elif isinstance(given, torch.Tensor | np.ndarray):
        yield from _array(torch.as_tensor(given))
    elif isinstance(given, Mapping) or hasattr(given, "input_ids"):
        if type(given).__module__.startswith("datasets."):
            names = ", ".join(map(repr, given))
            raise DataError(
                f"This data set has the parts {names}; give one of them, as in dataset[{next(iter(given))!r}]."
            )
        yield from _from_mapping(given)
    elif isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], torch.Tensor | np.ndarray):
        yield from _batch(given)
    elif type(given).__module__.split(".")[0] == "pandas" and hasattr(given, "columns"):
        yield from (row for record in given.to_dict("records") for row in _from_mapping(record))
    elif isinstance(given, set | frozenset):
        raise DataError("A set has no order, so that its rows would differ from run to run; give a list.")
    elif isinstance(given, Iterable) or hasattr(given, "__getitem__"):
        for number, row in enumerate(_each(given)):
            yield _one(row, number)
    else:
        raise DataError(f"Data cannot be {a_type(given)}; expected a reference, {EXPECTED}.")


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
    if isinstance(row, Mapping):
        made = list(_from_mapping(row))
        if len(made) == 1:
            return made[0]
    elif isinstance(row, tuple | list) and len(row) == 2 and _is_image(row[0]):
        return _Labelled(*row)
    elif isinstance(row, tuple | list) and len(row) == 2 and isinstance(row[0], str):
        return _LabelledText(row[0], row[1], paired=True)
    elif isinstance(row, torch.Tensor | np.ndarray | list | tuple):
        ids = torch.as_tensor(row) if len(row) and not isinstance(row[0], str) else None
        if ids is not None and ids.ndim == 1 and not ids.is_floating_point():
            return Body(ids.tolist())
    what = "an image without its class" if _is_image(row) else a_type(row)
    raise DataError(f"Row {number} of the data given is {what}; expected {EXPECTED}.")


def _is_image(value: Any) -> bool:
    return isinstance(value, Image.Image | Path) or (
        isinstance(value, torch.Tensor | np.ndarray) and np.ndim(value) in (2, 3)
    )


def _batch(batch: Any) -> Iterator[Any]:
    """The rows of a loader's batch: a dictionary, a pair of inputs and classes, a tensor of ids, or texts."""
    if isinstance(batch, Mapping) or hasattr(batch, "input_ids"):
        yield from _from_mapping(batch)
    elif isinstance(batch, torch.Tensor | np.ndarray):
        yield from _array(torch.as_tensor(batch))
    elif isinstance(batch, tuple | list) and batch and all(isinstance(text, str) for text in batch):
        yield from batch
    elif isinstance(batch, tuple | list) and len(batch) == 2:
        inputs, labels = batch
        if (isinstance(inputs, torch.Tensor | np.ndarray) and torch.as_tensor(inputs).is_floating_point()) or np.ndim(
            inputs
        ) > 2:
            yield from (_Labelled(image, label) for image, label in zip(inputs, labels, strict=True))
        elif isinstance(inputs, torch.Tensor | np.ndarray) and np.ndim(inputs) == 2:
            labels = list(labels) if np.ndim(labels) == 1 and len(labels) == len(inputs) else [None] * len(inputs)
            yield from map(_with_label, _array(torch.as_tensor(inputs)), labels)
        elif len(inputs) and isinstance(inputs[0], str):
            labels = labels if len(labels) == len(inputs) else [None] * len(inputs)
            yield from map(_LabelledText, inputs, labels)
        else:
            yield from (_Labelled(image, label) for image, label in zip(inputs, labels, strict=True))
    elif isinstance(batch, tuple | list) and len(batch) == 1:
        yield from _batch(batch[0])
    elif isinstance(batch, tuple | list):
        yield from (_one(row, number) for number, row in enumerate(batch))
    else:
        raise DataError(f"A batch of the loader is {a_type(batch)}; expected {EXPECTED}.")


def _array(ids: Tensor) -> Iterator[Body]:
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise DataError(
            f"A tensor of {str(ids.dtype).removeprefix('torch.')} was given; ids of tokens are whole numbers, and images "
            f"come in pairs with their classes."
        )
    if ids.ndim != 2:
        raise DataError(f"A tensor of ids has two dimensions (sequences, tokens); this one has {ids.ndim}.")
    for row in ids.tolist():
        yield Body(row)


def _from_mapping(row: Any) -> Iterator[Any]:
    """A row, or a batch of rows, by the names of its columns."""
    keys = list(row.keys())
    if "input_ids" in keys:
        yield from _tokenised(row)
        return
    image = next((name for name in _IMAGE_COLUMNS if name in keys), None)
    label = next((name for name in _CLASS_COLUMNS if name in keys), None)
    if image and label:
        images, labels = row[image], row[label]
        if isinstance(images, list) or (isinstance(images, torch.Tensor | np.ndarray) and np.ndim(images) == 4):
            yield from (_Labelled(*pair) for pair in zip(images, labels, strict=True))
        else:
            yield _Labelled(images, labels)
        return
    text = next((name for name in _TEXT_COLUMNS if name in keys), None)
    text = text or (keys[0] if len(keys) == 1 else None)
    if text is not None and label:
        several = isinstance(row[text], list | tuple)
        texts, labels = (row[text], row[label]) if several else ([row[text]], [row[label]])
        yield from map(_LabelledText, texts, labels)
        return
    if text is None:
        raise DataError(
            f"The rows given have the columns {', '.join(map(str, keys))}; expected text, input_ids, or image and label."
        )
    yield from row[text] if isinstance(row[text], list | tuple) else [row[text]]


def _tokenised(row: Any) -> Iterator[Body]:
    """Ids with their attention mask, and labels as transformers has them: at the tokens' own places."""

    def rows(name: str) -> list | None:
        value = row.get(name)
        if value is None:
            return None
        value = value.tolist() if hasattr(value, "tolist") else list(value)
        return (
            value
            if value and isinstance(value[0], list | tuple)
            else [v.tolist() for v in value]
            if value and hasattr(value[0], "tolist") and np.ndim(value[0])
            else [value]
        )

    ids, masks, labels = (rows(name) for name in ("input_ids", "attention_mask", "labels"))
    names = [name for name in _CLASS_COLUMNS if row.get(name) is not None]
    classes: Any = np.ravel(row[names[0]]) if names else []  # one per row, where the labels are classes and not tokens
    for number, one in enumerate(ids or []):
        kept = [bool(flag) for flag in masks[number]] if masks else [True] * len(one)
        whole = [int(token) for token, keep in zip(one, kept, strict=True) if keep]
        wanted = None
        if labels and np.shape(labels[number]) == np.shape(one):
            wanted = [int(label) for label, keep in zip(labels[number], kept, strict=True) if keep]
        yield Body(whole, targets=wanted, label=classes[number] if len(classes) == len(ids or []) else None)


def _unpadded(row: Any, model: LoadedModel) -> Body:
    """A row without the padding at its ends, its labels at the logits' places."""
    if not isinstance(row, Body):
        raise DataError(f"The data given mixes ids of tokens with a {type(row).__name__}.")
    ids, targets = list(row.ids), row.targets
    pad = model.tokenizer.pad_token_id if model.tokenizer is not None else None
    first, end = 0, len(ids)
    while end > first and ids[end - 1] == pad:
        end -= 1
    while first < end and ids[first] == pad:
        first += 1
    if targets is not None:
        targets = targets[first:end]
        if model.modality == "causal":
            targets = [*targets[1:], IGNORED]
    return Body(ids[first:end], targets=targets, label=row.label)


def _with_label(row: Body, label: Any) -> Body:
    return replace(row, label=label)


def _item(row: Any, classes: ClassLabels) -> Item:
    """An image with its class, as the model takes it.

    Raises:
        DataError: the class is none of the model's, or the image is none.
    """
    if not isinstance(row, _Labelled):
        raise DataError(f"The data given mixes images with a {type(row).__name__}.")
    target = classes(row.label)
    image = row.image
    if isinstance(image, str | Path):
        return ImageItem(Path(image), target)
    if isinstance(image, Image.Image):
        return ImageItem(np.asarray(eight_bit(image)), target)
    array = torch.as_tensor(image)
    if array.is_floating_point():
        if array.ndim == 2:
            array = array[None]
        if array.ndim != 3 or not bool(torch.isfinite(array).all()):
            raise DataError(
                "Pixels are given as (channels, height, width), finite numbers, prepared as the model takes them."
            )
        return Pixels(array.detach().cpu().float(), target)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[-1] not in (1, 3):
        array = array.movedim(0, -1)
    if array.dtype != torch.uint8 or array.ndim not in (2, 3):
        raise DataError(
            "Images are given as PIL images, as arrays of 8-bit values, or as float pixels of (channels, height, width)."
        )
    return ImageItem(np.ascontiguousarray(array.squeeze(-1).numpy() if array.shape[-1] == 1 else array.numpy()), target)
