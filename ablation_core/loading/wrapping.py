"""From a module that can be run to a `LoadedModel`: its heads found, its tokenizer or its reader of images attached."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from ablation_core.engine.forward import model_options
from ablation_core.errors import ModelError
from ablation_core.loading.checkpoint import class_names
from ablation_core.loading.door.remembered import Checked, rebuilt
from ablation_core.loading.door.verification import noise_images, tiny_inputs
from ablation_core.loading.images.pixels import timm_reader
from ablation_core.loading.published import is_published
from ablation_core.loading.text_classifiers import prepare_padding
from ablation_core.models.architectures import Architecture
from ablation_core.models.info import Modality
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.settings import parts_of
from ablation_core.models.structure import Structure, find_structure, known_architecture
from ablation_core.models.tokenizer import encode, special_tokens, tokenizer_faults

ImageReader = tuple[Callable[[Image.Image], torch.Tensor], tuple[str, ...]]


def wrap_transformers(
    ref: str,
    module: Any,
    family: str,
    modality: Modality,
    row: Architecture | None,
    reader: ImageReader | None,
    known: Checked | None = None,
) -> tuple[LoadedModel, bool]:
    """A `LoadedModel` of a transformers module that can be run, still without a tokenizer and not yet verified.

    Args:
        reader: for image classifiers, how they read images, and the names of their classes.
        known: what is remembered of it, so that it need not be looked at again.

    Returns:
        The model, and whether what is remembered was used.
    """
    if modality == "text-classification":
        prepare_padding(module.config)
    if switch := getattr(getattr(module, "base_model", None), "set_attention_type", None):
        switch(
            "original_full"
        )  # BigBird does so itself, for good, at its first short input: at the door, if it is not remembered
    remembered = rebuilt(known, module, family, modality, row) if known else None
    if remembered is None:
        inputs = tiny_inputs(module) if reader is None else _one_image(module, reader[0], "pixel_values")
        extra = model_options(module, modality)
        found = find_structure(module, family, modality, row, inputs, lambda batch: module(**batch, **extra))
    else:
        found = remembered
    model = _of(ref, module, found)
    if reader is not None:
        model.to_pixels, model.labels = reader
    if modality == "text-classification":
        model.labels = class_names(module.config)
    return model, remembered is not None


def _of(ref: str, module: torch.nn.Module, found: Structure) -> LoadedModel:
    parts = found.architecture, found.shape, found.blocks, found.projections
    return LoadedModel(ref, module, *parts, streams=found.streams, published=is_published, built=parts_of(module))


def _one_image(module: torch.nn.Module, to_pixels: Any, name: str) -> dict[str, torch.Tensor]:
    weight = next(module.parameters())
    pixels = to_pixels(next(noise_images(1)))[None]
    return {name: pixels.to(weight.device, weight.dtype)}


def attach_tokenizer(model: LoadedModel, tokenizer: Any) -> None:
    """Give a language model its tokenizer, tried on a text.

    Raises:
        ModelError: it makes nothing of any text.
    """
    with tokenizer_faults(model.ref):
        model.tokenizer = tokenizer
        words = set(model.tokenizer.get_vocab()) - set(model.tokenizer.get_added_vocab())
        if len(model.tokenizer) < 2 or not words:
            raise ModelError(f"{model.ref} has no tokenizer; save its tokenizer (tokenizer.json) beside the weights.")
        special_tokens(model)
        model.tokenizer.decode(encode(model, "A text, to try it.", special=True))


def wrap_timm(ref: str, module: Any, known: Checked | None = None) -> tuple[LoadedModel, bool]:
    """A `LoadedModel` of a timm module that can be run, not yet verified; it says itself how images are prepared.

    Args, Returns: as `wrap_transformers`.
    """
    family = type(module).__name__
    row = known_architecture(family)
    if (classes := int(getattr(module, "num_classes", 0))) < 2:
        raise ModelError(
            f"{ref} was made with {'one class' if classes else 'no classes (its features are what it gives)'}; only classifiers with "
            f"two classes or more can be measured."
        )
    to_pixels, names = timm_reader(ref, module)
    remembered = rebuilt(known, module, family, "vision", row) if known else None
    if remembered is None:
        inputs = _one_image(module, to_pixels, "x")
        found = find_structure(module, family, "vision", row, inputs, lambda batch: module(**batch))
    else:
        found = remembered
    model = _of(ref, module, found)
    model.to_pixels, model.labels = to_pixels, names
    return model, remembered is not None
