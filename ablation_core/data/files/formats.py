"""How records lie in a file of each kind: JSON Lines, CSV, Parquet, and a folder of text files. Read row by row.

gzip is understood for JSON Lines, CSV and text files.
"""

import csv
import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation_core.data.files.text_files import looks_like, read_text_file, starts_as_record
from ablation_core.errors import DataError, a_type, first_line

KINDS = ("jsonl", "csv", "parquet", "folder")
DEFAULT_COLUMN = "text"
_FOLDER_SUFFIXES = (".txt", ".txt.gz")
_ROWS_AT_ONCE = 256
_MOST_LINE = 100_000_000  # characters of one record


@dataclass(frozen=True)
class Table:
    """A reference to records: its kind, its file or folder, and the column whose texts are read."""

    kind: str
    path: Path
    column: str


def parse(ref: str) -> Table:
    """`csv:PATH#column` in its parts; a `#` that is part of an existing path stays there."""
    kind, _, place = ref.partition(":")
    path, column = split_column(place)
    return Table(kind, Path(path), column or DEFAULT_COLUMN)


def split_column(place: str) -> tuple[str, str]:
    """The path and the column of `PATH#column`, either of which may hold a `#` too: the longest path that exists is meant.

    >>> split_column("notes.csv#body")
    ('notes.csv', 'body')
    """
    if os.path.exists(place):
        return place, ""
    marks = [number for number, letter in enumerate(place) if letter == "#"]
    there = [number for number in marks if os.path.exists(place[:number]) and number]
    if not marks:
        return place, ""
    mark = there[-1] if there else marks[-1]
    return place[:mark], place[mark + 1 :]


def existing_file(table: Table, what: str) -> Path:
    """The table's file, which is there; `what` says what it should be."""
    path = table.path
    if path == Path():
        raise DataError(f"No file is named. Write {table.kind}: followed by the path of {what}.")
    if os.path.isdir(path):
        raise DataError(
            f"{path} is a folder; {table.kind}: needs {what}. For a folder of .txt files write folder:{path}."
        )
    if not os.path.isfile(path):
        raise DataError(f"There is no file {path}. Write {table.kind}: followed by the path of {what}.")
    return path


def _json_lines(table: Table, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    path = existing_file(table, "a JSON Lines file")
    with open_text(path) as file:
        number, seen = 0, False
        while line := file.readline(_MOST_LINE):
            number += 1
            if not line.strip():
                continue
            row = _record(line, path, number)
            if not seen:
                _check_columns(table, columns, row)
                seen = True
            yield tuple(None if row.get(name) != row.get(name) else row.get(name) for name in columns)  # NaN is a gap


def _record(line: str, path: Path, number: int) -> dict:
    """A line of JSON Lines."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"Line {number} of {path} is not JSON ({first_line(error)}); JSON Lines has one object on each line"
            f"{instead(path, 'jsonl') if number == 1 else ''}."
        ) from error
    if isinstance(row, list) and number == 1:
        raise DataError(f"{path} is one JSON list, not JSON Lines; write one object on each line.")
    if not isinstance(row, dict):
        raise DataError(f"Line {number} of {path} is not an object with fields, but {a_type(row)}.")
    return row


def _separator(head: str) -> str:
    """What stands between the columns that a table's first line names."""
    if "\t" in head:
        return "\t"
    return max(",;|", key=head.count)  # the comma where there are as many of others


def _csv_rows(table: Table, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    import pandas

    path = existing_file(table, "a CSV file")
    names, separator, packed = csv_form(path)
    _check_columns(table, columns, names)
    # all columns: told which to read, pandas cuts a text at a separator that is not quoted, and says nothing
    reader = pandas.read_csv(
        path,
        sep=separator,
        dtype=str,
        keep_default_na=False,
        chunksize=_ROWS_AT_ONCE,
        compression=packed,
        encoding="utf-8-sig",
    )
    with reader:
        for part in reader:
            if not isinstance(part.index, pandas.RangeIndex):  # what pandas makes of a field too many in the first rows
                raise DataError(
                    f"Rows of {path} have more fields than its first line names; quote texts that hold {separator!r}."
                )
            yield from zip(*(part[name] for name in columns), strict=True)


def csv_form(path: Path) -> tuple[list[str], str, Any]:
    """A table's columns, what stands between them, and how it is packed."""
    import pandas

    with open_text(path) as file:
        head = file.readline(_MOST_LINE)
    if not head.strip():
        what = f"The first line of {path} is empty; it" if head else f"{path} is empty; its first line"
        raise DataError(f"{what} has to name the columns.")
    separator = _separator(head)
    packed: Any = "gzip" if _is_gzip(path) else None
    names = list(pandas.read_csv(path, sep=separator, nrows=0, compression=packed, encoding="utf-8-sig").columns)
    written = next(csv.reader([head], delimiter=separator), [])
    if twice := next((name for name in names if written.count(name) > 1), None):
        raise DataError(f"{path} has {written.count(twice)} columns called {twice!r}; rename all but one.")
    return names, separator, packed


def _parquet_rows(table: Table, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    from pyarrow import parquet

    path = existing_file(table, "a Parquet file")
    if _is_gzip(path):
        raise DataError(f"{path} is packed by gzip; unpack it: a Parquet file is packed in itself.")
    with parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        _check_columns(table, columns, names)
        if twice := next((name for name in columns if names.count(name) > 1), None):
            raise DataError(f"{path} has {names.count(twice)} columns called {twice!r}; rename all but one.")
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
            yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


def folder_texts(table: Table, notes: list[str]) -> Iterator[tuple[str]]:
    """The text of each of a folder's files."""
    if table.column != DEFAULT_COLUMN:
        raise DataError(f"A folder of text files has no columns; write folder:{table.path}.")
    for path in folder_files(table.path):
        yield ("" if path.stat().st_size == 0 else read_text_file(path, notes),)


# Kind → the values of some columns, row by row.
READERS = {"jsonl": _json_lines, "csv": _csv_rows, "parquet": _parquet_rows}


def whole_rows(kind: str, path: Path) -> Iterator[dict]:
    """A file's rows with all their columns."""
    if kind == "jsonl":
        with open_text(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _record(line, path, number)
    elif kind == "csv":
        with open_text(path) as file:
            head = file.readline(_MOST_LINE)
        with open_text(path) as file:
            yield from csv.DictReader(file, delimiter=_separator(head))
    else:
        from pyarrow import parquet

        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                yield from batch.to_pylist()


def is_hidden(path: Path) -> bool:
    """Whether a file or folder is one that a system or program keeps beside a person's own."""
    return path.name.startswith(".")


def folder_files(folder: Path) -> list[Path]:
    """A folder's text files, by name, those of its subfolders too.

    Raises:
        DataError: there is no such folder, or no text file in it.
    """
    if os.path.isfile(folder):
        raise DataError(f"{folder} is a file, not a folder{instead(folder, 'folder')}.")
    if folder == Path():
        raise DataError("No folder is named. Write folder: followed by a folder with .txt files.")
    if not os.path.isdir(folder):
        raise DataError(f"There is no folder {folder}. Write folder: followed by a folder with .txt files.")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith(_FOLDER_SUFFIXES)
        and path.is_file()
        and not any(map(is_hidden, (path, *path.relative_to(folder).parents)))
    )
    if not files:
        raise DataError(f"The folder {folder} has no .txt file (nor .txt.gz).")
    return files


def _check_columns(table: Table, columns: tuple[str, ...], names: Any) -> None:
    """Refuse a file that lacks a column."""
    for column in columns:
        if column not in names:
            if looks_like(table.path) == "JSON Lines" and table.kind == "csv":
                raise DataError(f"{table.path} is not CSV{instead(table.path, table.kind)}.")
            shown = ", ".join(str(name)[:60] for name in list(names)[:12])
            raise DataError(
                f"{table.path} has no column {column!r}; it has {shown}. Write {table.kind}:{table.path}#COLUMN."
            )


# A file's first bytes → how it was packed, other than by gzip, which is understood.
_PACKED = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7z"}


def packed_otherwise(path: Path) -> str:
    """How a file is packed that cannot be read for that; nothing where it is not."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError:
        return ""
    return next((name for magic, name in _PACKED.items() if head.startswith(magic)), "")


_NAMED_BY = {
    "JSON Lines": "jsonl:", "CSV": "csv:", "tab-separated values": "csv:", "a Parquet file": "parquet:", "plain text": "text:",
}  # fmt: skip


def instead(path: Path, kind: str) -> str:
    """What a file looks like that is not what its reference says, and how to name it."""
    looks = looks_like(path)
    if looks == "plain text" and kind == "jsonl" and starts_as_record(path):
        looks = ""  # a line that is not whole: read as text, its brackets would be scored
    named = _NAMED_BY.get(looks, f"{kind}:")
    return "" if named == f"{kind}:" else f"; it looks like {looks}: write {named}{path}"


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def open_text(path: Path) -> Any:
    """A file of UTF-8 text, perhaps gzipped, to read line by line."""
    opened = gzip.open if _is_gzip(path) else open
    return opened(path, "rt", encoding="utf-8-sig")
