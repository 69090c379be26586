"""Asking a model hub about a model before loading it, so that every failure has its own sentence.

Only ever called for a model that a person named by its id.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name

from ablation_core.errors import ModelError, first_line

TIMEOUT_SECONDS = 10
_WHOLE_BYTES = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2}


@dataclass(frozen=True)
class HubModel:
    """A model on the hub: its id, revision, and file sizes in bytes; no sizes where the hub was not asked."""

    repo: str
    revision: str | None
    sizes: dict[str, int]
    offline: bool
    floats: int | None = None  # how many floating-point numbers its safetensors hold, where the hub knows
    others: int = 0  # bytes of whole numbers and flags

    @property
    def has_safetensors(self) -> bool:
        return any(name.endswith(".safetensors") for name in self.sizes)

    def weight_bytes(self, dtype: torch.dtype) -> int:
        """The bytes of the weights once loaded as `dtype`; from file sizes where the hub does not know their number."""
        if self.floats is not None:
            return self.floats * dtype.itemsize + self.others
        ending = ".safetensors" if self.has_safetensors else ".bin"
        stored = (size for name, size in self.sizes.items() if name.endswith(ending) and "/" not in name)
        return sum(stored) * dtype.itemsize // 4


def split_revision(ref: str) -> tuple[str, str | None]:
    """`owner/name@revision` → its two parts."""
    repo, _, revision = ref.partition("@")
    return repo, revision or None


def find_on_hub(ref: str, api: HfApi | None = None) -> HubModel:
    """Look a model up.

    Without a network, a model that was downloaded before is used from the hub's cache.

    Raises:
        ModelError: it does not exist, may not be read, has no such revision or no weights, or cannot be reached.
    """
    repo, revision = split_revision(ref)
    if os.environ.get("HF_HUB_OFFLINE") == "1" and api is None:
        return _from_cache(repo, revision, "the hub is switched off by HF_HUB_OFFLINE")
    try:
        api = api or HfApi()
        info = api.model_info(repo, revision=revision, timeout=TIMEOUT_SECONDS, files_metadata=True)
        if getattr(info, "gated", False):
            api.auth_check(repo)  # everybody sees a gated model's files listed, and only some may read them
    except GatedRepoError as error:
        raise ModelError(
            f"{repo} is gated: accept its conditions on its page, then log in with 'hf auth login'."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{repo} has no revision {revision!r}; leave it out for the newest.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"There is no model {repo!r} on the hub, or it is private and you are not logged in."
        ) from error
    except HFValidationError as error:
        raise ModelError(
            f"{repo!r} is not a hub id; write owner/name, and @revision behind it if you want one."
        ) from error
    except (OfflineModeIsEnabled, HfHubHTTPError) as error:
        return _from_cache(repo, revision, f"the hub answered with an error ({first_line(error)})")
    except Exception as error:  # noqa: BLE001 - the HTTP client's own errors differ between the hub's releases
        return _from_cache(repo, revision, f"the hub cannot be reached ({first_line(error)})")
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    if not any(name.endswith((".safetensors", ".bin", ".gguf")) for name in sizes):
        raise ModelError(f"{repo} holds no weights (no safetensors, bin or gguf file); it cannot be loaded.")
    known = getattr(info, "safetensors", None)
    if not known:
        return HubModel(repo, revision, sizes, offline=False)
    by_type = getattr(known, "parameters", None) or {"F32": known.total}
    floats = sum(count for kind, count in by_type.items() if "F" in kind)
    others = sum(count * _WHOLE_BYTES.get(kind, 1) for kind, count in by_type.items() if "F" not in kind)
    return HubModel(repo, revision, sizes, offline=False, floats=floats, others=others)


def _from_cache(repo: str, revision: str | None, reason: str) -> HubModel:
    found = try_to_load_from_cache(repo, "config.json", revision=revision)
    if not isinstance(found, str) and (others := _cached_revisions(repo)):
        raise ModelError(
            f"{repo} was downloaded before, but not its revision {revision or 'main'!r} (here: {', '.join(others)}), and it "
            f"cannot be fetched now: {reason}. Write {repo}@{others[0]}, or check the network."
        )
    if not isinstance(found, str):
        raise ModelError(
            f"{repo} cannot be fetched: {reason}, and it was not downloaded before. Check the network, name a local "
            f"folder, or use a bundled model."
        )
    return HubModel(repo, revision, {}, offline=True)


def _cached_revisions(repo: str) -> list[str]:
    """What of a model the hub's cache holds: names such as main, and commits without a name."""
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")
    if not folder.is_dir():
        return []
    named = {
        file.read_text().strip(): file.relative_to(folder / "refs").as_posix()
        for file in (folder / "refs").rglob("*")
        if file.is_file()
    }
    held = [path.name for path in sorted((folder / "snapshots").glob("*")) if (path / "config.json").exists()]
    return sorted({named.get(commit, commit) for commit in held})
