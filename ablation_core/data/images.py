"""Images: from a data reference to its images and their classes, and from any file to 8-bit pixels, decoded with care."""

import hashlib
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ablation_core.bundled import fashion_mnist
from ablation_core.data.references import IMAGE_SUFFIXES, SPLITS, Split
from ablation_core.errors import DataError, first_line

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # other decoders may run programs, or are seldom tried
_MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class ImageItem:
    """One image and its class in the model's numbering. `source` is a file, or grey pixels (height, width) uint8."""

    source: Path | np.ndarray
    target: int

    def open(self) -> Image.Image:
        """Decode the image.

        Raises:
            DataError: the file is damaged, too large, or no image.
        """
        if isinstance(self.source, np.ndarray):
            return Image.fromarray(self.source)
        with opened_image(self.source, f"The image {self.source}", _MAX_PIXELS) as image:
            return eight_bit(image)

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


def eight_bit(image: Image.Image) -> Image.Image:
    """The first frame, upright, as 8-bit grey or RGB: deeper pixels scaled, transparent ones laid on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        pixels = np.asarray(image, dtype=np.float64)
        top = 1.0 if image.mode == "F" and pixels.max() <= 1 else 255.0 if pixels.max() <= 255 else 65535.0
        return Image.fromarray(np.clip(np.nan_to_num(pixels) * (255 / top), 0, 255).round().astype(np.uint8))
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
    targets = [_match(str(index), name, labels) for index, name in enumerate(fashion_mnist.CLASSES)]
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
    items, unmatched, ambiguous = [], [], []
    try:
        classes = sorted(child for child in folder.iterdir() if child.is_dir())
        inside = {
            child: sorted(p for p in child.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            for child in classes
        }
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read: {error.strerror}. Expected a folder with readable ones in it."
        ) from error
    for child, files in inside.items():
        target = _match(child.name, child.name, labels)
        if len(same := _named(child.name, labels)) > 1:
            ambiguous.append(f"{child.name} ({' or '.join(map(str, same))})")
        elif target is None:
            unmatched.append(child.name)
        else:
            items += [ImageItem(path, target) for path in files[SPLITS.index(split) :: 2]]
    several = (
        f"Several classes of the model have one name: {', '.join(ambiguous)}. Name the folder by the class's number."
    )
    if not items and ambiguous:
        raise DataError(f"There is no image for the {split} part in {folder}. {several}")
    if not items:
        found = f"its subfolders are {', '.join(c.name for c in classes[:10])}" if classes else "it has no subfolders"
        raise DataError(
            f"There is no image for the {split} part in {folder}: {found}. Expected subfolders named after the "
            f"model's classes ({', '.join(labels[:5])}, …) or their index, each with at least two images."
        )
    notes = [f"Left out, no such class in the model: {', '.join(unmatched)}."] if unmatched else []
    return items, notes + ([f"Left out. {several}"] if ambiguous else [])


def _named(name: str, labels: tuple[str, ...]) -> list[int]:
    """The classes of this name, whatever its case; a folder called T-shirt_top stands for T-shirt/top."""
    wanted = name.casefold()
    exact = [number for number, label in enumerate(labels) if label.casefold() == wanted]
    return exact or [number for number, label in enumerate(labels) if label.casefold().replace("/", "_") == wanted]


def _match(index: str, name: str, labels: tuple[str, ...]) -> int | None:
    """The only class of this name; else the class of this number."""
    if named := _named(name, labels):
        return named[0] if len(named) == 1 else None
    unnamed = all(label.isdigit() or label.startswith("LABEL_") for label in labels)
    if index.isdecimal() and int(index) < len(labels) and (unnamed or index == name):
        return int(index)
    return None
