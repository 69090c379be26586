"""Where saved results lie: a folder, or a visitor's session on a shared server; and the file of each name."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ablation_core.errors import ReportError, a_type
from ablation_core.storage import CACHE, write_atomic

ENDING = ".result.zip"
MOST_IN_SESSION = 100_000_000  # bytes
MOST_NAME = 80  # characters


class Shelf(Protocol):
    """Files by name."""

    def files(self) -> list[str]: ...
    def read(self, file: str) -> bytes: ...
    def write(self, file: str, content: bytes) -> None: ...
    def delete(self, file: str) -> None: ...


@dataclass(frozen=True)
class FolderShelf:
    """The folder `saved` of a cache folder."""

    cache: Path = CACHE

    @property
    def folder(self) -> Path:
        return self.cache / "saved"

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob(f"*{ENDING}") if path.is_file())

    def read(self, file: str) -> bytes:
        return (self.folder / file).read_bytes()

    def write(self, file: str, content: bytes) -> None:
        write_atomic(self.folder / file, content)

    def delete(self, file: str) -> None:
        (self.folder / file).unlink(missing_ok=True)


@dataclass(frozen=True, eq=False)
class SessionShelf:
    """In memory, for as long as a visitor's session lasts; at most so many bytes."""

    kept: dict[str, bytes] = field(default_factory=dict)
    most: int = MOST_IN_SESSION

    def files(self) -> list[str]:
        return sorted(self.kept)

    def read(self, file: str) -> bytes:
        try:
            return self.kept[file]
        except KeyError as error:
            raise FileNotFoundError(file) from error

    def write(self, file: str, content: bytes) -> None:
        others = sum(len(one) for name, one in self.kept.items() if name != file)
        if others + len(content) > self.most:
            raise ReportError(
                f"A session keeps at most {self.most // 1_000_000} MB of results on this server; delete some, or export them."
            )
        self.kept[file] = content

    def delete(self, file: str) -> None:
        self.kept.pop(file, None)


def checked_name(name: str) -> str:
    """A name without spaces around it.

    Raises:
        ReportError: it is empty, too long, or cannot be printed.
    """
    if not isinstance(name, str):
        raise ReportError(f"A saved result's name is a text, not {a_type(name)}.")
    name = name.strip()
    if not name or len(name) > MOST_NAME or not name.isprintable():
        raise ReportError(f"A saved result's name has 1 to {MOST_NAME} printable characters, not {name[:MOST_NAME]!r}.")
    return name


def check_free(shelf: Shelf, name: str) -> str:
    """A name that a result can be kept under.

    Raises:
        ReportError: it is taken, or cannot be one.
    """
    name = checked_name(name)
    if file_of(name) in shelf.files():
        raise ReportError(f"There is already a saved result named {name!r}; choose another name, or delete that one.")
    return name


def file_of(name: str) -> str:
    """A name's file: readable, and another one for every name."""
    words = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40] or "result"
    return f"{words}-{hashlib.sha256(name.encode()).hexdigest()[:10]}{ENDING}"
