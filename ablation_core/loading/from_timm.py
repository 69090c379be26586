"""timm's models, from a folder that timm has saved or from a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablation_core.errors import ModelError
from ablation_core.loading.door.remembered import DoorMemory, pass_door
from ablation_core.loading.hub import find_on_hub
from ablation_core.loading.memory import check_fits
from ablation_core.loading.wanted import Wanted
from ablation_core.loading.wrapping import wrap_timm
from ablation_core.models.loaded import LoadedModel

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # timm reads the second, its default, by torch with weights_only


def load_timm_folder(ref: str, folder: Path, wanted: Wanted) -> LoadedModel:
    """A model from a folder as timm's `save_for_hf` writes it.

    Raises:
        ModelError: it has no weights.
    """
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise ModelError(f"The folder {ref} has no weights of timm's: {' or '.join(WEIGHTS)} was expected.")
    return _load(ref, f"local-dir:{folder}", wanted)


def load_timm_from_hub(ref: str, wanted: Wanted) -> LoadedModel:
    """`timm/<name>`, or `hf-hub:<id>`.

    Raises:
        ModelError: there is no such model, or it cannot be fetched.
    """
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
    if wanted.device is not None:
        check_fits(ref, found.weight_bytes(wanted.dtype), wanted.device, wanted.dtype)
    return _load(ref, source, wanted)


def _load(ref: str, source: str, wanted: Wanted) -> LoadedModel:
    import timm

    module: Any = timm.create_model(source, pretrained=True)
    module.to(wanted.dtype).eval().requires_grad_(False)
    if wanted.device is not None:
        module.to(wanted.device)
    memory = None if wanted.device is None else DoorMemory.of(module, "vision", wanted.cache_dir)
    known = memory.recall() if memory else None
    if known is None:
        wanted.notify(f"Checking {ref}, once per model …")
    model, rebuilt = wrap_timm(ref, module, known)
    pass_door(model, memory, known if rebuilt else None)
    return model
