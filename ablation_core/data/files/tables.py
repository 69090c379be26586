"""Texts out of files of records: JSON Lines, CSV, Parquet, a folder of text files. Read row by row, only as far as is asked.

    list(read_rows(formats.parse("jsonl:notes.jsonl#body"), notes))  # ["The first note.", "The second.", …]

Rows without a text are left out, and counted in the notes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from ablation_core.data.files.formats import (
    READERS,
    Table,
    csv_form,
    existing_file,
    folder_texts,
    instead,
    packed_otherwise,
    whole_rows,
)
from ablation_core.data.files.text_files import not_utf_8_file, plain_line_ends
from ablation_core.errors import DataError, first_line


def read_rows(table: Table, notes: list[str]) -> Iterator[str]:
    """The column's texts, one a row, in the file's order.

    Args:
        notes: gets sentences about what was changed or left out, once the last row that is asked for is read.

    Raises:
        DataError: the file is missing or damaged, or has no such column of texts.
    """
    empty, crlf, found = 0, False, False
    try:
        with _faults(table.path, table.kind):
            rows = folder_texts(table, notes) if table.kind == "folder" else READERS[table.kind](table, (table.column,))
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
    if table.kind not in READERS:
        raise DataError(f"{table.path} has no columns; labelled texts are read from jsonl:, csv:, parquet: or hf:.")
    with _faults(table.path, table.kind):
        yield from READERS[table.kind](table, columns)


def column_names(table: Table) -> list[str]:
    """The columns that a file of records has; of JSON Lines, the first line's fields.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    if table.kind not in READERS:
        raise DataError(f"{table.path} has no columns; labelled texts are read from jsonl:, csv:, parquet: or hf:.")
    path = existing_file(table, "a file of records")
    with _faults(path, table.kind):
        if table.kind == "csv":
            return csv_form(path)[0]
        if table.kind == "jsonl":
            return list(next(whole_rows(table.kind, path), {}))
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
        for row in islice(whole_rows(kind, path), rows):
            for name, value in row.items():
                if isinstance(value, str) and value.strip():
                    lengths[str(name)] = lengths.get(str(name), 0) + len(value)
    return lengths


@contextmanager
def _faults(path: Path, kind: str = "") -> Iterator[None]:
    try:
        yield
    except (DataError, GeneratorExit):
        raise
    except ModuleNotFoundError as error:
        raise missing_library(error) from error
    except UnicodeDecodeError as error:
        if packed := packed_otherwise(path):
            raise DataError(
                f"{path} is packed by {packed}; unpack it, or pack it by gzip, which is understood."
            ) from error
        if said := instead(path, kind):
            raise DataError(f"{path} is not UTF-8 text{said}.") from error
        raise not_utf_8_file(path, error.start) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or first_line(error)}.") from error
    except Exception as error:  # a parser may fail in any way on a damaged file
        raise DataError(
            f"{path} cannot be read ({first_line(error)}){instead(path, kind) or '; it may be damaged'}."
        ) from error


def missing_library(error: ModuleNotFoundError) -> DataError:
    """The sentence where a library that only some references need is not installed."""
    return DataError(
        f"Such data is read by the package {error.name}, which is not installed: pip install {error.name}."
    )
