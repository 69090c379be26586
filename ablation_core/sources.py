"""Where text and images come from: data references → raw pieces, with a part to evaluate on and one for statistics.

| reference | text or images | evaluation part | statistics part |
|---|---|---|---|
| `python-docs` | the language reference inside every CPython | its first half | its second half |
| `python-code` | source files of the standard library, in a fixed shuffled order | every other file | the rest |
| `text:PATH` | a UTF-8 file | its first half, cut at a line | its second half |
| `fashion-mnist` | 3,000 test images that come with the project | the first 2,000 | the last 1,000 |
| `fashion-mnist:full` | the system's (or torchvision's) copy | all 10,000 test images | the 60,000 training images |
| `images:FOLDER` | one subfolder per class | every other file of a class | the rest |
"""

import hashlib
import io
import os
import pydoc_data.topics
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ablation_core.bundled import fashion_mnist
from ablation_core.errors import DataError, first_line

Split = Literal["evaluation", "statistics"]
SPLITS: tuple[Split, ...] = ("evaluation", "statistics")
TEXT_NAMES = ("python-docs", "python-code")
IMAGE_NAMES = ("fashion-mnist", "fashion-mnist:full")
DEFAULT_DATA = {"causal": "python-docs", "masked": "python-docs", "vision": "fashion-mnist"}
STATISTICS_PREDICTIONS = {"causal": 20_000, "masked": 4_000, "vision": 1_000}  # some 20,000 to 50,000 positions
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # other decoders may run programs, or are seldom tried

_PIECE = 20_000  # characters tokenised at a time, so that a large file costs only what is used of it
_MAX_TEXT_BYTES = 100_000_000
_MAX_PIXELS = 100_000_000


def is_text(ref: str) -> bool:
    return ref in TEXT_NAMES or ref.startswith("text:")


def is_images(ref: str) -> bool:
    return ref in IMAGE_NAMES or ref.startswith("images:")


def read_text(ref: str, split: Split) -> Iterator[str]:
    """The part's text in pieces, in order; their concatenation is the part.

    Raises:
        DataError: the file is missing, empty, too large or not UTF-8 text.
    """
    if ref == "python-docs":
        topics = pydoc_data.topics.topics
        yield from _pieces(_half("\n".join(topics[name] for name in sorted(topics)), split))
    elif ref == "python-code":
        yield from _python_code(split)
    else:
        path = Path(ref.removeprefix("text:"))
        yield from _pieces(_half(decode_text(_read_file(path), str(path)), split))


def _half(text: str, split: Split) -> str:
    middle = text.rfind("\n", 0, len(text) // 2 + 1) + 1 or len(text) // 2
    return text[:middle] if split == "evaluation" else text[middle:]


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + _PIECE) + 1 or start + _PIECE
        yield text[start:end]
        start = end


def _read_file(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise DataError(f"There is no file {path}. Write text: followed by the path of a UTF-8 text file.")
        size = path.stat().st_size
        if size > _MAX_TEXT_BYTES:
            raise DataError(f"{path} is larger than {_MAX_TEXT_BYTES // 1_000_000} MB; cut a part of it and use that.")
        with open(path, "rb") as file:
            return file.read(size)  # no more: some of the system's own files have no size and no end
    except OSError as error:
        raise DataError(f"The file {path} cannot be read: {error.strerror}.") from error


def decode_text(data: bytes, name: str) -> str:
    """A text file's content.

    Raises:
        DataError: it is empty, binary, or not UTF-8.
    """
    if b"\0" in data:
        raise DataError(f"{name} is a binary file; a UTF-8 text file is needed.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text (byte {error.start:,} cannot be read); convert it first.") from error
    if not text.strip():
        raise DataError(f"{name} is empty; a text file with something to predict is needed.")
    return text


def _python_code(split: Split) -> Iterator[str]:
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "test", "tests", "idle_test", "pydoc_data", "__pycache__"}
    names = (path.relative_to(root) for path in root.rglob("*.py"))
    files = [name for name in names if skipped.isdisjoint(name.parts)]
    files.sort(key=lambda name: hashlib.sha256(name.as_posix().encode()).digest())
    for name in files[SPLITS.index(split) :: 2]:
        yield from _pieces((root / name).read_text(encoding="utf-8", errors="replace"))


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


def source_digest(ref: str) -> str:
    """A digest of the user's own file, or of a folder's file names, sizes and times; empty for other data sets.

    Raises:
        DataError: it cannot be read.
    """
    kind, _, place = ref.partition(":")
    try:
        if kind == "text" and os.path.isfile(place):  # where it is not, reading it says so
            return hashlib.sha256(_read_file(Path(place))).hexdigest()[:16]
        if kind == "images":
            files = sorted(p for p in Path(place).glob("*/*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            lines = (f"{path.relative_to(place)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
            return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror}.") from error
    return ""


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
    items, unmatched = [], []
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
        if target is None:
            unmatched.append(child.name)
        else:
            items += [ImageItem(path, target) for path in files[SPLITS.index(split) :: 2]]
    if not items:
        found = f"its subfolders are {', '.join(c.name for c in classes[:10])}" if classes else "it has no subfolders"
        raise DataError(
            f"There is no image for the {split} part in {folder}: {found}. Expected subfolders named after the "
            f"model's classes ({', '.join(labels[:5])}, …) or their index, each with at least two images."
        )
    notes = [f"Left out, no such class in the model: {', '.join(unmatched)}."] if unmatched else []
    return items, notes


def _match(index: str, name: str, labels: tuple[str, ...]) -> int | None:
    """The class of this name, whatever its case; else the class of this number."""
    by_name = {label.casefold(): number for number, label in enumerate(labels)}
    if name.casefold() in by_name:
        return by_name[name.casefold()]
    # A folder called T-shirt_top stands for T-shirt/top, which no folder can be called.
    safe = {label.replace("/", "_"): number for label, number in by_name.items()}
    if name.casefold() in safe:
        return safe[name.casefold()]
    unnamed = all(label.isdigit() or label.startswith("LABEL_") for label in labels)
    if index.isdecimal() and int(index) < len(labels) and (unnamed or index == name):
        return int(index)
    return None
