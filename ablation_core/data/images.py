"""Images: from a data reference to its images and their classes, and from any file to 8-bit pixels, decoded with care."""

import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ablation_core.bundled import fashion_mnist
from ablation_core.data.files.formats import is_hidden
from ablation_core.data.references import IMAGE_SUFFIXES, SPLITS, Split
from ablation_core.errors import DataError, first_line

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # other decoders may run programs, or are seldom tried
MOST_PIXELS = 100_000_000


@dataclass(frozen=True)
class ImageItem:
    """One image and its class in the model's numbering.

    `source` is a file, or an array (height, width) or (height, width, 3) of uint8.
    """

    source: Path | np.ndarray
    target: int

    def pixels(self, to_pixels: Callable[[Image.Image], "Tensor"]) -> "Tensor":
        """As the model takes it: float (channels, height, width)."""
        return to_pixels(self.open())

    def open(self) -> Image.Image:
        """Decode the image.

        Raises:
            DataError: the file is damaged, too large, or no image.
        """
        if isinstance(self.source, np.ndarray):
            return Image.fromarray(self.source)
        with opened_image(self.source, f"The image {self.source}", MOST_PIXELS) as image:
            return eight_bit(image, f"The image {self.source}")

    def digest(self) -> bytes:
        """A digest of the file or pixels and of the target.

        Raises:
            DataError: the file cannot be read.
        """
        try:
            data = self.source.tobytes() if isinstance(self.source, np.ndarray) else self.source.read_bytes()
        except OSError as error:
            raise DataError(f"The image {self.source} cannot be read: {error.strerror}.") from error
        return hashlib.sha256(data + self.target.to_bytes(8, "little")).digest()


@contextmanager
def opened_image(file: Path | io.BytesIO, name: str, most_pixels: int) -> Iterator[Image.Image]:
    """An image of a known kind, for a `with` block that decodes it; its size is looked at before.

    Args:
        name: what it is called in a sentence, as its beginning.

    Raises:
        DataError: it has more pixels than that, is damaged, or no image; whatever a decoder makes of a hostile file.
    """
    too_many = f"at most {most_pixels // 1_000_000} million are taken. Make it smaller"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused here, with a sentence
            with Image.open(file, formats=IMAGE_FORMATS) as image:
                if image.width * image.height > most_pixels:
                    raise DataError(f"{name} has {image.width:,} × {image.height:,} pixels; {too_many}.")
                yield image
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} has far too many pixels; {too_many}.") from error
    except UnidentifiedImageError as error:
        kinds = ", ".join(IMAGE_FORMATS)
        raise DataError(f"{name} is not an image of a known kind ({kinds}); it cannot be read as an image.") from error
    except Exception as error:
        raise DataError(
            f"{name} cannot be read as an image ({first_line(error)}). It may be damaged or cut off; leave it out."
        ) from error


def eight_bit(image: Image.Image, name: str = "An image") -> Image.Image:
    """The first frame, upright, as 8-bit grey or RGB: deeper pixels scaled, transparent ones laid on white.

    Args:
        name: what it is called in a sentence, as its beginning.

    Raises:
        DataError: its pixels have no range that is known, such as heights in metres.
    """
    try:
        image = ImageOps.exif_transpose(image)
    except Exception as error:  # one in memory may be closed, or read its file only now
        raise DataError(
            f"{name} cannot be read as an image ({first_line(error)}). It may be damaged or cut off; leave it out."
        ) from error
    if image.mode.startswith(("I", "F")):
        pixels = np.asarray(image, dtype=np.float64)
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 65535):
            raise DataError(
                f"{name} has pixels from {pixels.min():.6g} to {pixels.max():.6g}, and nothing says which is black and which "
                f"white; convert it to 8 bits."
            )
        sixteen = image.mode.startswith("I;16") or pixels.max() > 255  # a dark image of 16 bits stays dark
        top = 65535.0 if sixteen else 1.0 if image.mode == "F" and pixels.max() <= 1 else 255.0
        return Image.fromarray((pixels * (255 / top)).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def find_images(ref: str, split: Split, labels: tuple[str, ...]) -> tuple[list[ImageItem], list[str]]:
    """The part's images, in a fixed order, and sentences about folders that could not be used.

    Args:
        labels: the model's class names; a data set's classes are matched to them by name, else by index.

    Raises:
        DataError: nothing usable is there.
    """
    if ref.startswith("images:"):
        return _folder_images(Path(ref.removeprefix("images:")), split, labels)
    arrays = _full_fashion_mnist(split) if ref.endswith(":full") else _sample_fashion_mnist(split)
    targets = [match_class(name, labels, str(index)) for index, name in enumerate(fashion_mnist.CLASSES)]
    if None in targets:
        raise DataError(f"This model's {len(labels)} classes are not those of Fashion-MNIST; use images:FOLDER.")
    return [ImageItem(image, targets[label]) for image, label in zip(*arrays, strict=True)], []


def _sample_fashion_mnist(split: Split) -> tuple[np.ndarray, np.ndarray]:
    images, labels = fashion_mnist.sample()
    part = slice(0, 2000) if split == "evaluation" else slice(2000, None)
    return images[part], labels[part]


def _full_fashion_mnist(split: Split) -> tuple[np.ndarray, np.ndarray]:
    try:
        return fashion_mnist.full_set("test" if split == "evaluation" else "train")
    except FileNotFoundError as error:
        raise DataError(
            "The full Fashion-MNIST is not on this machine. Install Debian's package dataset-fashion-mnist, run "
            "'python -m ablation_core get fashion-mnist', or use the sample: fashion-mnist."
        ) from error


def _folder_images(folder: Path, split: Split, labels: tuple[str, ...]) -> tuple[list[ImageItem], list[str]]:
    if not os.path.isdir(folder):  # also false where the name is no possible path
        raise DataError(f"There is no folder {folder}. Write images: followed by a folder with a subfolder per class.")
    items, unmatched = [], []
    others: Counter[str] = Counter()
    try:
        classes = sorted(child for child in folder.iterdir() if child.is_dir() and not is_hidden(child))
        inside = {child: _images_of(child, others) for child in classes}
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read: {error.strerror}. Expected a folder with readable ones in it."
        ) from error
    taken: dict[int, str] = {}
    for child, files in inside.items():
        target = match_class(child.name, labels)
        if target is None:
            unmatched.append(child.name)
        elif target in taken:
            raise DataError(
                f"The folders {taken[target]} and {child.name} in {folder} both stand for the class {labels[target]!r} "
                f"(number {target}); put their images into one folder, or rename one."
            )
        else:
            taken[target] = child.name
            items += [ImageItem(path, target) for path in files[SPLITS.index(split) :: 2]]
    if not items:
        found = f"its subfolders are {', '.join(c.name for c in classes[:10])}" if classes else "it has no subfolders"
        nested = next((child for child in classes if _holds_classes(child, labels)), None)
        raise DataError(
            f"There is no image for the {split} part in {folder}: {found}. Expected subfolders named after the "
            f"model's classes ({', '.join(labels[:5])}, …) or their index, each with at least two images"
            + (f"; those are in {nested.name}: write images:{nested}." if nested else f".{_left_out(others)}")
        )
    notes = [f"Left out, no such class in the model: {', '.join(unmatched)}."] if unmatched else []
    return items, [*notes, *filter(None, [_left_out(others).strip()])]


def _images_of(folder: Path, others: Counter[str]) -> list[Path]:
    """A class's images, in order; what else lies there is counted."""
    files = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not is_hidden(path):
            files.append(path)
        elif not is_hidden(path):
            others["folder" if path.is_dir() else path.suffix.lower() or "without an ending"] += 1
    return files


def _left_out(others: Counter[str]) -> str:
    """A sentence about what lies in the classes' folders and is no image that can be read, behind a space."""
    if not others:
        return ""
    kinds = ", ".join(
        f"{count} {kind}{'s' * (kind == 'folder' and count > 1)}" for kind, count in others.most_common(5)
    )
    return f" Left out, no images of a known kind ({', '.join(IMAGE_FORMATS)}): {kinds}."


def _holds_classes(folder: Path, labels: tuple[str, ...]) -> bool:
    """Whether the classes' folders lie one folder deeper, as in train and val."""
    try:
        return any(child.is_dir() and match_class(child.name, labels) is not None for child in folder.iterdir())
    except (OSError, DataError):
        return False


def match_class(name: str, labels: tuple[str, ...], index: str | None = None) -> int | None:
    """The class of this name, whatever its case where that is clear; else the class of this number.

    Raises:
        DataError: several of the model's classes have this name.
    """
    index = name if index is None else index
    for same in (str, str.casefold, _folder_name):
        found = [number for number, label in enumerate(labels) if same(label) == same(name)]
        if len(found) > 1 and same is str.casefold and len(set(map(labels.__getitem__, found))) > 1:
            names = " and ".join(repr(labels[number]) for number in found)
            raise DataError(
                f"The class {name!r} may be {names} of this model, which differ in case alone; write one exactly."
            )
        if len(found) > 1:
            numbers = ", ".join(map(str, found))
            raise DataError(
                f"The model has {len(found)} classes called {name!r} (numbers {numbers}); name folders after the classes' "
                f"numbers instead."
            )
        if found:
            return found[0]
    unnamed = all(label.isdigit() or label.startswith("LABEL_") for label in labels)
    doubled = len(set(labels)) < len(labels)  # then numbers are the only names that are clear
    if index.isdecimal() and int(index) < len(labels) and (unnamed or doubled or index == name):
        return int(index)
    return None


def _folder_name(label: str) -> str:
    """A folder called T-shirt_top stands for T-shirt/top, which no folder can be called."""
    return label.casefold().replace("/", "_")
