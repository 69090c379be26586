"""A text file's content: decompressed, decoded, its line ends made plain; or a sentence about what it is instead.

A file of records (JSON Lines, a table) is not prose: its brackets and quotes would be predicted too, and would raise
every apparent effect. So it is not read as text, and the sentence names the reference that reads its column.
"""

import csv
import gzip
import io
import json
import re
import zlib
from pathlib import Path

from ablation_core.errors import DataError, first_line

MAX_TEXT_BYTES = 100_000_000
GZIP = b"\x1f\x8b"
_MAGIC = (  # the first bytes of a file that is not text → what it is, and what to do
    (b"PK\x03\x04", "a zip archive (or an office document)", "unpack it, or save it as plain text"),
    (b"PK\x05\x06", "an empty zip archive", "choose a text file"),
    (b"%PDF", "a PDF", "convert it to plain text first"),
    (b"{\\rtf", "an RTF document", "save it as plain text"),
    (b"PAR1", "a Parquet file", "name it parquet:{path}"),
    (b"ARROW1", "an Arrow file", "name its folder, hf:FOLDER"),
    (b"\x89PNG", "a PNG image", "choose a text file"),
    (b"\xff\xd8\xff", "a JPEG image", "choose a text file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it"),
    (b"SQLite format 3", "an SQLite database", "export a column of it as text"),
)  # fmt: skip
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_COLUMN_NAME = re.compile(r"[A-Za-z_][\w.-]{0,60}")
_MARKUP = re.compile(r"\s*<(\?xml|!doctype|html|head|body|svg|rss|feed|mediawiki|tei)\b", re.IGNORECASE)
_LINES = 40  # looked at, to tell a table


def read_text_file(path: Path, notes: list[str]) -> str:
    """The whole text of a UTF-8 file, perhaps gzipped.

    Args:
        notes: gets a sentence about what was changed.

    Raises:
        DataError: it is missing, a folder, too large, empty, not UTF-8 text, or holds records in place of text.
    """
    data = read_bytes(path)
    text, changed = decode_text(data, str(path))
    if changed:
        notes.append(changed)
    if looks := _records(text, path):
        raise DataError(looks)
    if _MARKUP.match(text):
        notes.append(f"{path} looks like HTML or XML: its tags are scored as text. Save its text without them.")
    return text


def read_bytes(path: Path) -> bytes:
    """A file's bytes, gunzipped where it is a gzip file.

    Raises:
        DataError: it cannot be read, or is too large.
    """
    too_large = f"{path} is larger than {MAX_TEXT_BYTES // 1_000_000} MB; cut a part of it and use that."
    if path == Path():
        raise DataError("No file is named. Write text: followed by the path of a UTF-8 text file.")
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder, not a file. For a folder of .txt files write folder:{path}.")
        if not path.is_file():
            raise DataError(f"There is no file {path}. Write text: followed by the path of a UTF-8 text file.")
        size = path.stat().st_size
        if size > MAX_TEXT_BYTES:
            raise DataError(too_large)
        with open(path, "rb") as file:
            data = file.read(size)  # no more: some of the system's own files have no size and no end
        if data[:2] == GZIP:
            with gzip.open(io.BytesIO(data)) as packed:
                data = packed.read(MAX_TEXT_BYTES + 1)
            if len(data) > MAX_TEXT_BYTES:
                raise DataError(too_large)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    return data


def unreadable(path: Path, error: Exception) -> DataError:
    """The sentence for a file that the system, or what unpacks it, does not give."""
    return DataError(f"The file {path} cannot be read: {getattr(error, 'strerror', None) or first_line(error)}.")


def decode_text(data: bytes, name: str) -> tuple[str, str]:
    """A text file's content with plain line ends, and a sentence about what was changed, or nothing.

    Raises:
        DataError: it is empty, binary, or not UTF-8.
    """
    for magic, what, instead in _MAGIC:
        if data.startswith(magic):
            raise DataError(f"{name} is a binary file: it looks like {what}; {instead.format(path=name)}.")
    if data.startswith(_UTF_16):
        raise not_utf_8(name, data, 0)
    if b"\0" in data:
        raise DataError(f"{name} is a binary file; a UTF-8 text file is needed.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf_8(name, data, error.start) from error
    if not text.strip():
        raise DataError(f"{name} is empty; a text file with something to predict is needed.")
    return plain_line_ends(text, name)


def not_utf_8(name: str, head: bytes, byte: int) -> DataError:
    """The sentence for text in another encoding than UTF-8.

    Args:
        head: the file's first bytes.
        byte: the first that cannot be read.
    """
    if head.startswith(_UTF_16):
        return DataError(f"{name} is UTF-16 text; save it as UTF-8 (iconv -f utf-16 -t utf-8).")
    return DataError(f"{name} is not UTF-8 text (byte {byte:,} cannot be read); convert it first.")


def not_utf_8_file(path: Path, byte: int) -> DataError:
    """The same for a file that was read piece by piece."""
    with open(path, "rb") as file:
        return not_utf_8(str(path), file.read(2), byte)


def plain_line_ends(text: str, name: str) -> tuple[str, str]:
    """The text with line feeds alone at its lines' ends, and a sentence where there was something else.

    A model reads a carriage return as a token of its own, and predicts it badly.
    """
    if "\r" not in text:
        return text, ""
    kinds = [kind for kind, there in (("CR LF", "\r\n" in text), ("CR", "\r" in text.replace("\r\n", ""))) if there]
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    return plain, f"The line ends of {name} ({' and '.join(kinds)}) were read as LF."


def _head(path: Path, size: int) -> bytes:
    """A file's first bytes, unpacked where they are gzipped; none where it cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(size)
        if head[:2] == GZIP:
            with gzip.open(path) as packed:
                head = packed.read(size)
    except (OSError, EOFError, zlib.error):
        return b""
    return head


def starts_as_record(path: Path) -> bool:
    """Whether a file is called one of JSON Lines, or begins as such a one would, whatever comes then."""
    if path.name.lower().removesuffix(".gz").endswith((".jsonl", ".ndjson", ".json")):
        return True
    return _head(path, 100).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def looks_like(path: Path) -> str:
    """What a file seems to hold, for a sentence: JSON Lines, CSV, tab-separated values, one JSON document, a Parquet file or
    text; nothing where it cannot be told."""
    head = _head(path, 1_000_000)
    if head.startswith(b"PAR1"):
        return "a Parquet file"
    text = head.decode("utf-8-sig", errors="replace")
    if b"\0" in head or not text.strip():
        return ""
    lines = [line for line in text.split("\n")[: 4 * _LINES] if line.strip()][:_LINES]
    if _is_json_lines(lines) or (len(lines) == 1 and _keys(lines[0])):
        return "JSON Lines"
    if _is_json(text):
        return "one JSON document"
    if delimiter := _delimiter(lines, path.name.lower().removesuffix(".gz")):
        return "tab-separated values" if delimiter == "\t" else "CSV"
    return "plain text"


def _records(text: str, path: Path) -> str:
    """A sentence where a file holds records: by its name, or by its first lines; nothing where it is text."""
    name = path.name.lower().removesuffix(".gz")
    lines = [line for line in text[:1_000_000].split("\n")[: 4 * _LINES] if line.strip()][:_LINES]
    if name.endswith((".jsonl", ".ndjson")) or _is_json_lines(lines):
        keys = _keys(lines[0])
        return (
            f"{path} looks like JSON Lines{_listed(keys, 'fields')}; as text its brackets and quotes would be scored. "
            f"Write jsonl:{path}#{_guess(keys)} to score a field."
        )
    if name.endswith(".json") or _is_json(text):
        return f"{path} looks like one JSON document, not text. Save it as JSON Lines and write jsonl:{path}."
    if delimiter := _delimiter(lines, name):
        columns = next(csv.reader(lines, delimiter=delimiter))
        kind = "tab-separated values" if delimiter == "\t" else "CSV"
        return (
            f"{path} looks like {kind}{_listed(columns, 'columns')}; as text its separators would be scored. "
            f"Write csv:{path}#{_guess(columns)} to score a column."
        )
    return ""


def _is_json_lines(lines: list[str]) -> bool:
    return len(lines) > 1 and all(_keys(line) for line in (lines if len(lines) < _LINES else lines[:-1]))


def _is_json(text: str) -> bool:
    """Whether the whole is one JSON object or list."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _keys(line: str) -> list[str]:
    """The fields of a line that is a JSON object; none where it is not."""
    try:
        row = json.loads(line) if line.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        return []
    return list(row) if isinstance(row, dict) else []


def _delimiter(lines: list[str], name: str) -> str:
    """What separates a table's columns: every row has as many as its header, which has names; nothing for a text."""
    if name.endswith((".csv", ".tsv")):
        return (
            "\t"
            if name.endswith(".tsv") or "\t" in lines[0]
            else ";"
            if lines[0].count(";") > lines[0].count(",")
            else ","
        )
    for delimiter in ("\t", ",", ";"):
        try:
            header, *rows = list(csv.reader(lines, delimiter=delimiter, strict=True)) or [[]]
        except csv.Error:
            rows, header = [], []
        whole = rows[:-1] if len(lines) == _LINES and len(rows) > 1 else rows  # the last may be cut in a quoted field
        named = len(header) > 1 and len(set(header)) == len(header) and all(map(_COLUMN_NAME.fullmatch, header))
        if named and whole and all(len(row) == len(header) for row in whole) and header not in rows:
            return delimiter
    return ""


def _guess(columns: list[str]) -> str:
    return "text" if "text" in columns or not columns else columns[0]


def _listed(names: list[str], what: str) -> str:
    return f" with the {what} {', '.join(names[:8])}{', …' if len(names) > 8 else ''}" if names else ""
