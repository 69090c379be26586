"""From an image to a model's pixels: as many channels as it has, and always its own size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from ablation_core.errors import ModelError, first_line
from ablation_core.loading.checkpoint import class_names
from ablation_core.loading.images.packed_patches import patch_reader

_MODES = {1: "L", 3: "RGB"}


def image_mode(ref: str, channels: int) -> str:
    """The mode in which an image has that many channels.

    Raises:
        ModelError: none has.
    """
    if channels not in _MODES:
        raise ModelError(f"{ref} reads images of {channels} channels; grey images (1) and colour ones (3) can be read.")
    return _MODES[channels]


def image_reader(
    ref: str, source: str, options: dict[str, Any], module: nn.Module
) -> tuple[Callable[[Image.Image], Tensor], tuple[str, ...]]:
    """A function from an image to (channels, height, width), as the model's own processor makes it; and its classes.

    A processor that gives images of one shape is taken at its word where the model can read that shape. One that keeps an
    image's own would give each another: then the image's middle is cut to the model's shape and scaled first.

    Raises:
        ModelError: there is no processor, or the model reads no such images.
    """
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(source, **options)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{ref} has no image processor that can be read ({first_line(error)}); "
            f"save its preprocessor_config.json beside it."
        ) from error
    return processor_reader(ref, processor, module)


def processor_reader(
    ref: str, processor: Any, module: nn.Module
) -> tuple[Callable[[Image.Image], Tensor], tuple[str, ...]]:
    """As `image_reader`, of a processor that is there."""
    config: Any = module.config
    mode = image_mode(ref, channels_of(module))
    if by_patches := patch_reader(processor, mode):
        return by_patches, class_names(config)
    size = image_size(config)
    fixed = _fixed_shape(processor, mode)
    as_it_is = size is None or (fixed is not None and (fixed[1:] == size or _reads(module, fixed)))

    def to_pixels(image: Image.Image) -> Tensor:
        image = image.convert(mode)
        pixels = processor(image, return_tensors="pt")["pixel_values"][0]
        if as_it_is or size is None or tuple(pixels.shape[-2:]) == size:
            return pixels
        fitted = ImageOps.fit(image, size[::-1], Image.Resampling.BICUBIC)
        return processor(fitted, return_tensors="pt", do_resize=False, do_center_crop=False)["pixel_values"][0]

    return to_pixels, class_names(config)


def _fixed_shape(processor: Any, mode: str) -> tuple[int, ...] | None:
    """The shape of a processor's pixels, (channels, height, width), where a wide and a tall image get the same one."""
    shapes = {
        tuple(processor(Image.new(mode, sides), return_tensors="pt")["pixel_values"][0].shape)
        for sides in ((90, 60), (60, 90))
    }
    shape = shapes.pop()
    return shape if not shapes and len(shape) == 3 else None


def timm_reader(ref: str, module: Any) -> tuple[Callable[[Image.Image], Tensor], tuple[str, ...]]:
    """As `image_reader`, of a timm module, which says itself how images are prepared."""
    from timm.data import create_transform, resolve_model_data_config

    settings = resolve_model_data_config(module)
    built = getattr(getattr(module, "patch_embed", None), "img_size", None)  # what it was made with goes before its row
    size = tuple(built) if built else tuple(settings["input_size"][1:])
    channels = first_convolution(module) or settings["input_size"][0]
    if channels not in _MODES:  # it computes something of the image first
        channels = settings["input_size"][0]
    if channels != settings["input_size"][0]:
        settings |= {name: settings[name][:1] * channels for name in ("mean", "std")}
    transform = create_transform(**settings | {"input_size": (channels, *size)}, is_training=False)
    mode = image_mode(ref, channels)
    names = module.pretrained_cfg.get("label_names") or [str(index) for index in range(module.num_classes)]
    return lambda image: transform(image.convert(mode)), tuple(names)


@torch.inference_mode()
def _reads(module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether the model runs on pixels of a shape that is not its configuration's, as those that interpolate positions."""
    weight = next(module.parameters())
    try:
        module(pixel_values=torch.zeros(1, *shape, device=weight.device, dtype=weight.dtype))
    except (RuntimeError, ValueError, AssertionError):
        return False
    return True


def first_convolution(module: nn.Module) -> int | None:
    """How many channels a module's first convolution reads; None where it has none."""
    return next((part.in_channels for part in module.modules() if isinstance(part, nn.Conv2d)), None)


def channels_of(module: nn.Module) -> int:
    """What the first convolution reads; else what the configuration says."""
    if found := first_convolution(module):
        return found
    config: Any = module.config
    for one in (config, getattr(config, "vision_config", None)):
        if isinstance(channels := getattr(one, "num_channels", None), int):
            return channels
    return 3


def image_size(config: Any) -> tuple[int, int] | None:
    for one in (config, getattr(config, "vision_config", None)):
        size = getattr(one, "image_size", None)
        if isinstance(size, int):
            return size, size
        if isinstance(size, list | tuple) and len(size) == 2:
            return int(size[0]), int(size[1])
    return None
