"""Models that read an image as a row of patches of any number (SigLIP 2): given whole images of one shape instead.

Such a model takes patches, a mask and the grid's shape beside them. Here it takes pixels as every other model does, and makes
the three of them itself; its processor's patches are put together to pixels again, of images whose middle is cut square.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

_FAMILIES = ("siglip2",)


class FromPixels(nn.Module):
    """An image tower that reads packed patches, as one that reads pixels."""

    def __init__(self, tower: Any, patch: int) -> None:
        super().__init__()
        self.tower, self.patch = tower, patch
        self.embeddings = tower.embeddings  # where transformers looks for it

    def forward(self, pixel_values: Tensor, **options: Any) -> Any:
        """Pixels (images, channels, height, width), both sides whole patches."""
        options |= {"pixel_attention_mask": None, "spatial_shapes": None}
        patches, rows, columns = patched(pixel_values, self.patch)
        options["pixel_attention_mask"] = torch.ones(patches.shape[:2], dtype=torch.long, device=patches.device)
        options["spatial_shapes"] = torch.tensor([[rows, columns]] * len(patches), device=patches.device)
        return self.tower(patches, **options)


def patched(pixels: Tensor, patch: int) -> tuple[Tensor, int, int]:
    """(images, channels, height, width) → (images, patches, patch * patch * channels), and the grid's rows and columns."""
    grid = pixels.unfold(2, patch, patch).unfold(3, patch, patch)  # images, channels, rows, columns, patch, patch
    rows, columns = grid.shape[2:4]
    return grid.permute(0, 2, 3, 4, 5, 1).reshape(len(pixels), rows * columns, -1), rows, columns


def whole(patches: Tensor, rows: int, columns: int, patch: int) -> Tensor:
    """One image's patches, (patches, patch * patch * channels), as (channels, height, width)."""
    grid = patches[: rows * columns].reshape(rows, columns, patch, patch, -1)
    return grid.permute(4, 0, 2, 1, 3).reshape(grid.shape[-1], rows * patch, columns * patch)


def read_pixels(module: Any, family: str) -> None:
    """Let a model of such a family read pixels; others are left as they are."""
    if family in _FAMILIES and not isinstance(module.vision_model, FromPixels):
        module.vision_model = FromPixels(module.vision_model, module.config.vision_config.patch_size)


def patch_reader(processor: Any, mode: str) -> Callable[[Image.Image], Tensor] | None:
    """From an image to pixels (channels, height, width), by a processor that makes patches; None where it makes pixels."""
    most = getattr(processor, "max_num_patches", None)
    patch = getattr(processor, "patch_size", None)
    if not isinstance(most, int) or not isinstance(patch, int):
        return None

    def to_pixels(image: Image.Image) -> Tensor:
        side = min(image.size)  # scaled by the processor alone
        square = ImageOps.fit(image.convert(mode), (side, side))
        made = processor(square, return_tensors="pt")
        rows, columns = map(int, made["spatial_shapes"][0])
        return whole(made["pixel_values"][0], rows, columns, patch)

    return to_pixels
