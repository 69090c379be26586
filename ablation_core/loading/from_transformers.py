"""transformers' models, from a folder or a hub's id: the class that its saved class says, its tokenizer or image processor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ablation_core import bundled
from ablation_core.errors import ModelError
from ablation_core.loading.adapters import Adapter, merge_adapter
from ablation_core.loading.bundled_weights import read_bundled
from ablation_core.loading.checkpoint import check_classes, check_keys, check_library, check_stored, plain_flags
from ablation_core.loading.door.remembered import DoorMemory, pass_door
from ablation_core.loading.images.packed_patches import read_pixels
from ablation_core.loading.images.pixels import image_reader
from ablation_core.loading.memory import stored_types
from ablation_core.loading.text_classifiers import padding_of, settle_padding
from ablation_core.loading.wanted import Wanted
from ablation_core.loading.wrapping import attach_tokenizer, wrap_transformers
from ablation_core.loading.zero_shot import check_class_texts, is_zero_shot, zero_shot
from ablation_core.models.architectures import row_for
from ablation_core.models.info import Modality, predicts_class
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.structure import is_headless, known_architecture, modality_of, reads_images_too
from ablation_core.models.tokenizer import tokenizer_faults

_TASKS: dict[Modality, str] = {
    "causal": "causal language model",
    "masked": "masked language model",
    "vision": "image classifier",
    "text-classification": "text classifier",
}
_EXPERTS_ALIGNED = 16  # bytes that a row of torch's grouped product has to be a multiple of
_ONLY_FOR_WEIGHTS = ("use_safetensors", "device_map", "max_memory")


def load_transformers(
    ref: str, source: str, options: dict[str, Any], wanted: Wanted, adapter: Adapter | None = None
) -> LoadedModel:
    """Load a model and show that it is what it seems.

    Args:
        source: a folder, or an id on the hub.
        options: how transformers is to read it.
        adapter: what is merged into it.

    Raises:
        ModelError: it is not one that can be measured.
    """
    from transformers import AutoConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # a bar for a fraction of a second, in the midst of our own output
    reading = {name: value for name, value in options.items() if name not in _ONLY_FOR_WEIGHTS}
    reading["trust_remote_code"] = False
    try:
        config = AutoConfig.from_pretrained(source, **reading)
    except ValueError as error:
        if "custom code" not in str(error):
            raise
        raise ModelError(
            f"{ref} is built by code that it brings along (auto_map in its config.json), and such code is never run here. "
            f"Use a model of a family that transformers has."
        ) from error
    plain_flags(config)
    if isinstance(config.architectures, str):
        config.architectures = [config.architectures]
    family = config.model_type
    row = known_architecture(family, getattr(config, "is_encoder_decoder", False))
    by_texts = is_zero_shot(config.architectures or [])
    check_class_texts(ref, by_texts, wanted.classes)
    modality: Modality | None = "vision" if by_texts else None
    modality = modality or (adapter.modality if adapter else None) or modality_of(config.architectures or [], family)
    if modality == "text-classification" and adapter is not None and adapter.classes not in (None, config.num_labels):
        config.num_labels = adapter.classes
    if predicts_class(modality) and not by_texts:
        check_classes(ref, config)
    check_library(ref, config)
    module = _read(ref, source, config, modality, options, wanted, adapter)
    read_pixels(module, family)
    if wanted.classes is not None:
        from transformers import AutoTokenizer

        with tokenizer_faults(ref):
            tokenizer = AutoTokenizer.from_pretrained(source, **reading)
        module = zero_shot(ref, module, tokenizer, wanted.classes)
    if adapter is not None:
        module, ref = merge_adapter(adapter, module), adapter.ref
    module.eval().requires_grad_(False)
    if wanted.device is not None:
        module.to(wanted.device)
    reader = image_reader(ref, source, reading, module) if modality == "vision" else None
    named = padding_of(module.config)
    memory = None
    if wanted.device is not None and not (modality == "text-classification" and named is None):
        memory = DoorMemory.of(module, modality, wanted.cache_dir)
    known = memory.recall() if memory else None
    if known is None:
        wanted.notify(f"Checking {ref}, once per model …")
    model, rebuilt = wrap_transformers(ref, module, family, modality, row_for(row, modality), reader, known)
    if modality != "vision":
        _add_tokenizer(model, source, reading, adapter)
        if modality == "text-classification":
            settle_padding(model, named)
    pass_door(model, memory, known if rebuilt else None)
    return model


def _read(
    ref: str,
    source: str,
    config: Any,
    modality: Modality,
    options: dict[str, Any],
    wanted: Wanted,
    adapter: Adapter | None,
) -> Any:
    """The module with its weights; what has no head of its own, or one for another task, is refused."""
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForImageClassification,
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
        AutoModelForZeroShotImageClassification,
    )

    loaders: dict[Modality, Any] = {
        "causal": AutoModelForCausalLM,
        "masked": AutoModelForMaskedLM,
        "vision": AutoModelForImageClassification,
        "text-classification": AutoModelForSequenceClassification,
    }
    options = options | {"trust_remote_code": False, "output_loading_info": True}
    loader = AutoModelForZeroShotImageClassification if wanted.classes is not None else loaders[modality]
    saved_class = _saved_class(config)
    # a part of a larger family, or one of text and images, is saved by a class of its own
    if saved_class and (type(config) not in loader._model_mapping or reads_images_too(saved_class.__name__)):
        loader = saved_class
    if ref in bundled.NAMES and wanted.device is not None:
        return read_bundled(source, loader, config, wanted.dtype)
    try:
        module, read = loader.from_pretrained(source, config=config, dtype=wanted.dtype, **options)
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise ModelError(
            f"Weights of {ref} have other shapes than its config.json says (a size, a number of heads or tokens): the two do "
            f"not belong together. Take both from where the model was saved."
        ) from error
    plain_experts(module)
    if os.path.isdir(source):
        check_stored(ref, module, stored_types(Path(source)))
    brought = adapter.whole if adapter else {}
    read["missing_keys"] = set(read["missing_keys"]) - set(brought)
    check_keys(ref, _TASKS[modality], read)
    has_head = (
        wanted.classes is not None
        or not config.architectures
        or not all(is_headless(name) for name in config.architectures)
    )
    if not (has_head or (adapter is not None and (adapter.classes or "lm_head.weight" in brought))):
        raise ModelError(
            f"{ref} was saved as {', '.join(config.architectures)}, without a head that predicts: one made of its "
            f"embeddings would be measured in its place. Save the model together with its head."
        )
    return module


def plain_experts(module: Any) -> None:
    """Have a mixture's experts computed one by one where torch's product of all at once does not take their sizes."""
    odd = any(
        weight.ndim == 3 and weight.shape[-1] * weight.element_size() % _EXPERTS_ALIGNED
        for name, weight in module.named_parameters()
        if ".experts." in name
    )
    if odd and hasattr(module, "set_experts_implementation"):
        module.set_experts_implementation("eager")


def _saved_class(config: Any) -> Any:
    """transformers' own class of the name that a model was saved by, where it is made from such a configuration."""
    import transformers

    for name in config.architectures or ():
        found: Any = getattr(transformers, name, None)
        if isinstance(getattr(found, "config_class", None), type) and isinstance(config, found.config_class):
            return found
    return None


def _add_tokenizer(model: LoadedModel, source: str, options: dict[str, Any], adapter: Adapter | None) -> None:
    from transformers import AutoTokenizer

    if adapter is not None and adapter.tokenizer is not None:
        source, options = str(adapter.tokenizer), {"local_files_only": True, "trust_remote_code": False}
    with tokenizer_faults(model.ref):
        attach_tokenizer(model, AutoTokenizer.from_pretrained(source, **options))
