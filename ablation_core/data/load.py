"""From a data reference, or from what a person has in memory, to a data set for a model."""

from pathlib import Path
from typing import Any

import numpy as np

from ablation_core.data.arguments import whole_number
from ablation_core.data.dataset import DEFAULT_BATCH, Data, checked_seed
from ablation_core.data.given.images import load_hub_images
from ablation_core.data.given.load import load_given
from ablation_core.data.images import find_images
from ablation_core.data.labelled.texts import load_labelled
from ablation_core.data.pixels import image_data
from ablation_core.data.references import (
    Split,
    at_home,
    is_images,
    is_task,
    is_text,
    read_documents,
    read_text,
    unknown_data,
)
from ablation_core.data.request import DataRequest
from ablation_core.data.tasks.load import load_task
from ablation_core.data.texts import check_window, text_data
from ablation_core.data.windows import Reading, document_bodies, packed_bodies
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel

PROMPTS_PER_WINDOW = 4  # a task's prompts are short: as many more of them are run at once


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
    if documents not in (True, False):
        raise DataError(f"documents is True or False, not {documents!r}.")
    checked_seed(seed)
    ref = at_home(ref) if isinstance(ref, str) else ref
    task = isinstance(ref, str) and is_task(ref)
    request = DataRequest(
        ref=ref if isinstance(ref, str) else "in memory",
        split=split or "evaluation",
        predictions=predictions,
        seq_len=seq_len,
        batch_size=batch_size or DEFAULT_BATCH[model.modality] * (PROMPTS_PER_WINDOW if task else 1),
        seed=seed,
        documents=bool(documents),
        given=None if isinstance(ref, str) else ref,
    )
    if isinstance(ref, Path):
        raise unknown_data(str(ref))
    if not isinstance(ref, str):
        return load_given(ref, request, model, split)
    if task:
        return load_task(request, model)
    if not is_text(ref) and not is_images(ref):
        raise unknown_data(ref)
    if model.modality == "text-classification":
        return load_labelled(request, model)
    if ref.startswith("hf:") and model.modality == "vision":
        return load_hub_images(request, model)
    if is_images(ref) != (model.modality == "vision"):
        kinds = ("images", "text") if model.modality == "vision" else ("text", "images")
        raise DataError(f"{model.ref} reads {kinds[0]}, but {ref} holds {kinds[1]}.")
    return _load_images(request, model) if is_images(ref) else _load_text(request, model, seq_len)


def _load_text(request: DataRequest, model: LoadedModel, seq_len: int) -> Data:
    ref, part, reading = request.ref, request.split, Reading()
    check_window(model, seq_len)
    if request.documents and ref.startswith("text:"):  # one document, however long: read in pieces
        bodies = packed_bodies(read_text(ref, part, reading.notes), model, seq_len, reading, ending=True)
    elif request.documents:
        bodies = document_bodies(read_documents(ref, part, reading.notes), model, seq_len, reading)
    else:
        bodies = packed_bodies(read_text(ref, part, reading.notes), model, seq_len, reading)
    made = text_data(request, model, bodies, reading)
    if made is None:
        raise DataError(
            f"The {part} part of {ref} is shorter than one window of {seq_len} tokens; "
            f"choose a smaller seq-len or a longer text, or take each document by itself (documents)."
            if not request.documents
            else f"The {part} part of {ref} holds no document with anything to predict."
        )
    return made


def _load_images(request: DataRequest, model: LoadedModel) -> Data:
    items, notes = find_images(request.ref, request.split, model.labels)
    order = np.random.default_rng(request.seed).permutation(len(items))[: max(2, request.predictions)]
    return image_data(request, model, [items[index] for index in order], notes)
