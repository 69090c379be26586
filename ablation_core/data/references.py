"""Where text and images come from: data references, each with a part to evaluate on and one for statistics; raw text. Images
are found and opened in `images`.

| reference | text or images | evaluation part | statistics part |
|---|---|---|---|
| `python-docs` | the language reference inside every CPython | its first half | its second half |
| `python-code` | source files of the standard library, in a fixed shuffled order | every other file | the rest |
| `text:PATH` | a UTF-8 file, perhaps gzipped | its first half, cut at a line | its second half |
| `jsonl:PATH#column`, `csv:`, `parquet:` | one text a row, in a column (default `text`) | every other row | the rest |
| the same with `#text,label` | labelled texts, for text classifiers | every other row | the rest |
| `folder:PATH` | a folder of .txt files | every other file | the rest |
| `hf:ID/CONFIG#column`, `hf:FOLDER#column` | a data set of the `datasets` library | its validation or test part, else every other row | its training part, else the rest |
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
from typing import Any, Literal

from ablation_core.data import hub_datasets
from ablation_core.data.files import digests, formats, tables
from ablation_core.data.files.text_files import decode_text as decode_text
from ablation_core.data.files.text_files import read_bytes, read_text_file
from ablation_core.errors import DataError
from ablation_core.models.info import Modality

Split = Literal["evaluation", "statistics"]
SPLITS: tuple[Split, ...] = ("evaluation", "statistics")
TEXT_NAMES = ("python-docs", "python-code")
IMAGE_NAMES = ("fashion-mnist", "fashion-mnist:full")
TEXT_KINDS = ("text", *formats.KINDS, "hf")
DEFAULT_DATA: dict[Modality, str] = {"causal": "python-docs", "masked": "python-docs", "vision": "fashion-mnist"}
STATISTICS_PREDICTIONS: dict[Modality, int] = {
    "causal": 20_000,
    "masked": 4_000,
    "vision": 1_000,
    "text-classification": 1_000,
}  # some 20,000 to 50,000 positions
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
FORMS = ("text:FILE", "jsonl:FILE#COLUMN", "csv:FILE#COLUMN", "parquet:FILE#COLUMN", "folder:FOLDER", "hf:ID")

EVERY_PROMPT = "#all"  # behind a file of pairs
_PIECE = 20_000  # characters tokenised at a time, so that a large file costs only what is used of it
_BETWEEN = "\n\n"  # what stands between two documents that are packed


def usual_data(model: str, modality: Modality) -> str:
    """What a model is measured on where no data is named.

    Raises:
        DataError: there is none for its kind.
    """
    if modality not in DEFAULT_DATA:
        raise DataError(
            f"{model} is a text classifier, and no labelled texts come with the project: name some, as in --data "
            f"csv:FILE#TEXT,LABEL (or jsonl:, parquet:, hf:)."
        )
    return DEFAULT_DATA[modality]


def at_home(ref: str) -> str:
    """The reference with `~` behind its colon read as the home folder: a shell does so only where a word begins."""
    kind, colon, place = ref.partition(":~")
    if not colon or not kind.isalpha() or not place.startswith("/") or os.path.exists(f"~{place}"):
        return ref
    return f"{kind}:{os.path.expanduser(f'~{place}')}"


def is_text(ref: str) -> bool:
    """Whether a reference names texts; a data set of `hf:` may hold images as well."""
    return ref in TEXT_NAMES or (ref.partition(":")[0] in TEXT_KINDS and ":" in ref)


def is_labelled(ref: str) -> bool:
    """Whether a reference may name texts with a label each."""
    return ref.partition(":")[0] in ("jsonl", "csv", "parquet", "hf") and ":" in ref


# Of `tasks.TASKS`, here so that they can be listed without loading what draws them.
TASK_NAMES = ("ioi", "induction", "greater-than", "agreement", "facts")


def is_task(ref: str) -> bool:
    """Whether it names prompts with a right and a wrong answer (`task_data.py`)."""
    return ref.startswith(("task:", "pairs:"))


def pairs_file(ref: str) -> tuple[str, bool]:
    """The file of a reference to pairs, and whether every prompt of it is asked (`#all`) or every other group.

    >>> pairs_file("pairs:mine.jsonl"), pairs_file("pairs:mine.jsonl#all")
    (('mine.jsonl', False), ('mine.jsonl', True))
    """
    place = ref.removeprefix("pairs:")
    every = place.endswith(EVERY_PROMPT) and not os.path.isfile(place)
    return (place.removesuffix(EVERY_PROMPT) if every else place), every


def is_images(ref: str) -> bool:
    return ref in IMAGE_NAMES or ref.startswith("images:")


def unknown_data(ref: str) -> DataError:
    """The sentence for what is no reference; it names the one that was meant, where that can be seen."""
    suffix = Path(ref.removesuffix(".gz")).suffix.lower() if os.path.exists(ref) else ""
    kinds = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
    if os.path.isdir(ref):
        return DataError(
            f"{ref} is a folder: write folder:{ref} for its .txt files, images:{ref} for images, hf:{ref} for a saved data set."
        )
    if os.path.isfile(ref):
        return DataError(f"{ref} is a file: write {kinds.get(suffix, 'text')}:{ref}.")
    names = ", ".join((*TEXT_NAMES, *FORMS, *IMAGE_NAMES, "images:FOLDER"))
    shown = ref if len(ref) <= 80 else f"{ref[:79]}…"
    text = " To score a text itself, give it in a list, as in load_data(['A text.'], model)." if " " in ref else ""
    return DataError(f"There is no data set {shown!r}. Choose one of {names}.{text}")


def read_text(ref: str, split: Split, notes: list[str] | None = None) -> Iterator[str]:
    """The part's text in pieces, in order; their concatenation is the part. Documents stand a blank line apart.

    Args:
        notes: gets sentences about what was changed or left out.

    Raises:
        DataError: the file is missing, empty, too large or not text; there is no such column.
    """
    notes = [] if notes is None else notes
    if ref == "python-docs":
        yield from pieces(_half("\n".join(_topics()), split))
    elif ref.startswith("text:"):
        yield from pieces(_half(read_text_file(Path(ref.removeprefix("text:")), notes), split))
    elif ref == "python-code":
        for document in read_documents(ref, split, notes):
            yield from pieces(document)
    else:
        yield from packed_pieces(read_documents(ref, split, notes))


def read_documents(ref: str, split: Split, notes: list[str]) -> Iterator[str]:
    """The part's documents, in order, each whole: a topic, a file, a row.

    Raises:
        DataError: as `read_text`.
    """
    kind = ref.partition(":")[0]
    if ref == "python-docs":
        yield from _topics_of(split)
    elif ref == "python-code":
        yield from _python_code(split)
    elif kind == "text":
        yield from read_text(ref, split, notes)
    elif kind == "hf":
        yield from _texts_only(hub_datasets.texts(ref, split), ref, notes)
    else:
        for number, document in enumerate(tables.read_rows(formats.parse(ref), notes)):
            if number % 2 == SPLITS.index(split):
                yield document


def packed_pieces(documents: Iterator[str]) -> Iterator[str]:
    """Documents as the pieces of one text."""
    for document in documents:
        yield from pieces(document.rstrip("\n") + _BETWEEN)


def _texts_only(values: Iterator[Any], ref: str, notes: list[str]) -> Iterator[str]:
    empty = 0
    for value in values:
        if value is None or value == "":
            empty += 1
        elif isinstance(value, str):
            yield value.replace("\r\n", "\n").replace("\r", "\n")
        else:
            raise DataError(f"The column of {ref} holds {type(value).__name__} values, not texts; write hf:…#COLUMN.")
    if empty:
        notes.append(f"{empty:,} rows of {ref} without a text were left out.")


def _topics() -> list[str]:
    topics = pydoc_data.topics.topics
    return [topics[name] for name in sorted(topics)]


def _topics_of(split: Split) -> Iterator[str]:
    """The topics of a half; the one that the middle cuts is in both, in part."""
    topics = _topics()
    middle = len(_half("\n".join(topics), "evaluation"))
    start = 0
    for topic in topics:
        cut = min(max(middle - start, 0), len(topic))
        if part := topic[:cut] if split == "evaluation" else topic[cut:]:
            yield part
        start += len(topic) + 1


def _half(text: str, split: Split) -> str:
    middle = text.rfind("\n", 0, len(text) // 2 + 1) + 1 or len(text) // 2
    return text[:middle] if split == "evaluation" else text[middle:]


def pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + _PIECE) + 1 or start + _PIECE
        yield text[start:end]
        start = end


def _python_code(split: Split) -> Iterator[str]:
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "test", "tests", "idle_test", "pydoc_data", "__pycache__"}
    names = (path.relative_to(root) for path in root.rglob("*.py"))
    files = [name for name in names if skipped.isdisjoint(name.parts)]
    files.sort(key=lambda name: hashlib.sha256(name.as_posix().encode()).digest())
    for name in files[SPLITS.index(split) :: 2]:
        yield (root / name).read_text(encoding="utf-8", errors="replace")


def source_digest(ref: str) -> str:
    """A digest of the user's own file, or of a folder's file names, sizes and times; empty for other data sets.

    Text files are digested whole; of large files of records `digests.table_digest` takes the size, the time and both ends.

    Raises:
        DataError: it cannot be read.
    """
    kind, _, place = ref.partition(":")
    try:
        place = pairs_file(ref)[0] if kind == "pairs" else place
        if kind in ("text", "pairs") and os.path.isfile(place):  # where it is not, reading it says so
            return hashlib.sha256(read_bytes(Path(place))).hexdigest()[:16]
        if kind in formats.KINDS:
            return digests.table_digest(formats.parse(ref))
        if kind == "hf":
            return hub_datasets.source_digest(ref)
        if kind == "images":
            files = sorted(p for p in Path(place).glob("*/*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            lines = (f"{path.relative_to(place)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
            return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror}.") from error
    return ""
