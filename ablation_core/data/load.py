"""From a data reference, or from what a person has in memory, to a data set for a model."""

from pathlib import Path
from typing import Any

import numpy as np

from ablation_core.data.arguments import whole_number
from ablation_core.data.dataset import DEFAULT_BATCH, Data, check_window, checked_seed, image_data, text_data
from ablation_core.data.images import find_images
from ablation_core.data.in_memory import load_given, load_hub_images
from ablation_core.data.labelled.texts import load_labelled, needs_labels
from ablation_core.data.references import (
    Split,
    is_images,
    is_task,
    is_text,
    read_documents,
    read_text,
    source_digest,
    unknown_data,
)
from ablation_core.data.task_data import load_task
from ablation_core.data.windows import Reading, document_bodies, packed_bodies
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel


def load_data(
    ref: Any,
    model: LoadedModel,
    predictions: int = 2000,
    seq_len: int = 128,
    batch_size: int | None = None,
    seed: int = 0,
    split: Split | None = None,
    documents: bool = False,
) -> Data:
    """Prepare a data set for a model. A part with fewer predictions than asked for gives all it has.

        load_data("jsonl:notes.jsonl#body", model, predictions=500)
        load_data("task:ioi", model, predictions=100)
        load_data(["A text.", "Another one."], model, documents=True)
        load_data([(image, "cat"), (other, "dog")], vision_model)
        load_data("csv:reviews.csv#body,stars", text_classifier)

    Args:
        ref: a reference; or what is in memory already: texts, ids of tokens (a tensor, one row per sequence), pairs of an image
            (or a text) and its class, a DataLoader, a data set of the `datasets` library.
        seq_len: tokens per window, special tokens included; of labelled texts, the most that are read of each.
        batch_size: sequences run at once (default 8 windows, 16 labelled texts or 64 images); changes no result beyond float rounding.
        split: `evaluation` (the default) or `statistics`, disjoint parts of the data set. Of data in memory all is taken
            unless a part is asked for: then every other row.
        documents: each document begins a window of its own, padded; else texts are packed.

    Raises:
        DataError: there is no such data, it does not fit the model, or it is too short for one window.
    """
    for name, value in (
        ("predictions", predictions),
        ("seq-len", seq_len),
        ("batch-size", 1 if batch_size is None else batch_size),
    ):
        whole_number(value, name, 1)
    if split not in (None, "evaluation", "statistics"):
        raise DataError(f"There is no split {split!r}; choose evaluation or statistics.")
    checked_seed(seed)
    size = batch_size or DEFAULT_BATCH[model.modality]
    if isinstance(ref, Path):
        raise unknown_data(str(ref))
    if not isinstance(ref, str):
        return load_given(ref, model, predictions, seq_len, size, seed, split, documents)
    part: Split = split or "evaluation"
    if is_task(ref) and model.modality == "text-classification":
        raise DataError(needs_labels(model, f"{ref} is a task for language models"))
    if is_task(ref):
        return load_task(ref, model, predictions, batch_size, seed, part)
    if not is_text(ref) and not is_images(ref):
        raise unknown_data(ref)
    if model.modality == "text-classification":
        return load_labelled(ref, model, predictions, seq_len, size, seed, part)
    if ref.startswith("hf:") and model.modality == "vision":
        return load_hub_images(ref, model, predictions, size, seed, part)
    if is_images(ref) != (model.modality == "vision"):
        kinds = ("images", "text") if model.modality == "vision" else ("text", "images")
        raise DataError(f"{model.ref} reads {kinds[0]}, but {ref} holds {kinds[1]}.")
    if is_images(ref):
        return _load_images(ref, model, predictions, size, seed, part)
    reading = Reading()
    check_window(model, seq_len)
    if documents:
        bodies = document_bodies(read_documents(ref, part, reading.notes), model, seq_len, reading)
    else:
        bodies = packed_bodies(read_text(ref, part, reading.notes), model, seq_len, reading)
    made = text_data(ref, model, bodies, predictions, seq_len, size, seed, part, reading, documents, source_digest(ref))
    if made is None:
        raise DataError(
            f"The {part} part of {ref} is shorter than one window of {seq_len} tokens; "
            f"choose a smaller seq-len or a longer text, or take each document by itself (documents)."
            if not documents
            else f"The {part} part of {ref} holds no document with anything to predict."
        )
    return made


def _load_images(ref: str, model: LoadedModel, predictions: int, batch_size: int, seed: int, split: Split) -> Data:
    items, notes = find_images(ref, split, model.labels)
    order = np.random.default_rng(seed).permutation(len(items))[: max(2, predictions)]
    chosen = [items[index] for index in order]
    return image_data(ref, model, chosen, predictions, batch_size, seed, split, notes, source_digest(ref))
