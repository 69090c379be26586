"""Means by position, kept: a pass over a data set's statistics part takes longer than a few megabytes take to read.

A file holds float32 (positions, neurons) per layer, and in its header a digest of them. Its name says what decides them,
so that other weights, data or batches never meet it; a damaged one is passed over, and the means are made again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ablation_core.data.dataset import Data
from ablation_core.models.loaded import LoadedModel
from ablation_core.storage import PUBLISHED, write_atomic

_FOLDER, _PUBLISHED = "positions", "published-positions"  # apart, since of the first those kept longest ago go
_MOST_FILES = 24  # a few megabytes each


@dataclass(frozen=True)
class MeansFile:
    """Where one model's means by position over one data set are kept.

    Attributes:
        name: the file's, below the folder of means.
        cache: the cache folder; None where nothing is kept.
    """

    name: str
    cache: Path | None

    @classmethod
    def of(cls, model: LoadedModel, data: Data, length: int | None) -> MeansFile:
        """The file of these weights, this statistics part in batches as these, and so many positions."""
        decided = (model.fingerprint, data.fingerprint, data.batch_size, length, model.device.type)
        key = hashlib.sha256(" ".join(map(str, decided)).encode()).hexdigest()[:16]
        return cls(f"{model.fingerprint}/{key}.safetensors", model.cache)

    def recall(self) -> dict[int, Tensor] | None:
        """What was kept here, or comes with the project; None where there is nothing usable."""
        if self.cache is None:
            return None
        for folder in dict.fromkeys((self.cache / _FOLDER, PUBLISHED / _PUBLISHED)):
            try:
                with safe_open(folder / self.name, "pt") as file:
                    means = {int(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
                    digest = (file.metadata() or {}).get("digest")
            except (OSError, SafetensorError, ValueError):
                continue
            if means and digest == _digest(means):
                return means
        return None

    def keep(self, means: dict[int, Tensor]) -> None:
        """Keep them; where nothing can be written, nothing is."""
        if self.cache is None:
            return
        folder = self.cache / _FOLDER
        try:
            write_atomic(folder / self.name, means_bytes(means))
            files = sorted(folder.glob("*/*.safetensors"), key=lambda path: path.stat().st_mtime)
            for path in files[:-_MOST_FILES]:
                path.unlink(missing_ok=True)
        except OSError:  # a shared server's folder may not be written to
            return


def means_bytes(means: dict[int, Tensor]) -> bytes:
    """The content of a file."""
    return save({str(layer): tensor.contiguous() for layer, tensor in means.items()}, {"digest": _digest(means)})


def _digest(means: dict[int, Tensor]) -> str:
    digest = hashlib.sha256()
    for layer, tensor in sorted(means.items()):
        digest.update(f"{layer} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
