"""A PEFT adapter's folder: it holds a few weights and names the model that they belong to. Loaded, they are merged into it."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from ablation_core.errors import ModelError, first_line

SETTINGS = "adapter_config.json"


@dataclass(frozen=True)
class Adapter:
    """An adapter's reference and folder."""

    ref: str
    folder: Path


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and no whole model."""
    return (folder / SETTINGS).is_file() and not (folder / "config.json").is_file()


def base_of(ref: str, folder: Path) -> str:
    """The reference of the model that an adapter belongs to.

    Raises:
        ModelError: it names none, the folder cannot be used, or the package peft is not installed.
    """
    root = folder.resolve()
    if any(not path.resolve().is_relative_to(root) for path in folder.rglob("*")):
        raise ModelError(
            f"Files of the adapter {ref} lead out of its folder; links are not followed. Copy them instead."
        )
    try:
        name = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise ModelError(f"The adapter {ref} does not name its model in {SETTINGS} ({first_line(error)}).") from error
    if not isinstance(name, str) or not name:
        raise ModelError(f"The adapter {ref} does not name its model in {SETTINGS} (base_model_name_or_path).")
    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelError(f"The adapter {ref} has no adapter_model.safetensors; other files of weights are not read.")
    if importlib.util.find_spec("peft") is None:
        raise ModelError(
            f"{ref} is an adapter, which the package peft reads, and that is not installed here. Install it, or merge the "
            f"adapter into its model and save that."
        )
    return name


def merge_adapter(ref: str, module: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """The module with the adapter's weights added to its own.

    Raises:
        ModelError: they do not fit, or cannot be merged.
    """
    from peft import PeftModel

    try:
        wrapped = PeftModel.from_pretrained(module, str(folder), use_safetensors=True, local_files_only=True)
        return wrapped.merge_and_unload()
    except Exception as error:
        raise ModelError(f"The adapter {ref} cannot be merged into its model ({first_line(error)}).") from error
