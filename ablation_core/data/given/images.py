"""Images with their classes, given in memory or by a data set of the `datasets` library."""

import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ablation_core.data import hub_datasets
from ablation_core.data.dataset import Data
from ablation_core.data.given.rows import GivenImage, rows_by_name
from ablation_core.data.given.token_rows import CLASS_COLUMNS
from ablation_core.data.images import MOST_PIXELS, ImageItem, eight_bit, opened_image
from ablation_core.data.labelled.classes import ClassLabels
from ablation_core.data.pixels import Item, Pixels, image_data
from ablation_core.data.request import DataRequest
from ablation_core.errors import AblationError, DataError, a_type, first_line
from ablation_core.models.loaded import LoadedModel

_FORMS = (
    "Images are given as PIL images, as paths of files, as arrays of 8-bit values, or as float pixels of (channels, height, "
    "width)."
)


def load_given_images(rows: Iterable[Any], request: DataRequest, model: LoadedModel, names: tuple[str, ...]) -> Data:
    """Images in memory as a data set.

    Args:
        names: what the classes are called that the rows number, where whoever gave them says so.

    Raises:
        DataError: a row is no image, or its class none of the model's.
    """
    items, notes = _items(rows, request, model, names)
    if prepared := [item for item in items if isinstance(item, Pixels)]:
        _try(prepared[0], model)
        notes += _check_range(prepared, model)
    source = hashlib.sha256(b"".join(item.digest() for item in items)).hexdigest()[:16]
    data = image_data(request, model, items, notes)
    return replace(data, ref=f"in memory: {len(items):,} images", source=source)


def load_hub_images(request: DataRequest, model: LoadedModel) -> Data:
    """The images of a data set of the `datasets` library."""
    records, names = hub_datasets.read_labelled(request.ref, request.split)
    rows = iter(row for record in records for row in rows_by_name(record))
    first = next(rows, None)
    if not isinstance(first, GivenImage):
        raise DataError(f"{model.ref} reads images, but {request.ref} has no image and label columns.")
    items, notes = _items(chain([first], rows), request, model, class_names(names))
    return image_data(request, model, items, notes)


def class_names(columns: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What a data set's column of classes calls them, out of the names of all its columns."""
    return next((columns[one] for one in CLASS_COLUMNS if one in columns), ())


def _items(
    rows: Iterable[Any], request: DataRequest, model: LoadedModel, names: tuple[str, ...]
) -> tuple[list[Item], list[str]]:
    """As many images as are needed, and what there is to say of their classes."""
    classes = ClassLabels(model.labels, names)
    items = [_item(row, classes) for row in islice(rows, max(2, request.predictions))]
    note = classes.note()
    return items, [note] if note else []


def _check_range(items: list[Pixels], model: LoadedModel) -> list[str]:
    """Compare prepared pixels with what the model's own preparation makes of black and of white.

    Raises:
        DataError: they are far outside: numbers from 0 to 255, most likely.
    """
    try:
        black, white = (model.to_pixels(Image.new("RGB", (64, 64), name)) for name in ("black", "white"))
    except AblationError:  # no preparation of its own: the pixels are what they are
        return []
    low, high = float(min(black.min(), white.min())), float(max(black.max(), white.max()))
    least = min(float(item.source.min()) for item in items)
    most = max(float(item.source.max()) for item in items)
    span = f"The pixels given go from {least:.3g} to {most:.3g}, those that {model.ref} prepares itself from {low:.3g} to {high:.3g}"
    if most > high + 3 * (high - low) or least < low - 3 * (high - low):
        raise DataError(f"{span}: they are not prepared. Give 8-bit images, or what its image processor makes of them.")
    if low < 0 <= least and most <= 1:
        return [f"{span}: if they are not normalised, give 8-bit images instead."]
    return []


@torch.inference_mode()
def _try(item: Pixels, model: LoadedModel) -> None:
    """Refuse pixels that are prepared otherwise than the model reads them: run it on some."""
    pixels = item.source[None].to(model.device, next(model.module.parameters()).dtype)
    try:
        with model.lock:
            model.module(**{model.input_name: pixels})
    except Exception as error:  # whatever a module raises at such a shape
        raise DataError(
            f"{model.ref} cannot read pixels of the shape {tuple(item.source.shape)} ({first_line(error)}); pixels that are "
            f"prepared are (channels, height, width), as its image processor makes them."
        ) from error


def _item(row: Any, classes: ClassLabels) -> Item:
    """An image with its class, as the model takes it.

    Raises:
        DataError: the class is none of the model's, or the image is none.
    """
    if not isinstance(row, GivenImage):
        raise DataError(f"The data given mixes images with a {type(row).__name__}.")
    target = classes(row.label)
    image = row.image
    if isinstance(image, dict) and {"bytes", "path"} >= set(image):  # the datasets library, where it does not decode
        image = image.get("bytes") or image.get("path")
    if isinstance(image, str | Path):
        if not os.path.isfile(image):
            raise DataError(
                f"There is no image file {str(image)[:200]}; give pairs of an image, or its path, and its class."
            )
        return ImageItem(Path(image), target)
    if isinstance(image, bytes):
        with opened_image(io.BytesIO(image), "An image given as bytes", MOST_PIXELS) as opened:
            return ImageItem(np.asarray(eight_bit(opened)), target)
    if isinstance(image, Image.Image):
        return ImageItem(np.asarray(eight_bit(image)), target)
    if not isinstance(image, torch.Tensor | np.ndarray):
        raise DataError(f"{a_type(image).capitalize()} was given in an image's place. {_FORMS}")
    if isinstance(image, np.ndarray) and image.dtype.kind not in "biuf":
        raise DataError(f"An array of {image.dtype} was given in an image's place. {_FORMS}")
    array = (
        image if isinstance(image, torch.Tensor) else torch.from_numpy(np.array(image))
    )  # a copy: it may be read only
    if not array.numel():
        raise DataError("An image given has no pixels; leave it out.")
    if array.is_floating_point():
        if array.ndim == 2:
            array = array[None]
        if array.ndim != 3 or not bool(torch.isfinite(array).all()):
            raise DataError(
                "Pixels are given as (channels, height, width), finite numbers, prepared as the model takes them."
            )
        return Pixels(array.detach().cpu().float(), target)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[-1] not in (1, 3):
        array = array.movedim(0, -1)
    if (
        array.dtype != torch.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[-1] not in (1, 2, 3, 4))
    ):
        raise DataError(_FORMS)
    pixels = np.ascontiguousarray(array.squeeze(-1).numpy() if array.shape[-1] == 1 else array.numpy())
    if pixels.ndim == 3 and pixels.shape[-1] in (2, 4):  # transparent ones are laid on white, as those of a file
        pixels = np.asarray(eight_bit(Image.fromarray(pixels)))
    return ImageItem(pixels, target)
