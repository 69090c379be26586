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
from ablation_core.loading.adapters import Adapter, is_adapter, read_adapter
from ablation_core.loading.folders import check_files, find_folder, folder_options, is_timm_folder, split_classes
from ablation_core.loading.from_timm import load_timm_folder, load_timm_from_hub
from ablation_core.loading.from_transformers import load_transformers
from ablation_core.loading.hub import find_on_hub
from ablation_core.loading.in_memory import load_from_memory
from ablation_core.loading.memory import check_fits, weight_bytes
from ablation_core.loading.wanted import Notify, Wanted
from ablation_core.loading.zero_shot import ClassTexts, check_class_texts
from ablation_core.models.loaded import LoadedModel
from ablation_core.storage import CACHE

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SPLIT = "split"
# transformers changes torch's and its own functions while it loads: two threads at once break each other, and all after
_ONE_AT_A_TIME = threading.RLock()


def _silent(words: str) -> None:
    """Nobody is told."""


def load_model(
    ref: Any,
    device: str = "auto",
    dtype: str = "auto",
    cache_dir: str | Path = CACHE,
    split_memory: int | None = None,
    *,
    tokenizer: Any = None,
    image_processor: Any = None,
    labels: Sequence[str] | None = None,
    notify: Notify = _silent,
) -> LoadedModel:
    """Load a model by its reference, or take one that is in memory.

        load_model("opt-mini")
        load_model(module, tokenizer=tokenizer)  # used where it is, and left as it was
        load_model("openai/clip-vit-base-patch32#cat,dog")  # images by class texts

    Args:
        ref: a bundled or fetched model's name, a folder, a Hugging Face id, or `timm/<name>`; or a transformers or timm
            module, also one that PEFT or torch.compile have wrapped.
        device: `auto` (CUDA, else MPS, else CPU), a torch device, or `split`: accelerate spreads a transformers model
            over all devices, then memory, then disk.
        dtype: `auto` (bfloat16 on CUDA, else float32), `float32`, `bfloat16` or `float16`.
        cache_dir: where fetched models lie, and where it is remembered which models passed the checks at the door.
        split_memory: bytes of memory that a split model may fill before the disk is used; by default what is free.
        tokenizer: of a language model in memory; without one, data has to be given as ids of tokens.
        image_processor: of an image classifier in memory: transformers' processor, or a function from an image to pixels.
        labels: the classes' names of a classifier of images or texts in memory; by default its configuration's. Of a
            model that compares images with texts, the classes' texts.
        notify: is told in a few words what takes a while: `notify=print`.

    Raises:
        ModelError: there is no such model, it cannot be loaded, or its family is not supported.
    """
    if isinstance(ref, Path):
        ref = str(ref)
    cache_dir = Path(cache_dir)
    if not isinstance(ref, str):
        with _ONE_AT_A_TIME:
            return load_from_memory(ref, tokenizer, image_processor, labels, device, dtype)
    if not (tokenizer is None and image_processor is None and labels is None):
        raise ModelError(
            "A tokenizer, image processor or labels go with a module in memory; a reference brings its own."
        )
    target = None if device == SPLIT else _device(device)
    precision = _dtype(dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch."), target)
    try:
        with _ONE_AT_A_TIME, torch.inference_mode(False):  # weights made in it let no gradients through
            classes = split_classes(ref)[1]
            texts = None if classes is None else ClassTexts.parse(classes)
            wanted = Wanted(target, precision, cache_dir, _placement(target, split_memory), notify, texts)
            model = _load(ref, wanted)
            model.cache = cache_dir
            if target is not None and target.type == "cpu":
                _own_weights(model.module)
    except AblationError:
        raise
    except Exception as error:  # a loader may fail in any way; the user needs one sentence, the cause stays attached
        raise ModelError(f"The model {ref!r} cannot be loaded: {first_line(error)}") from error
    return model


def _load(ref: str, wanted: Wanted, adapter: Adapter | None = None) -> LoadedModel:
    folder = find_folder(ref, wanted.cache_dir)
    if folder is None:
        if ref.startswith(("timm/", "hf-hub:")):
            return load_timm_from_hub(ref, wanted)
        return _load_from_hub(ref, wanted, adapter)
    if wanted.classes is not None and is_timm_folder(folder):
        check_class_texts(ref, False, wanted.classes)
    if adapter is None and is_adapter(folder):
        base, adapter = read_adapter(ref, folder)
        try:
            return _load(base, wanted, adapter)
        except ModelError as error:
            raise ModelError(f"{ref} is an adapter of the model {base}. {error}") from error
    check_files(ref, folder)
    if wanted.device is not None:
        check_fits(ref, weight_bytes(folder, wanted.dtype), wanted.device, wanted.dtype)
    if is_timm_folder(folder):
        return load_timm_folder(ref, folder, wanted)
    return load_transformers(ref, str(folder), folder_options(ref, folder) | wanted.placement, wanted, adapter)


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


def _load_from_hub(ref: str, wanted: Wanted, adapter: Adapter | None = None) -> LoadedModel:
    found = find_on_hub(split_classes(ref)[0])
    if wanted.device is not None:
        check_fits(ref, found.weight_bytes(wanted.dtype), wanted.device, wanted.dtype)
    options = {"revision": found.revision, "local_files_only": found.offline} | wanted.placement
    if not found.offline:
        options["use_safetensors"] = found.has_safetensors
    return load_transformers(ref, found.repo, options, wanted, adapter)


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
