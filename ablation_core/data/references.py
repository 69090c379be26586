"""Where text and images come from: data references, each with a part to evaluate on and one for statistics; raw text. Images
are found and opened in `images`.

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
import os
import pydoc_data.topics
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ablation_core.errors import DataError

Split = Literal["evaluation", "statistics"]
SPLITS: tuple[Split, ...] = ("evaluation", "statistics")
TEXT_NAMES = ("python-docs", "python-code")
IMAGE_NAMES = ("fashion-mnist", "fashion-mnist:full")
DEFAULT_DATA = {"causal": "python-docs", "masked": "python-docs", "vision": "fashion-mnist"}
STATISTICS_PREDICTIONS = {"causal": 20_000, "masked": 4_000, "vision": 1_000}  # some 20,000 to 50,000 positions
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}

_PIECE = 20_000  # characters tokenised at a time, so that a large file costs only what is used of it
_MAX_TEXT_BYTES = 100_000_000


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
