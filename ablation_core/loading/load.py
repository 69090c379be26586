"""From a model reference to a `LoadedModel`.

A reference is the name of a bundled or fetched model, a local folder (transformers' or timm's layout, or GGUF), a
Hugging Face id with an optional `@revision`, or `timm/<name>`. Code that a model brings along is never run, and nothing
is unpickled but plain tensors.
"""

import threading
from pathlib import Path
from typing import Any

import torch

from ablation_core.errors import AblationError, ModelError, first_line
from ablation_core.loading.folders import check_files, find_folder, folder_options, is_timm_folder
from ablation_core.loading.hub import find_on_hub
from ablation_core.loading.memory import check_fits, weight_bytes
from ablation_core.loading.verification import check_by_running
from ablation_core.models.loaded import LoadedModel, wrap
from ablation_core.models.structure import find_by_structure, known_architecture, modality_of, supported
from ablation_core.models.tokenizer import encode, tokenizer_faults
from ablation_core.storage import CACHE

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SPLIT = "split"
# transformers changes torch's and its own functions while it loads: two threads at once break each other, and all after
_ONE_AT_A_TIME = threading.RLock()
_TASKS = {"causal": "causal language model", "masked": "masked language model", "vision": "image classifier"}
_COUNTING_FROM_PADDING = {"roberta", "xlm-roberta", "camembert"}


def load_model(
    ref: str,
    device: str = "auto",
    dtype: str = "auto",
    cache_dir: Path = CACHE,
    split_memory: int | None = None,
) -> LoadedModel:
    """Load a model by its reference.

    Args:
        ref: a bundled or fetched model's name, a folder, a Hugging Face id, or `timm/<name>`.
        device: `auto` (CUDA, else MPS, else CPU), a torch device, or `split`: accelerate spreads a transformers model
            over all devices, then memory, then disk.
        dtype: `auto` (bfloat16 on CUDA, else float32), `float32`, `bfloat16` or `float16`.
        cache_dir: where fetched models lie.
        split_memory: bytes of memory that a split model may fill before the disk is used; by default what is free.

    Raises:
        ModelError: there is no such model, it cannot be loaded, or its family is not supported.
    """
    target = None if device == SPLIT else _device(device)
    precision = _dtype(dtype, target)
    try:
        with _ONE_AT_A_TIME:
            model = _load(ref, target, precision, cache_dir, _placement(target, split_memory))
        model.module.eval().requires_grad_(False)
        if target is not None:
            model.module.to(target)
        if target is not None and target.type == "cpu":
            _own_weights(model.module)
    except AblationError:
        raise
    except Exception as error:  # a loader may fail in any way; the user needs one sentence, the cause stays attached
        raise ModelError(f"The model {ref!r} cannot be loaded: {first_line(error)}") from error
    return model


def _load(
    ref: str, device: torch.device | None, dtype: torch.dtype, cache_dir: Path, placement: dict[str, Any]
) -> LoadedModel:
    folder = find_folder(ref, cache_dir)
    if folder is None:
        if ref.startswith(("timm/", "hf-hub:")):
            return _load_timm_from_hub(ref, device, dtype)
        return _load_from_hub(ref, device, dtype, placement)
    check_files(ref, folder)
    if device is not None:
        check_fits(ref, weight_bytes(folder, dtype), device, dtype)
    if is_timm_folder(folder):
        if not (folder / "model.safetensors").is_file():
            raise ModelError(f"The folder {ref} has no model.safetensors; timm weights are read from that file only.")
        return _load_timm(ref, f"local-dir:{folder}", dtype)
    return _load_transformers(ref, str(folder), dtype, folder_options(ref, folder) | placement)


def _own_weights(module: torch.nn.Module) -> None:
    """Copy the weights into memory of their own.

    Loaded in the type they are stored in, they are views of the model's files: whoever writes there would change them,
    and whoever cuts a file short would end this process.
    """
    copies: dict[tuple, torch.Tensor] = {}  # by place, so that tied weights stay tied
    for tensor in (*module.parameters(), *module.buffers()):
        place = tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
        if place not in copies:
            copies[place] = tensor.data.clone()
        tensor.data = copies[place]


def _placement(device: torch.device | None, split_memory: int | None) -> dict[str, Any]:
    """transformers' options for a model that is spread over several places; none for one device."""
    if device is not None:
        return {}
    if split_memory is None:
        return {"device_map": "auto"}
    from accelerate.utils import get_max_memory

    return {"device_map": "auto", "max_memory": get_max_memory() | {"cpu": split_memory}}


def _load_from_hub(ref: str, device: torch.device | None, dtype: torch.dtype, placement: dict[str, Any]) -> LoadedModel:
    found = find_on_hub(ref)
    if device is not None:
        check_fits(ref, found.weight_bytes(dtype), device, dtype)
    options = {"revision": found.revision, "local_files_only": found.offline} | placement
    if not found.offline:
        options["use_safetensors"] = found.has_safetensors
    return _load_transformers(ref, found.repo, dtype, options)


def _load_timm_from_hub(ref: str, device: torch.device | None, dtype: torch.dtype) -> LoadedModel:
    import timm

    if ref.startswith("timm/"):
        name = ref.removeprefix("timm/")
        settings = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
        if settings is None or not settings.hf_hub_id:
            raise ModelError(f"timm knows no pretrained model {name!r}; 'timm.list_pretrained()' lists them.")
        repo = settings.hf_hub_id
        repo += f"{settings.architecture}.{settings.tag}" if repo.endswith("/") else ""
        source = name
    else:
        repo = source = ref
    found = find_on_hub(repo.removeprefix("hf-hub:"))
    if device is not None:
        check_fits(ref, found.weight_bytes(dtype), device, dtype)
    return _load_timm(ref, source, dtype)


def _load_transformers(ref: str, source: str, dtype: torch.dtype, options: dict[str, Any]) -> LoadedModel:
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageClassification,
        AutoModelForMaskedLM,
    )
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # a bar for a fraction of a second, in the midst of our own output
    reading = {
        name: value for name, value in options.items() if name not in ("use_safetensors", "device_map", "max_memory")
    }
    reading["trust_remote_code"] = False
    config = AutoConfig.from_pretrained(source, **reading)
    family = config.model_type
    architecture = known_architecture(family, config.is_encoder_decoder)
    modality = architecture.modality if architecture else modality_of(config.architectures or [], family)
    loader = {
        "causal": AutoModelForCausalLM,
        "masked": AutoModelForMaskedLM,
        "vision": AutoModelForImageClassification,
    }[modality]
    options |= {"trust_remote_code": False, "output_loading_info": True}
    module, read = loader.from_pretrained(source, config=config, dtype=dtype, **options)
    if absent := sorted(read["missing_keys"]) + sorted(str(key) for key in read["mismatched_keys"]):
        raise ModelError(
            f"{ref} lacks weights that a {_TASKS[modality]} needs ({len(absent)}, such as {absent[0]}), and random ones "
            f"would be measured in their place. Was it saved for another task?"
        )
    model = wrap(ref, module, architecture or find_by_structure(module, family, modality))
    if modality == "vision":
        _add_image_processor(model, source, reading)
    else:
        _add_tokenizer(model, source, reading)
    if architecture is None:
        check_by_running(model)
    return model


def _add_tokenizer(model: LoadedModel, source: str, options: dict[str, Any]) -> None:
    from transformers import AutoTokenizer

    with tokenizer_faults(model.ref):
        model.tokenizer = AutoTokenizer.from_pretrained(source, **options)
        if len(model.tokenizer) < 2:
            raise ModelError(f"{model.ref} has no tokenizer; save its tokenizer (tokenizer.json) beside the weights.")
        if not encode(model, "A text, to try it."):
            raise ModelError(f"The tokenizer of {model.ref} makes no tokens of a text; save its tokenizer again.")
        model.tokenizer.decode(encode(model, "A text, to try it.", special=True))
    config = model.config
    positions = getattr(config, "max_position_embeddings", None)
    if positions and (config.model_type in _COUNTING_FROM_PADDING or _has_padding_place(model.module)):
        positions -= config.pad_token_id + 1
    model.max_length = positions


def _has_padding_place(module: torch.nn.Module) -> bool:
    """Whether positions are counted from behind the padding's own place, as in fairseq's models."""
    places = (part for name, part in module.named_modules() if name.endswith("position_embeddings"))
    return any(isinstance(part, torch.nn.Embedding) and part.padding_idx is not None for part in places)


def _add_image_processor(model: LoadedModel, source: str, options: dict[str, Any]) -> None:
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(source, **options)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{model.ref} has no image processor that can be read ({first_line(error)}); "
            f"save its preprocessor_config.json beside it."
        ) from error
    config = model.config
    model.to_pixels = lambda image: processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
    model.labels = tuple(config.id2label[index] for index in range(config.num_labels))


def _load_timm(ref: str, source: str, dtype: torch.dtype) -> LoadedModel:
    import timm
    from timm.data import create_transform, resolve_model_data_config

    module: Any = timm.create_model(source, pretrained=True)
    family = type(module).__name__
    architecture = known_architecture(family)
    if architecture is None:
        raise ModelError(f"timm models of the class {family} are not supported. {supported()}")
    model = wrap(ref, module.to(dtype), architecture)
    transform = create_transform(**resolve_model_data_config(module), is_training=False)
    mode = {1: "L", 3: "RGB"}[module.pretrained_cfg["input_size"][0]]
    names = module.pretrained_cfg.get("label_names") or [str(index) for index in range(module.num_classes)]
    model.to_pixels = lambda image: transform(image.convert(mode))
    model.labels = tuple(names)
    return model


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a meta device holds no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"The device {name!r} cannot be used here: {first_line(error)}") from error
    return device


def _dtype(name: str, device: torch.device | None) -> torch.dtype:
    if name == "auto":
        on_cuda = torch.cuda.is_available() and (device is None or device.type == "cuda")
        return torch.bfloat16 if on_cuda and torch.cuda.is_bf16_supported() else torch.float32
    if name not in DTYPES:
        raise ModelError(f"There is no dtype {name!r}; choose auto, {', '.join(DTYPES)}.")
    return DTYPES[name]
