"""Texts out of files of records: JSON Lines, CSV, Parquet, a folder of text files. Read row by row, only as far as is asked.

    list(read_rows(parse("jsonl:notes.jsonl#body"), notes))  # ["The first note.", "The second.", …]

gzip is understood for JSON Lines, CSV and text files. Rows without a text are left out, and counted in the notes.
"""

import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ablation_core.data.text_files import looks_like, plain_line_ends, read_text_file
from ablation_core.errors import DataError, a_type, first_line

KINDS = ("jsonl", "csv", "parquet", "folder")
DEFAULT_COLUMN = "text"
_FOLDER_SUFFIXES = (".txt", ".txt.gz")
_ROWS_AT_ONCE = 256
_MOST_LINE = 100_000_000  # characters of one record
WHOLE_BYTES = 16_000_000  # files up to this size are digested whole
_END_BYTES = 1_000_000


@dataclass(frozen=True)
class Table:
    """A reference to records: its kind, its file or folder, and the column whose texts are read."""

    kind: str
    path: Path
    column: str


def parse(ref: str) -> Table:
    """`csv:PATH#column` in its parts; a `#` that is part of an existing path stays there."""
    kind, _, place = ref.partition(":")
    path, hash_, column = place.rpartition("#")
    if not hash_ or os.path.exists(place):
        path, column = place, DEFAULT_COLUMN
    return Table(kind, Path(path), column or DEFAULT_COLUMN)


def read_rows(table: Table, notes: list[str]) -> Iterator[str]:
    """The column's texts, one a row, in the file's order.

    Args:
        notes: gets sentences about what was changed or left out, once the last row that is asked for is read.

    Raises:
        DataError: the file is missing or damaged, or has no such column of texts.
    """
    readers = {"jsonl": _json_lines, "csv": _csv, "parquet": _parquet}
    empty, crlf, found = 0, False, False
    try:
        with _faults(table.path, table.kind):
            rows = _folder(table, notes) if table.kind == "folder" else readers[table.kind](table, (table.column,))
            for (value,) in rows:
                if value is None or value == "":
                    empty += 1
                    continue
                if not isinstance(value, str):
                    raise DataError(
                        f"The column {table.column} of {table.path} holds {type(value).__name__} values, not texts; "
                        f"name another one as {table.kind}:{table.path}#COLUMN."
                    )
                text, changed = plain_line_ends(value, str(table.path))
                crlf, found = crlf or bool(changed), True
                yield text
        if not found:
            raise DataError(f"{table.path} holds no text{'' if table.kind == 'folder' else f' in {table.column}'}.")
    finally:
        if crlf:
            notes.append(f"Line ends (CR LF) in {table.path} were read as LF.")
        if empty:
            notes.append(f"{empty:,} rows of {table.path} without a text were left out.")


def read_records(table: Table, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """Several columns' values, row by row, in the file's order.

    Raises:
        DataError: the file is missing or damaged, or lacks one of them.
    """
    readers = {"jsonl": _json_lines, "csv": _csv, "parquet": _parquet}
    if table.kind not in readers:
        raise DataError(f"{table.path} has no columns; labelled texts are read from jsonl:, csv:, parquet: or hf:.")
    with _faults(table.path, table.kind):
        yield from readers[table.kind](table, columns)


def column_names(table: Table) -> list[str]:
    """The columns that a file of records has; of JSON Lines, the first line's fields.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    if table.kind not in ("jsonl", "csv", "parquet"):
        raise DataError(f"{table.path} has no columns; labelled texts are read from jsonl:, csv:, parquet: or hf:.")
    path = _file(table, "a file of records")
    with _faults(path, table.kind):
        if table.kind == "csv":
            return _csv_form(path)[0]
        if table.kind == "jsonl":
            return list(next(_whole_rows(table.kind, path), {}))
        from pyarrow import parquet

        with parquet.ParquetFile(path) as file:
            return list(file.schema_arrow.names)


def text_columns(kind: str, path: Path, rows: int) -> dict[str, int]:
    """The columns that hold texts in the first rows of a file, with the characters in each.

    Raises:
        DataError: the file cannot be read.
    """
    lengths: dict[str, int] = {}
    with _faults(path, kind):
        for row in islice(_whole_rows(kind, path), rows):
            for name, value in row.items():
                if isinstance(value, str) and value.strip():
                    lengths[str(name)] = lengths.get(str(name), 0) + len(value)
    return lengths


def _whole_rows(kind: str, path: Path) -> Iterator[dict]:
    if kind == "jsonl":
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _record(line, path, number)
    elif kind == "csv":
        import csv

        with _open(path) as file:
            head = file.readline(_MOST_LINE)
        with _open(path) as file:
            yield from csv.DictReader(file, delimiter=_separator(head))
    else:
        from pyarrow import parquet

        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                yield from batch.to_pylist()


@contextmanager
def _faults(path: Path, kind: str = "") -> Iterator[None]:
    try:
        yield
    except (DataError, GeneratorExit):
        raise
    except ModuleNotFoundError as error:
        raise missing_library(error) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or first_line(error)}.") from error
    except Exception as error:  # a parser may fail in any way on a damaged file
        raise DataError(
            f"{path} cannot be read ({first_line(error)}){_instead(path, kind) or '; it may be damaged'}."
        ) from error


_NAMED_BY = {
    "JSON Lines": "jsonl:", "CSV": "csv:", "tab-separated values": "csv:", "a Parquet file": "parquet:", "plain text": "text:",
}  # fmt: skip


def _instead(path: Path, kind: str) -> str:
    """What a file looks like that is not what its reference says, and how to name it."""
    looks = looks_like(path)
    named = _NAMED_BY.get(looks, f"{kind}:")
    return "" if named == f"{kind}:" else f"; it looks like {looks}: write {named}{path}"


def missing_library(error: ModuleNotFoundError) -> DataError:
    """The sentence where a library that only some references need is not installed."""
    return DataError(
        f"Such data is read by the package {error.name}, which is not installed: pip install {error.name}."
    )


def _file(table: Table, what: str) -> Path:
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
    path = _file(table, "a JSON Lines file")
    with _open(path) as file:
        number = 0
        while line := file.readline(_MOST_LINE):
            number += 1
            if not line.strip():
                continue
            row = _record(line, path, number)
            _check_columns(table, columns, row)
            yield tuple(row[name] for name in columns)


def _record(line: str, path: Path, number: int) -> dict:
    """A line of JSON Lines."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"Line {number} of {path} is not JSON ({first_line(error)}); JSON Lines has one object on each line"
            f"{_instead(path, 'jsonl') if number == 1 else ''}."
        ) from error
    if isinstance(row, list) and number == 1:
        raise DataError(f"{path} is one JSON list, not JSON Lines; write one object on each line.")
    if not isinstance(row, dict):
        raise DataError(f"Line {number} of {path} is not an object with fields, but {a_type(row)}.")
    return row


def _separator(head: str) -> str:
    """What stands between the columns that a table's first line names."""
    return "\t" if "\t" in head else ";" if head.count(";") > head.count(",") else ","


def _csv(table: Table, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    import pandas

    path = _file(table, "a CSV file")
    names, separator, packed = _csv_form(path)
    _check_columns(table, columns, names)
    reader = pandas.read_csv(
        path,
        sep=separator,
        usecols=list(columns),
        dtype=str,
        keep_default_na=False,
        chunksize=_ROWS_AT_ONCE,
        compression=packed,
        encoding="utf-8-sig",
    )
    with reader:
        for part in reader:
            yield from zip(*(part[name] for name in columns), strict=True)


def _csv_form(path: Path) -> tuple[list[str], str, Any]:
    """A table's columns, what stands between them, and how it is packed."""
    import pandas

    with _open(path) as file:
        head = file.readline(_MOST_LINE)
    if not head.strip():
        raise DataError(f"{path} is empty; its first line has to name the columns.")
    separator = _separator(head)
    packed: Any = "gzip" if _is_gzip(path) else None
    names = pandas.read_csv(path, sep=separator, nrows=0, compression=packed, encoding="utf-8-sig").columns
    return list(names), separator, packed


def _parquet(table: Table, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    from pyarrow import parquet

    path = _file(table, "a Parquet file")
    with parquet.ParquetFile(path) as file:
        _check_columns(table, columns, file.schema_arrow.names)
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
            yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


def _folder(table: Table, notes: list[str]) -> Iterator[tuple[str]]:
    if table.column != DEFAULT_COLUMN:
        raise DataError(f"A folder of text files has no columns; write folder:{table.path}.")
    for path in folder_files(table.path):
        yield (read_text_file(path, notes),)


def folder_files(folder: Path) -> list[Path]:
    """A folder's text files, by name, those of its subfolders too.

    Raises:
        DataError: there is no such folder, or no text file in it.
    """
    if os.path.isfile(folder):
        raise DataError(f"{folder} is a file, not a folder{_instead(folder, 'folder')}.")
    if folder == Path():
        raise DataError("No folder is named. Write folder: followed by a folder with .txt files.")
    if not os.path.isdir(folder):
        raise DataError(f"There is no folder {folder}. Write folder: followed by a folder with .txt files.")
    files = sorted(
        path for path in folder.rglob("*") if path.name.lower().endswith(_FOLDER_SUFFIXES) and path.is_file()
    )
    if not files:
        raise DataError(f"The folder {folder} has no .txt file (nor .txt.gz).")
    return files


def _check_columns(table: Table, columns: tuple[str, ...], names: Any) -> None:
    """Refuse a file that lacks a column."""
    for column in columns:
        if column not in names:
            if looks_like(table.path) == "JSON Lines" and table.kind == "csv":
                raise DataError(f"{table.path} is not CSV{_instead(table.path, table.kind)}.")
            shown = ", ".join(str(name)[:60] for name in list(names)[:12])
            raise DataError(
                f"{table.path} has no column {column!r}; it has {shown}. Write {table.kind}:{table.path}#COLUMN."
            )


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _open(path: Path) -> Any:
    opened = gzip.open if _is_gzip(path) else open
    return opened(path, "rt", encoding="utf-8-sig")


def table_digest(table: Table) -> str:
    """A digest of what the texts come from, cheap whatever its size; empty where there is nothing.

    A file of up to 16 MB is digested whole. Of a larger one: its size, the time of its last change, its first and its last
    megabyte. Of a folder: each file's name, size and time.
    """
    path = table.path
    if table.kind == "folder":
        if not os.path.isdir(path):
            return ""
        lines = (f"{file.relative_to(path)} {_state(file)}" for file in folder_files(path))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    return file_digest(path) if os.path.isfile(path) else ""


def file_digest(path: Path) -> str:
    """A digest of a file as `table_digest` has it."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        if size <= WHOLE_BYTES:
            digest.update(file.read(WHOLE_BYTES))
        else:
            digest.update(_state(path).encode())
            digest.update(file.read(_END_BYTES))
            file.seek(-_END_BYTES, os.SEEK_END)
            digest.update(file.read(_END_BYTES))
    return digest.hexdigest()[:16]


def _state(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"
