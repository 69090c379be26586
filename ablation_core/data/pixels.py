"""Images as a data set: files, arrays, or pixels that are prepared already, and their batches."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from ablation_core.data.dataset import Batch, Data
from ablation_core.data.request import DataRequest
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel


class Item(Protocol):
    """An image and its class in the model's numbering: a file, an array (`images.ImageItem`), or pixels."""

    @property
    def target(self) -> int: ...
    def pixels(self, to_pixels: Callable[[Image.Image], Tensor]) -> Tensor: ...
    def digest(self) -> bytes: ...


@dataclass(frozen=True, eq=False)
class Pixels:
    """An image that is prepared already, (channels, height, width), and its class."""

    source: Tensor
    target: int

    def pixels(self, to_pixels: Any) -> Tensor:
        return self.source

    def digest(self) -> bytes:
        return hashlib.sha256(self.source.numpy().tobytes() + self.target.to_bytes(8, "little")).digest()


def image_data(request: DataRequest, model: LoadedModel, chosen: Sequence[Item], notes: Sequence[str]) -> Data:
    """Images as a data set."""
    digest = hashlib.sha256(b"".join(item.digest() for item in chosen))
    to_pixels, name = model.to_pixels, model.input_name  # data that is kept must not keep a model

    def rows(indices: Sequence[int]) -> Batch:
        picked = [chosen[index] for index in indices]
        pixels = [item.pixels(to_pixels) for item in picked]
        if len({tuple(image.shape) for image in pixels}) > 1:
            shapes = " and ".join(sorted({"×".join(map(str, image.shape)) for image in pixels})[:2])
            raise DataError(
                f"The images of {request.ref} become pixels of several shapes ({shapes}); give all one size."
            )
        return Batch({name: torch.stack(pixels)}, torch.tensor([item.target for item in picked]))

    count = min(request.predictions, len(chosen))
    return request.data(
        model,
        seq_len=None,
        documents=None,
        sequences=count,
        pool=len(chosen),
        predictions=count,
        fingerprint=digest.hexdigest()[:16],
        notes=tuple(notes),
        rows=rows,
    )
