"""Digests of what texts are read from, cheap whatever its size."""

import hashlib
import os
from pathlib import Path

from ablation_core.data.files.formats import Table, folder_files

WHOLE_BYTES = 16_000_000  # files up to this size are digested whole
_END_BYTES = 1_000_000


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
    return _file_digest(path) if os.path.isfile(path) else ""


def _file_digest(path: Path) -> str:
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
