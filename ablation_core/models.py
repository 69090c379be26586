"""From a model reference to a `LoadedModel`: the module with what is needed to feed it, hook it and tell it apart.

A reference is the name of a bundled model, a local folder (transformers' or timm's layout), a Hugging Face id, or
`timm/<name>`. Weights come from safetensors; code that a model brings along is never run.
"""

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ablation_core import bundled
from ablation_core.architectures import (
    Architecture,
    Modality,
    find_projections,
    find_shape,
    input_width,
)
from ablation_core.errors import AblationError, ModelError
from ablation_core.selection import Shape
from ablation_core.structure import find_by_structure, known_architecture, modality_of, supported

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(eq=False)
class LoadedModel:
    """A model ready to be ablated. It is left as it was found: hooks live only inside the engine's `with` blocks.

    Attributes:
        ref: the reference it was loaded by.
        shape: layers, heads and neurons per head.
        blocks, projections: the transformer blocks, and the attention output projection of each.
        tokenizer: for text models.
        to_pixels: for vision models, a PIL image → float (channels, height, width), normalised.
        labels: for vision models, the name of each class.
        max_length: for text models, the longest input it has positions for.
        lock: hold it while hooks are on; several sessions may share the model.
    """

    ref: str
    module: nn.Module
    architecture: Architecture
    shape: Shape
    blocks: list[nn.Module]
    projections: list[nn.Module]
    tokenizer: Any = None
    to_pixels: Callable[[Image.Image], Tensor] | None = None
    labels: tuple[str, ...] = ()
    max_length: int | None = None
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def family(self) -> str:
        return self.architecture.family

    @property
    def modality(self) -> Modality:
        return self.architecture.modality

    @property
    def num_layers(self) -> int:
        return self.shape.layers

    @property
    def num_heads(self) -> int | tuple[int, ...]:
        """One number, or one per layer where layers differ."""
        return self.shape.heads[0] if len(set(self.shape.heads)) == 1 else self.shape.heads

    @property
    def head_dim(self) -> int:
        return self.shape.head_dim

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> str:
        return str(next(self.module.parameters()).dtype).removeprefix("torch.")

    @property
    def input_name(self) -> str:
        """The module's argument for images."""
        return "pixel_values" if hasattr(self.module, "config") else "x"

    @cached_property
    def fingerprint(self) -> str:
        """A digest of every weight as loaded: its name, shape, type and bytes."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]


def load_model(ref: str, device: str = "auto", dtype: str = "auto") -> LoadedModel:
    """Load a model by its reference.

    Args:
        ref: a bundled model's name, a folder, a Hugging Face id, or `timm/<name>`.
        device: `auto` (CUDA, else MPS, else CPU) or a torch device.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.

    Raises:
        ModelError: there is no such model, it cannot be loaded, or its family is not supported.
    """
    target = _device(device)
    precision = _dtype(dtype, target)
    source = resolve(ref)
    try:
        if source.startswith("timm/") or _is_timm_folder(Path(source)):
            model = _load_timm(ref, source, precision)
        else:
            model = _load_transformers(ref, source, precision)
    except AblationError:
        raise
    except Exception as error:  # a loader may fail in any way; the user needs one sentence, the cause stays attached
        raise ModelError(f"The model {ref!r} cannot be loaded: {_first_line(error)}") from error
    model.module.eval().requires_grad_(False).to(target)
    return model


def resolve(ref: str) -> str:
    """Where a reference leads: a folder, `timm/<name>`, or a Hugging Face id.

    Raises:
        ModelError: it is none of these.
    """
    if ref in bundled.NAMES:
        return str(bundled.FOLDER / ref)
    if Path(ref).is_dir():
        return ref
    if ref.startswith("timm/") or _looks_like_hub_id(ref):
        return ref
    raise ModelError(
        f"There is no model {ref!r}. Name a bundled model ({', '.join(bundled.NAMES)}), a folder, "
        f"a Hugging Face id such as openai-community/gpt2, or timm/<name>."
    )


def _looks_like_hub_id(ref: str) -> bool:
    owner, slash, name = ref.partition("/")
    return bool(slash) and bool(owner) and bool(name) and "/" not in name and not ref.startswith((".", "~"))


def _is_timm_folder(folder: Path) -> bool:
    config = folder / "config.json"
    if not config.is_file():
        return False
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{config} is not valid JSON ({error}); the model folder is damaged.") from error
    return "architecture" in content and "model_type" not in content


def _load_transformers(ref: str, source: str, dtype: torch.dtype) -> LoadedModel:
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModelForCausalLM,
        AutoModelForImageClassification,
        AutoModelForMaskedLM,
        AutoTokenizer,
    )
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # a bar for a fraction of a second, in the midst of our own output
    options = {"trust_remote_code": False}
    if Path(source).is_dir():
        if not (Path(source) / "config.json").is_file():
            raise ModelError(f"The folder {ref} has no config.json: it is not a saved model.")
        options["local_files_only"] = True
    config = AutoConfig.from_pretrained(source, **options)
    family = config.model_type
    architecture = known_architecture(family, config.is_encoder_decoder)
    modality = architecture.modality if architecture else modality_of(config.architectures or [], family)
    loader = {
        "causal": AutoModelForCausalLM,
        "masked": AutoModelForMaskedLM,
        "vision": AutoModelForImageClassification,
    }[modality]
    module = loader.from_pretrained(source, config=config, dtype=dtype, use_safetensors=True, **options)
    model = wrap(ref, module, architecture or find_by_structure(module, family, modality))
    if modality == "vision":
        processor = AutoImageProcessor.from_pretrained(source, **options)
        model.to_pixels = lambda image: processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        model.labels = tuple(config.id2label[index] for index in range(config.num_labels))
    else:
        model.tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model.max_length = _max_length(config)
    return model


def wrap(ref: str, module: nn.Module, architecture: Architecture) -> LoadedModel:
    """A `LoadedModel` of a module, still without tokenizer or image transform."""
    blocks, projections = find_projections(architecture, module)
    shape = find_shape(architecture, module, blocks, [input_width(projection) for projection in projections])
    return LoadedModel(ref, module, architecture, shape, blocks, projections)


def _max_length(config: Any) -> int | None:
    positions = getattr(config, "max_position_embeddings", None)
    if positions and config.model_type in {"roberta", "xlm-roberta", "camembert"}:
        return positions - config.pad_token_id - 1  # these count positions from the padding token's id
    return positions


def _load_timm(ref: str, source: str, dtype: torch.dtype) -> LoadedModel:
    import timm
    from timm.data import create_transform, resolve_model_data_config

    if source.startswith("timm/"):
        module = timm.create_model(source.removeprefix("timm/"), pretrained=True)
    else:
        if not (Path(source) / "model.safetensors").is_file():
            raise ModelError(f"The folder {ref} has no model.safetensors; timm weights are read from that file only.")
        module = timm.create_model(f"local-dir:{source}", pretrained=True)
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
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"The device {name!r} cannot be used here: {_first_line(error)}") from error
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if name not in DTYPES:
        raise ModelError(f"There is no dtype {name!r}; choose auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
