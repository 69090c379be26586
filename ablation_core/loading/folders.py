"""The folders that models lie in: where a reference leads, and what a folder holds, checked before anything is loaded.

A folder's files are not followed out of it, but for the hub's cache, whose files are links. Needs no torch.
"""

import json
import os
from pathlib import Path
from typing import Any

from ablation_core import bundled
from ablation_core.errors import ModelError, first_line
from ablation_core.loading.packaged import PACKAGED, fetched_folder
from ablation_core.storage import CACHE

MOST_LAYERS = 2_000


def find_folder(ref: str, cache_dir: Path = CACHE) -> Path | None:
    """The folder a reference leads to; None where it names a model on a hub.

    Raises:
        ModelError: it is neither.
    """
    ref = split_classes(ref)[0]
    if ref in bundled.NAMES:
        return bundled.FOLDER / ref
    if ref in PACKAGED:
        folder = fetched_folder(ref, cache_dir)
        if folder is None:
            raise ModelError(f"{ref} has not been fetched yet: run 'python -m ablation_core get {ref}' first.")
        return folder
    if ref and os.path.isdir(ref):  # also false where the text is no possible path
        return _snapshot(Path(ref))
    if os.path.isfile(ref):
        raise ModelError(
            f"{ref} is a file. A model is a folder: its weights with their configuration (config.json), as save_pretrained, "
            f"or timm's save_for_hf, leaves it."
        )
    owner, slash, name = ref.partition("/")
    if ref.startswith("hf-hub:") or (slash and owner and name and "/" not in name and not ref.startswith((".", "~"))):
        return None
    raise ModelError(
        f"There is no model {ref!r}. Name a bundled model ({', '.join(bundled.NAMES)}), {', '.join(PACKAGED)}, "
        f"a folder, a Hugging Face id such as openai-community/gpt2, or timm/<name>."
    )


def split_classes(ref: str) -> tuple[str, str | None]:
    """`FOLDER#cat,dog` in its parts; a `#` that is part of an existing folder's name stays there."""
    if "#" not in ref or os.path.isdir(ref):
        return ref, None
    signs = [number for number, sign in enumerate(ref) if sign == "#"]
    at = next((number for number in signs if os.path.isdir(ref[:number])), signs[0])
    return ref[:at], ref[at + 1 :]


def _snapshot(folder: Path) -> Path:
    """The folder itself; of a model's whole folder in the hub's cache, the snapshot that `main` names, or the only one."""
    if (folder / "config.json").exists() or not (folder / "snapshots").is_dir():
        return folder
    there = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
    named = folder / "refs" / "main"
    commit = named.read_text().strip() if named.is_file() else ""
    chosen = [path for path in there if path.name == commit] or (there if len(there) == 1 else [])
    return chosen[0] if chosen else folder


def folder_state(ref: str) -> str:
    """What tells that a model's folder has changed: its files with their sizes and times; empty for a hub's.

    Raises:
        ModelError: there is no such model, or its folder cannot be read.
    """
    folder = find_folder(ref)
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file()) if folder else []
        stats = [(path.name, path.stat()) for path in files]
    except OSError as error:
        raise ModelError(f"The folder {ref} cannot be read: {first_line(error)}") from error
    return " ".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)


def check_files(ref: str, folder: Path) -> None:
    """Refuse a folder that is not a model's, or whose files lead out of it."""
    if not (folder / "config.json").is_file() and not any(folder.glob("*.gguf")):
        raise ModelError(f"The folder {ref} has no config.json: it is not a saved model.{_inside(folder)}")
    if outside := leads_out(folder):
        raise ModelError(f"{outside} leads out of the model's folder; links are not followed. Copy the file instead.")
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"The folder {ref} holds an adapter, which names another model to load; merge them and save that."
        )
    if (folder / "config.json").is_file():
        _check_depth(ref, _read_settings(folder / "config.json"))
    for index in folder.glob("*.index.json"):
        names = _read_settings(index).get("weight_map", {})
        for name in names.values() if isinstance(names, dict) else [None]:
            if not isinstance(name, str) or Path(name).name != name:
                raise ModelError(f"{index} names {name!r}, which is not a file of its own folder.")


def _inside(folder: Path) -> str:
    """Where a model lies instead: folders of sentence-transformers, pipelines and trainers' checkpoints hold one further in."""
    found = sorted(path.parent.name for path in folder.glob("*/config.json"))
    return f" There is one in its folder {', '.join(found[:4])}: name that." if found else ""


def leads_out(folder: Path) -> Path | None:
    """A file that is a link out of its folder; links into the blobs of the hub's own cache are none."""
    roots = [folder.resolve(), *_hub_blobs(folder)]
    return next(
        (path for path in folder.rglob("*") if not any(path.resolve().is_relative_to(root) for root in roots)), None
    )


def _hub_blobs(folder: Path) -> list[Path]:
    """Where the files of a folder in the hub's own cache lie: `blobs` beside `snapshots`, each file a link into it."""
    whole = folder.resolve()
    blobs = whole.parent.parent / "blobs"
    return [blobs.resolve()] if whole.parent.name == "snapshots" and blobs.is_dir() and not blobs.is_symlink() else []


def _check_depth(ref: str, settings: dict) -> None:
    """Refuse a number of layers that no model has: building them would take all memory, whatever the weights hold."""
    for name, value in settings.items():
        if isinstance(value, dict):
            _check_depth(ref, value)
        elif name.endswith(("layers", "layer")) and isinstance(value, int | float) and value > MOST_LAYERS:
            raise ModelError(
                f"The config.json of {ref} asks for {name} = {value:,}; at most {MOST_LAYERS:,} are taken."
            )


def is_timm_folder(folder: Path) -> bool:
    if not (folder / "config.json").is_file():
        return False
    content = _read_settings(folder / "config.json")
    return "architecture" in content and "model_type" not in content


def _read_settings(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON ({first_line(error)}); the model folder is damaged.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no settings; the model folder is damaged.")
    return content


def folder_options(ref: str, folder: Path) -> dict[str, Any]:
    """How transformers must read a folder.

    Raises:
        ModelError: it holds no model.
    """
    options: dict[str, Any] = {"local_files_only": True}
    if any(folder.glob("*.safetensors")):
        return options | {"use_safetensors": True}
    if any(folder.glob("*.bin")):
        return options | {"use_safetensors": False}  # read by torch with weights_only
    gguf = sorted(path.name for path in folder.glob("*.gguf"))
    if len(gguf) == 1:
        return options | {"gguf_file": gguf[0]}
    raise ModelError(f"The folder {ref} holds no weights: no safetensors, bin or single gguf file.")
