"""From a model reference to a `LoadedModel`.

A reference is the name of a bundled or fetched model, a local folder (transformers' or timm's layout, or GGUF), a
Hugging Face id with an optional `@revision`, or `timm/<name>`. Code that a model brings along is never run, and nothing
is unpickled but plain tensors.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ablation_core.errors import AblationError, ModelError, first_line
from ablation_core.loading.adapters import Adapter, base_of, is_adapter, merge_adapter
from ablation_core.loading.checkpoint import check_keys, check_library, plain_flags
from ablation_core.loading.folders import check_files, find_folder, folder_options, is_timm_folder
from ablation_core.loading.hub import find_on_hub
from ablation_core.loading.in_memory import load_from_memory
from ablation_core.loading.length import longest_input
from ablation_core.loading.memory import check_fits, weight_bytes
from ablation_core.loading.pixels import image_reader
from ablation_core.loading.verification import verify
from ablation_core.loading.wrapping import attach_tokenizer, wrap_timm, wrap_transformers
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.structure import is_headless, known_architecture, modality_of
from ablation_core.models.tokenizer import tokenizer_faults
from ablation_core.storage import CACHE

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SPLIT = "split"
# transformers changes torch's and its own functions while it loads: two threads at once break each other, and all after
_ONE_AT_A_TIME = threading.RLock()
_TASKS = {"causal": "causal language model", "masked": "masked language model", "vision": "image classifier"}


def load_model(
    ref: Any,
    device: str = "auto",
    dtype: str = "auto",
    cache_dir: Path = CACHE,
    split_memory: int | None = None,
    *,
    tokenizer: Any = None,
    image_processor: Any = None,
    labels: Sequence[str] | None = None,
) -> LoadedModel:
    """Load a model by its reference, or take one that is in memory.

        load_model("opt-mini")
        load_model(module, tokenizer=tokenizer)  # used where it is, and left as it was

    Args:
        ref: a bundled or fetched model's name, a folder, a Hugging Face id, or `timm/<name>`; or a transformers or timm
            module, also one that PEFT or torch.compile have wrapped.
        device: `auto` (CUDA, else MPS, else CPU), a torch device, or `split`: accelerate spreads a transformers model
            over all devices, then memory, then disk.
        dtype: `auto` (bfloat16 on CUDA, else float32), `float32`, `bfloat16` or `float16`.
        cache_dir: where fetched models lie.
        split_memory: bytes of memory that a split model may fill before the disk is used; by default what is free.
        tokenizer: of a language model in memory; without one, data has to be given as ids of tokens.
        image_processor: of an image classifier in memory: transformers' processor, or a function from an image to pixels.
        labels: the classes' names of a classifier in memory; by default its configuration's.

    Raises:
        ModelError: there is no such model, it cannot be loaded, or its family is not supported.
    """
    if isinstance(ref, Path):
        ref = str(ref)
    if not isinstance(ref, str):
        with _ONE_AT_A_TIME:
            return load_from_memory(ref, tokenizer, image_processor, labels, device, dtype)
    if not (tokenizer is None and image_processor is None and labels is None):
        raise ModelError(
            "A tokenizer, image processor or labels go with a module in memory; a reference brings its own."
        )
    target = None if device == SPLIT else _device(device)
    precision = _dtype(dtype, target)
    try:
        with _ONE_AT_A_TIME:
            model = _load(ref, target, precision, cache_dir, _placement(target, split_memory))
        if target is not None and target.type == "cpu":
            _own_weights(model.module)
    except AblationError:
        raise
    except Exception as error:  # a loader may fail in any way; the user needs one sentence, the cause stays attached
        raise ModelError(f"The model {ref!r} cannot be loaded: {first_line(error)}") from error
    return model


def _load(
    ref: str,
    device: torch.device | None,
    dtype: torch.dtype,
    cache_dir: Path,
    placement: dict[str, Any],
    adapter: Adapter | None = None,
) -> LoadedModel:
    folder = find_folder(ref, cache_dir)
    if folder is None:
        if ref.startswith(("timm/", "hf-hub:")):
            return _load_timm_from_hub(ref, device, dtype)
        return _load_from_hub(ref, device, dtype, placement, adapter)
    if adapter is None and is_adapter(folder):
        base = base_of(ref, folder)
        try:
            return _load(base, device, dtype, cache_dir, placement, Adapter(ref, folder))
        except ModelError as error:
            raise ModelError(f"{ref} is an adapter of the model {base}. {error}") from error
    check_files(ref, folder)
    if device is not None:
        check_fits(ref, weight_bytes(folder, dtype), device, dtype)
    if is_timm_folder(folder):
        if not (folder / "model.safetensors").is_file():
            raise ModelError(f"The folder {ref} has no model.safetensors; timm weights are read from that file only.")
        return _load_timm(ref, f"local-dir:{folder}", dtype, device)
    return _load_transformers(ref, str(folder), dtype, folder_options(ref, folder) | placement, device, adapter)


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


def _load_from_hub(
    ref: str, device: torch.device | None, dtype: torch.dtype, placement: dict[str, Any], adapter: Adapter | None = None
) -> LoadedModel:
    found = find_on_hub(ref)
    if device is not None:
        check_fits(ref, found.weight_bytes(dtype), device, dtype)
    options = {"revision": found.revision, "local_files_only": found.offline} | placement
    if not found.offline:
        options["use_safetensors"] = found.has_safetensors
    return _load_transformers(ref, found.repo, dtype, options, device, adapter)


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
    return _load_timm(ref, source, dtype, device)


def _load_transformers(
    ref: str,
    source: str,
    dtype: torch.dtype,
    options: dict[str, Any],
    device: torch.device | None,
    adapter: Adapter | None = None,
) -> LoadedModel:
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
    plain_flags(config)
    family = config.model_type
    row = known_architecture(family, getattr(config, "is_encoder_decoder", False))
    modality = modality_of(config.architectures or [], family)
    loader = {
        "causal": AutoModelForCausalLM,
        "masked": AutoModelForMaskedLM,
        "vision": AutoModelForImageClassification,
    }[modality]
    check_library(ref, config)
    options |= {"trust_remote_code": False, "output_loading_info": True}
    module, read = loader.from_pretrained(source, config=config, dtype=dtype, **options)
    check_keys(ref, _TASKS[modality], read)
    if config.architectures and all(is_headless(name) for name in config.architectures):
        raise ModelError(
            f"{ref} was saved as {', '.join(config.architectures)}, without a head that predicts: one made of its "
            f"embeddings would be measured in its place. Save the model together with its head."
        )
    if adapter is not None:
        module, ref = merge_adapter(adapter.ref, module, adapter.folder), adapter.ref
    module.eval().requires_grad_(False)
    if device is not None:
        module.to(device)
    row = row if row is not None and row.modality == modality else None
    reader = image_reader(ref, source, reading, module) if modality == "vision" else None
    model = wrap_transformers(ref, module, family, modality, row, reader)
    if modality != "vision":
        _add_tokenizer(model, source, reading)
        model.max_length = longest_input(model)
    verify(model)
    return model


def _add_tokenizer(model: LoadedModel, source: str, options: dict[str, Any]) -> None:
    from transformers import AutoTokenizer

    with tokenizer_faults(model.ref):
        attach_tokenizer(model, AutoTokenizer.from_pretrained(source, **options))


def _load_timm(ref: str, source: str, dtype: torch.dtype, device: torch.device | None) -> LoadedModel:
    import timm

    module: Any = timm.create_model(source, pretrained=True)
    module.to(dtype).eval().requires_grad_(False)
    if device is not None:
        module.to(device)
    model = wrap_timm(ref, module)
    verify(model)
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
