"""A model that is in memory already: used where it is, and left as it was.

    model = load_model(module, tokenizer=tokenizer)
    model = load_model(timm_module)  # timm says itself how its images are prepared

What is measured is a second tree of modules around the very same weights: in evaluation mode, without gradients, with a
configuration of its own. So hooks, modes and flags of the person's module are never touched, and an edit of its weights,
also one that puts another tensor in a weight's place, is seen here at once.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ablation_core.errors import AblationError, ModelError, a_type, first_line
from ablation_core.loading.checkpoint import check_classes, class_names, plain_flags
from ablation_core.loading.door.length import longest_input
from ablation_core.loading.door.verification import verify
from ablation_core.loading.images.packed_patches import read_pixels
from ablation_core.loading.images.pixels import channels_of, image_size, processor_reader
from ablation_core.loading.text_classifiers import padding_of, settle_padding
from ablation_core.loading.wrapping import ImageReader, attach_tokenizer, wrap_timm, wrap_transformers
from ablation_core.loading.zero_shot import ClassTexts, check_class_texts, is_zero_shot, zero_shot
from ablation_core.models.architectures import row_for
from ablation_core.models.info import predicts_class
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.settings import noted_between, parts_of, unlike_built
from ablation_core.models.structure import is_headless, known_architecture, modality_of, task_of


def load_from_memory(
    module: Any,
    tokenizer: Any = None,
    image_processor: Any = None,
    labels: Sequence[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> LoadedModel:
    """A `LoadedModel` of a module.

    Raises:
        ModelError: it is not a module that can be hooked, or another device or type is asked for than it has.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"A model is a reference or a torch module, not {a_type(module)}; write load_model('opt-mini'), or "
            f"load_model(module, tokenizer=…)."
        )
    original = unwrapped(module)
    _check_placed(original, device, dtype)
    twin = linked_twin(original)
    twin.eval()
    before = parts_of(twin)
    try:
        if hasattr(original, "config") and hasattr(original.config, "model_type"):
            model = _transformers(original, twin, tokenizer, image_processor, labels)
        elif hasattr(original, "pretrained_cfg") or hasattr(original, "default_cfg"):
            model = _timm(twin, image_processor, labels)
        else:
            raise ModelError(
                f"The {type(original).__name__} is neither a transformers nor a timm model; only these can be taken from memory."
            )
        model.noted = noted_between(before, twin)
        return model
    except AblationError:
        raise
    except Exception as error:  # whatever a module does, the user needs one sentence
        raise ModelError(f"The {type(original).__name__} cannot be measured: {first_line(error)}") from error


def unwrapped(module: nn.Module) -> nn.Module:
    """The model inside what torch.compile, data parallelism or PEFT have put around it; a PEFT model keeps its adapters."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and type(module).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = module.module
        if inner is None and hasattr(module, "peft_config"):
            base = getattr(module, "base_model", None)
            adapter: Any = getattr(module, "active_peft_config", None)
            if adapter is not None and adapter.is_prompt_learning:
                raise ModelError(
                    "This adapter puts learned tokens before a prompt, which the module inside does not show; it is not "
                    "supported. LoRA and other adapters of weights are."
                )
            inner = getattr(base, "model", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def linked_twin(module: nn.Module) -> nn.Module:
    """The same modules once more around the same weights: parameters and buffers are shared, everything else is its own.

    Raises:
        ModelError: part of it cannot be copied.
    """
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    # pruning and the older weight norm keep what they made of a weight as an attribute, which cannot be copied
    made = (value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor))
    shared |= {id(tensor): tensor for tensor in made if not tensor.is_leaf}
    try:
        twin = copy.deepcopy(module, dict(shared))
    except Exception as error:  # a module may hold anything
        raise ModelError(
            f"The {type(module).__name__} cannot be used in place: part of it cannot be copied ({first_line(error)})."
        ) from error
    pairs = list(zip(module.modules(), twin.modules(), strict=True))
    for mine, theirs in pairs:
        # the very dictionaries: a weight that is put in another's place later shows in both
        theirs.__dict__["_parameters"] = mine.__dict__["_parameters"]
        theirs.__dict__["_buffers"] = mine.__dict__["_buffers"]
        compiled = theirs.__dict__.get("_compiled_call_impl")
        if compiled is not None:  # of module.compile(): hooks inside would not be called
            theirs.__dict__["_compiled_call_impl"] = None
        for name, child in theirs.named_children():
            if isinstance(inner := getattr(child, "_orig_mod", None), nn.Module):  # the same of torch.compile(block)
                theirs._modules[name] = inner
        if "chunk_size_feed_forward" in vars(theirs):  # of the configuration, which our own no longer has
            vars(theirs)["chunk_size_feed_forward"] = 0
    return twin


def _check_placed(module: nn.Module, device: str, dtype: str) -> None:
    first = next(module.parameters(), None)
    if first is None:
        raise ModelError(f"The {type(module).__name__} has no weights.")
    if any(weight.device.type == "meta" for weight in module.parameters()) and not hasattr(module, "_hf_hook"):
        raise ModelError(
            f"The {type(module).__name__} lies on the device meta, which holds no numbers; load its weights."
        )
    if device not in ("auto", str(first.device), first.device.type):
        raise ModelError(
            f"The module lies on {first.device}; move it to {device} yourself, and load_model takes it there."
        )
    if dtype not in ("auto", str(first.dtype).removeprefix("torch.")):
        raise ModelError(
            f"The module's weights are {str(first.dtype).removeprefix('torch.')}; convert it to {dtype} yourself."
        )


def _transformers(
    original: Any, twin: Any, tokenizer: Any, image_processor: Any, labels: Sequence[str] | None
) -> LoadedModel:
    ref, config = _name(original), twin.config
    plain_flags(config)
    edited = unlike_built(twin)
    family = config.model_type
    row = known_architecture(family, getattr(config, "is_encoder_decoder", False))
    read_pixels(twin, family)
    class_name = _transformers_class(original)
    by_texts = is_zero_shot([class_name])
    if by_texts:
        check_class_texts(ref, True, ClassTexts.of(labels) if labels else None)
        if tokenizer is None:
            raise ModelError(
                "Class texts are read by the model's tokenizer: load_model(module, tokenizer=…, labels=[…])."
            )
        twin = zero_shot(ref, twin, tokenizer, ClassTexts.of(labels or ()))
    modality = "vision" if by_texts else modality_of([class_name], family)
    if class_name.endswith("ForPreTraining"):
        raise ModelError(
            f"The {class_name} predicts more than one thing; give the masked language model alone, as "
            f"{class_name.replace('ForPreTraining', 'ForMaskedLM')} loads it."
        )
    if is_headless(class_name) and not by_texts:
        raise ModelError(
            f"The {type(original).__name__} has no head that predicts; give the model with its head, such as one of "
            f"AutoModelForCausalLM."
        )
    if predicts_class(modality) and not by_texts:
        check_classes(ref, config)
    named = padding_of(config)
    reader = _image_reader(ref, twin, image_processor, labels) if modality == "vision" else None
    model, _ = wrap_transformers(ref, twin, family, modality, row_for(row, modality), reader)
    model.built = {name: part for name, part in (model.built or {}).items() if name not in edited}
    if modality != "vision":
        if tokenizer is not None:
            attach_tokenizer(model, tokenizer)
        if modality == "text-classification":
            settle_padding(model, named)
            model.labels = _checked_labels(labels or class_names(config), config.num_labels)
        model.max_length = longest_input(model)
    verify(model)
    if modality == "vision" and image_processor is None:
        model.to_pixels = _no_processor
    return model


def _image_reader(ref: str, twin: Any, processor: Any, labels: Sequence[str] | None) -> ImageReader:
    """How images become pixels; without a processor random ones, for the trial alone."""
    config = twin.config
    names = labels or class_names(config)
    if processor is None:
        size = image_size(config) or (224, 224)
        generator = torch.Generator().manual_seed(0)
        channels = channels_of(twin)

        def noise(_image: Image.Image) -> Tensor:
            return torch.randn(channels, *size, generator=generator)

        to_pixels: Any = noise
    else:
        # transformers' processors return a batch; torchvision's and timm's transforms return pixels
        is_transform = not hasattr(processor, "to_dict")
        to_pixels = processor if is_transform else processor_reader(ref, processor, twin)[0]
    return to_pixels, _checked_labels(names, config.num_labels)


def _no_processor(_image: Image.Image) -> Tensor:
    raise ModelError(
        "This model was taken from memory without an image processor: load_model(module, image_processor=…), or give "
        "pixels that are prepared, as float tensors."
    )


def _timm(twin: Any, image_processor: Any, labels: Sequence[str] | None) -> LoadedModel:
    name = (getattr(twin, "pretrained_cfg", None) or {}).get("architecture") or type(twin).__name__
    model, _ = wrap_timm(f"in memory: {name}", twin)
    if image_processor is not None:
        model.to_pixels = image_processor
    if labels:
        model.labels = _checked_labels(labels, twin.num_classes)
    verify(model)
    return model


def _checked_labels(names: Sequence[str], classes: int) -> tuple[str, ...]:
    if len(names) != classes:
        raise ModelError(f"The model has {classes} classes, but {len(names)} labels were given.")
    return tuple(map(str, names))


def _transformers_class(module: nn.Module) -> str:
    """The class that says what a module predicts: its own, or the one of transformers that a person's own is made from."""
    bases = type(module).__mro__
    return next(
        (one.__name__ for one in bases if task_of(one.__name__) or one.__module__.startswith("transformers.")),
        type(module).__name__,
    )


def _name(module: Any) -> str:
    name = getattr(module, "name_or_path", "") or getattr(module.config, "_name_or_path", "")
    return f"in memory: {type(module).__name__}{f' of {name}' if name else ''}"
