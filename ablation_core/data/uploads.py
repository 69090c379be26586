"""Texts, records and images that a person uploads: checked, written whole or not at all, and turned into a data reference.

Each lies in `<cache>/uploads/<digest of its content>/`: a text as `text.txt`, records as `data.jsonl`, `data.csv` or
`data.parquet`, a task's pairs as `pairs.jsonl`, images as `images/<class>/<number>-<name>`, and `upload.json` beside them with the name it was uploaded by. An upload is hostile until shown otherwise: declared
sizes are not believed, an archive's names never become paths, and every image is decoded once before it is kept.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from ablation_core.data.files import formats, tables
from ablation_core.data.files.text_files import read_text_file
from ablation_core.data.tasks.pairs import read_pairs
from ablation_core.errors import DataError, first_line, shown_name
from ablation_core.storage import CACHE, uploads_folder, working_folder

MAX_BYTES = 50_000_000  # of an upload, as in .streamlit/config.toml
MAX_KEPT_BYTES = 2_000_000_000  # of all uploads together
_NOTE = "upload.json"


@dataclass(frozen=True)
class Upload:
    """Something a person uploaded.

    Attributes:
        kind: `text`, `images`, `pairs`, or of records `jsonl`, `csv` or `parquet`.
        name: what the uploaded file was called.
        digest: of its content; also the name of its folder.
        files: how many there are: 1, or the number of images.
        bytes: what it takes on disk.
        column: of records, whose texts are read: `text`, else the one with the longest texts.
    """

    kind: str
    name: str
    digest: str
    files: int
    bytes: int
    column: str = ""


_FILES = {
    "text": "text.txt",
    "pairs": "pairs.jsonl",
    "images": "images",
    "jsonl": "data.jsonl",
    "csv": "data.csv",
    "parquet": "data.parquet",
}
_ROWS_LOOKED_AT = 50


def keep_pairs(name: str, content: bytes, cache: Path = CACHE) -> Upload:
    """Check an uploaded file of a task's prompts and answers (`pairs.py`), and keep it.

    Raises:
        DataError: it is not what it should be; nothing is left behind.
    """
    return keep_upload(name, content, cache, pairs=True)


def keep_upload(name: str, content: bytes, cache: Path = CACHE, pairs: bool = False) -> Upload:
    """Check an uploaded text file, file of records, or zip of images, and keep it.

    Args:
        pairs: it is a file of a task's prompts and answers, whatever its name.

    Raises:
        DataError: it is not what it should be; nothing is left behind.
    """
    if len(content) > MAX_BYTES:
        raise DataError(f"{shown_name(name)} is larger than {MAX_BYTES // 1_000_000} MB; upload a part of it.")
    if not content:
        raise DataError(
            f"{shown_name(name)} is empty; upload a UTF-8 text file, a file of records, or a zip of images."
        )
    records = "" if pairs else _kind_of_records(name)
    zipped = (records != "parquet" and content[:4] in (b"PK\x03\x04", b"PK\x05\x06")) or name.lower().endswith(".zip")
    zipped = zipped and not pairs
    digest = hashlib.sha256((b"pairs\0" if pairs else b"") + content).hexdigest()[:16]
    folder = uploads_folder(cache)
    if (kept := _read_note(folder / digest)) is not None:
        return kept
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_room(folder, len(content))
        with working_folder(folder) as temporary:
            work = temporary / "work"
            work.mkdir()
            files, column = 1, ""
            if pairs:
                _write_pairs(name, content, work)
            elif zipped:
                from ablation_core.data.image_zips import unpack_images  # brings the imaging library

                files = unpack_images(name, content, work / "images")
            elif records:
                column = _write_records(name, records, content, work)
            else:
                _write_text(name, content, work)
            taken = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
            kind = "pairs" if pairs else "images" if zipped else records or "text"
            upload = Upload(kind, shown_name(name), digest, files, taken, column)
            (work / _NOTE).write_text(json.dumps(asdict(upload)), encoding="utf-8")
            if (folder / digest).exists():  # its note is damaged, or it came at the same moment
                shutil.rmtree(folder / digest)
            work.replace(folder / digest)
    except OSError as error:
        raise DataError(f"{shown_name(name)} cannot be kept in {folder}: {first_line(error)}") from error
    return upload


def list_uploads(cache: Path = CACHE) -> list[Upload]:
    """What was uploaded and is still here, by name."""
    found = (_read_note(path) for path in uploads_folder(cache).glob("[0-9a-f]*"))
    return sorted((upload for upload in found if upload is not None), key=lambda upload: (upload.name, upload.digest))


def contents(upload: Upload) -> str:
    """What it holds, in a few words."""
    whole = {"images": f"{upload.files:,} images", "text": "a text", "pairs": "prompts with right and wrong answers"}
    return whole.get(upload.kind, f"the texts in column {upload.column}")


def reference(upload: Upload, cache: Path = CACHE) -> str:
    """The data reference of an upload; relative where it can be, so that a link says nothing of the machine."""
    folder = uploads_folder(cache) / upload.digest
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    return f"{upload.kind}:{folder / _FILES[upload.kind]}" + (f"#{upload.column}" if upload.column else "")


def named(ref: str, cache: Path = CACHE) -> str:
    """A data reference as people know it: an upload by its file's name, everything else as it is."""
    if uploads_folder(cache).name not in ref:
        return ref
    return next((upload.name for upload in list_uploads(cache) if reference(upload, cache) == ref), ref)


def references(kind: str, cache: Path = CACHE) -> tuple[str, ...]:
    """The data references of all uploads of a kind: `text` (records too), `images` or `pairs`."""
    own = {"images": ("images",), "pairs": ("pairs",)}.get(kind, tuple(set(_FILES) - {"images", "pairs"}))
    return tuple(reference(upload, cache) for upload in list_uploads(cache) if upload.kind in own)


def delete_upload(digest: str, cache: Path = CACHE) -> None:
    """Remove an upload.

    Raises:
        DataError: there is none of this digest.
    """
    folder = uploads_folder(cache) / digest
    if not re.fullmatch(r"[0-9a-f]{16}", digest) or folder.is_symlink() or not folder.is_dir():
        raise DataError(f"There is no upload {digest!r} here.")
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise DataError(f"The upload {digest} cannot be deleted: {first_line(error)}") from error


def _read_note(folder: Path) -> Upload | None:
    """What the note of an upload says; None where there is none that can be read."""
    try:
        upload = Upload(**json.loads((folder / _NOTE).read_text(encoding="utf-8")))
        whole = all(type(getattr(upload, field.name)) is field.type for field in fields(Upload))
        whole = whole and upload.kind in _FILES and (folder / _FILES[upload.kind]).exists()
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return upload if whole and upload.digest == folder.name else None


def _check_room(folder: Path, coming: int) -> None:
    kept = sum(upload.bytes for path in folder.iterdir() if (upload := _read_note(path)) is not None)
    if kept + coming > MAX_KEPT_BYTES:
        raise DataError(
            f"The uploads kept here already take {kept / 1e9:.1f} of {MAX_KEPT_BYTES / 1e9:.0f} GB; delete one first."
        )


def _write_text(name: str, content: bytes, work: Path) -> None:
    """A text that may be scored as it is; what is left as it was uploaded is read like any other text file."""
    (work / "text.txt").write_bytes(content)
    _named_as(name, work / "text.txt", lambda: read_text_file(work / "text.txt", []))


def _write_pairs(name: str, content: bytes, work: Path) -> None:
    place = work / _FILES["pairs"]
    place.write_bytes(content)
    if not _named_as(name, place, lambda: list(read_pairs(place))):
        raise DataError(f"{shown_name(name)} is empty; each line is an object with prompt, right and wrong.")


def _write_records(name: str, kind: str, content: bytes, work: Path) -> str:
    """Records, and the column whose texts are read.

    Raises:
        DataError: they cannot be read, or hold no texts.
    """
    place = work / _FILES[kind]
    place.write_bytes(content)
    columns = _named_as(name, place, lambda: tables.text_columns(kind, place, _ROWS_LOOKED_AT))
    if not columns:
        raise DataError(f"{shown_name(name)} has no column of texts.")
    return formats.DEFAULT_COLUMN if formats.DEFAULT_COLUMN in columns else max(columns, key=lambda one: columns[one])


def _named_as(name: str, place: Path, read: Callable[[], Any]) -> Any:
    """What reading gives; its sentence, where there is one, by the name that was uploaded."""
    try:
        return read()
    except DataError as error:
        raise DataError(str(error).replace(str(place), shown_name(name))) from error


def _kind_of_records(name: str) -> str:
    """By the file's name; empty where it is none of records."""
    suffix = PurePosixPath(name.lower().removesuffix(".gz")).suffix
    return {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}.get(suffix, "")
