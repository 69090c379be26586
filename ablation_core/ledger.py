"""A file of finished pieces of a long run: each is kept as soon as it is computed, so that a run can be ended anywhere.

One JSON line a piece, behind a first line that says what the run is. A line cut short by a crash is dropped when the
file is opened again; floats are written so that they read back as they were.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ablation_core.errors import StatisticsError

VERSION = 2  # raised whenever the same run would give other numbers


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
    header, path = _header(kind, run), run_path(folder, kind, run)
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


@dataclass(frozen=True)
class KeptRun:
    """What is left of a run in the cache folder: what it was, and its finished pieces."""

    path: Path
    run: dict
    done: dict[str, dict]


def find_runs(folder: Path, kind: str, model_fingerprint: str) -> list[KeptRun]:
    """The runs of this kind and model that have any piece; nothing is locked or changed, damaged files are left out."""
    runs = []
    for path in sorted((folder / "runs").glob(f"{kind}-*.jsonl")):
        try:
            lines = path.read_bytes().splitlines(keepends=True)
            header = json.loads(lines[0])
            if header["version"] == VERSION and header["run"]["model"]["fingerprint"] == model_fingerprint:
                pieces = [json.loads(line) for line in lines[1:] if line.endswith(b"\n")]
                done = {piece["piece"]: piece["record"] for piece in pieces}
                runs += [KeptRun(path, header["run"], done)] if done else []
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return runs


def run_path(folder: Path, kind: str, run: dict) -> Path:
    """The file that a run is kept in, whether it has begun or not."""
    digest = hashlib.sha256(_header(kind, run).encode()).hexdigest()
    return folder / "runs" / f"{kind}-{digest[:12]}.jsonl"


def _header(kind: str, run: dict) -> str:
    return json.dumps({"kind": kind, "version": VERSION, "run": run}, sort_keys=True) + "\n"


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
