"""What methods put in a neuron's place, kept: a pass over a statistics part, or a text that the model writes, takes longer
than a few megabytes take to read.

A file holds tensors by name, and in its header a digest of them. Its name says what decides them, so that other weights,
configurations, data or batches never meet it; a damaged one is passed over, and its content is made again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ablation_core.models.loaded import LoadedModel
from ablation_core.models.own_code import hooks_of
from ablation_core.storage import PUBLISHED, write_atomic

_FOLDER, _PUBLISHED = "replacements", "published-replacements"  # apart: of the first, those kept longest ago go
_MOST_FILES = 24  # a few megabytes each


@dataclass(frozen=True)
class KeptFile:
    """Where something of one model is kept.

    Attributes:
        name: the file's, below the folder.
        cache: the cache folder; None where nothing is kept.
    """

    name: str
    cache: Path | None

    @classmethod
    def of(cls, model: LoadedModel, kind: str, *decided: object) -> KeptFile:
        """The file of a model, by its fingerprint, on this kind of device, and of all else that decides what is kept.

        With a person's own hooks nothing is kept, as nothing tells what they do.
        """
        key = hashlib.sha256(" ".join(map(str, (*decided, model.device.type))).encode()).hexdigest()[:16]
        return cls(f"{model.fingerprint}/{kind}-{key}.safetensors", None if hooks_of(model.module) else model.cache)

    @property
    def published(self) -> Path:
        """Where it comes with the project, if it does."""
        return PUBLISHED / _PUBLISHED / self.name

    def recall(self) -> dict[str, Tensor] | None:
        """What was kept here, or comes with the project; None where there is nothing usable."""
        if self.cache is None:
            return None
        for path in (self.cache / _FOLDER / self.name, self.published):
            try:
                with safe_open(path, "pt") as file:
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
                    digest = (file.metadata() or {}).get("digest")
            except (OSError, SafetensorError):
                continue
            if digest == _digest(tensors):
                return tensors
        return None

    def keep(self, tensors: dict[str, Tensor]) -> None:
        """Keep them; where nothing can be written, nothing is."""
        if self.cache is None:
            return
        folder = self.cache / _FOLDER
        try:
            write_atomic(folder / self.name, file_bytes(tensors))
            files = sorted(folder.glob("*/*.safetensors"), key=lambda path: path.stat().st_mtime)
            for path in files[:-_MOST_FILES]:
                path.unlink(missing_ok=True)
        except OSError:  # a shared server's folder may not be written to
            return


def file_bytes(tensors: dict[str, Tensor]) -> bytes:
    """The content of a file."""
    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"digest": _digest(tensors)})


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
