"""A file of finished pieces of a long run: each is kept as soon as it is computed, so that a run can be ended anywhere.

One JSON line a piece, behind a first line that says what the run is. A line cut short by a crash is dropped when the
file is opened again; floats are written so that they read back as they were.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ablation_core.errors import StatisticsError

VERSION = 1  # raised whenever the same run would give other numbers


class Ledger:
    """The pieces of one run that are done: name → record. `add` writes through to the disk."""

    def __init__(self, path: Path, done: dict[str, dict]) -> None:
        self.path, self.done = path, done

    def add(self, name: str, record: dict) -> None:
        """Keep a finished piece.

        Raises:
            StatisticsError: it cannot be written.
        """
        line = json.dumps({"piece": name, "record": record}, allow_nan=False) + "\n"
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StatisticsError(f"The run cannot be kept in {self.path}: {error}") from error
        self.done[name] = record


@contextmanager
def open_ledger(folder: Path, kind: str, run: dict) -> Iterator[Ledger]:
    """The ledger of this run, with what an earlier, interrupted one left; locked against a second process.

    Args:
        run: everything that decides the numbers; another run has another file.

    Raises:
        StatisticsError: the folder cannot be written to, the file is another run's, or the run is under way elsewhere.
    """
    header = json.dumps({"kind": kind, "version": VERSION, "run": run}, sort_keys=True) + "\n"
    path = folder / "runs" / f"{kind}-{hashlib.sha256(header.encode()).hexdigest()[:12]}.jsonl"
    lock = path.with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise StatisticsError(f"The run cannot be kept in {path.parent}: {error}") from error
    try:
        _lock(handle, path)
        yield Ledger(path, _read(path, header))
    finally:
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    """Hold the file until it is closed; the system lets go of it if this process dies."""
    try:
        import fcntl
    except ImportError:  # not on Windows, where a second process is not noticed
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StatisticsError(f"This very run is under way in another process ({path.name}); wait for it.") from error


def _read(path: Path, header: str) -> dict[str, dict]:
    """The finished pieces; what a crash cut short is removed from the file."""
    if not path.exists():
        path.write_text(header, encoding="utf-8")
        return {}
    whole, done = 0, {}
    with open(path, "rb") as file:
        for number, line in enumerate(file):
            if not line.endswith(b"\n"):
                break
            if number == 0 and line != header.encode():
                raise StatisticsError(f"{path} belongs to another run; move it away.")
            if number:
                try:
                    piece = json.loads(line)
                    done[piece["piece"]] = piece["record"]
                except (ValueError, KeyError, TypeError) as error:
                    raise StatisticsError(f"Line {number + 1} of {path} is damaged; remove the file.") from error
            whole += len(line)
    if whole == 0:
        path.write_text(header, encoding="utf-8")
    else:
        os.truncate(path, whole)
    return done
