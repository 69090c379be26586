"""Which models are here, and which can be fetched: from folders alone, so that the command `models` answers at once."""

import os
from dataclasses import dataclass
from pathlib import Path

from ablation_core import bundled
from ablation_core.loading.packaged import PACKAGED, fetched_folder
from ablation_core.storage import CACHE


@dataclass(frozen=True)
class Item:
    """A model or a data set: what it is called, what it is, where it comes from, and its bytes on disk, if any."""

    ref: str
    kind: str
    description: str
    origin: str
    bytes: int | None


def list_models(folder: Path = CACHE) -> list[Item]:
    """The bundled models, those that a package carries, and those that the hub's own cache holds."""
    items = [
        Item(name, "model", bundled.describe(name), "bundled", folder_bytes(bundled.FOLDER / name))
        for name in bundled.NAMES
    ]
    for name, model in PACKAGED.items():
        here = fetched_folder(name, folder)
        origin = "fetched" if here else f"to fetch ({model.megabytes} MB)"
        items.append(Item(name, "model", model.description, origin, folder_bytes(here) if here else None))
    return items + _downloaded()


def _downloaded() -> list[Item]:
    """What the hub's own cache holds; its library is imported only where there is such a cache."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "huggingface")
    if not any(Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).glob("models--*")):
        return []
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, ValueError, OSError):  # not this user's
        return []
    return [
        Item(repo.repo_id, "model", "downloaded from the Hugging Face Hub", "hub cache", repo.size_on_disk)
        for repo in sorted(repos, key=lambda repo: repo.repo_id)
        if repo.repo_type == "model"
    ]


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
