"""A file of finished work units of a long run: each is kept as soon as it is computed, so that a run can be ended anywhere.

One JSON line per unit with its digest, behind a first line that says what the run is. A line cut short by a crash is
dropped when the file is opened again, and so is a damaged one: its unit is measured again. Floats are written so that
they read back as they were.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ablation_core.errors import StatisticsError
from ablation_core.storage import file_lock, reading_places, write_all, write_atomic

_log = logging.getLogger(__name__)
VERSION = 2  # raised whenever the same run would give other numbers


class Ledger:
    """The units of one run that are done: name → record. `add` writes through to the disk."""

    def __init__(self, path: Path, done: dict[str, dict]) -> None:
        self.path, self.done = path, done

    def add(self, name: str, record: dict) -> None:
        """Keep a finished unit.

        Raises:
            StatisticsError: it cannot be written.
        """
        kept = {"piece": name, "record": record}
        line = json.dumps(kept | {"digest": _digest(name, record)}, allow_nan=False) + "\n"
        try:
            with open(self.path, "ab", buffering=0) as file:
                size = file.tell()
                try:
                    write_all(file.fileno(), line.encode())
                    os.fsync(file.fileno())
                except OSError:  # the disk is full: half a line must not stay
                    with suppress(OSError):
                        os.truncate(file.fileno(), size)
                    raise
        except OSError as error:
            raise StatisticsError(
                f"The run cannot be kept in {self.path}: {error}. What was finished before is kept; make room and run it "
                f"again."
            ) from error
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
    with ExitStack() as stack:
        try:
            lock = path.with_suffix(".lock")
            lock.parent.mkdir(parents=True, exist_ok=True)
            lock.touch()
            stack.enter_context(file_lock(lock, wait=False))
            for place in reading_places(folder)[1:]:  # a published run is gone on with, in a copy
                if (published := run_path(place, kind, run)).exists() and not path.exists():
                    write_atomic(path, published.read_bytes())
            ledger = Ledger(path, _read(path, header))
        except BlockingIOError as error:
            raise StatisticsError(
                f"This very run is under way in another process ({path.name}); wait for it."
            ) from error
        except OSError as error:
            raise StatisticsError(f"The run cannot be kept in {path.parent}: {error}") from error
        try:
            yield ledger
        finally:
            if not ledger.done:  # refused or stopped before its first unit: nothing stays behind
                path.unlink(missing_ok=True)


@dataclass(frozen=True)
class KeptRun:
    """What is left of a run in the cache folder: what it was, and its finished units."""

    path: Path
    run: dict
    done: dict[str, dict]


def find_runs(folder: Path, kind: str, model_fingerprint: str, data_ref: str | None = None) -> list[KeptRun]:
    """The runs of this kind and model that have any unit; nothing is locked or changed, what is damaged is left out.

    With the usual cache folder come those published with the project, but for runs that it has gone on with itself.

    Args:
        data_ref: runs on this data only; by default on any.
    """
    runs: list[KeptRun] = []
    paths: dict[str, Path] = {}
    for place in reversed(reading_places(folder)):
        paths |= {path.name: path for path in (place / "runs").glob(f"{kind}-*.jsonl")}
    for _, path in sorted(paths.items()):
        try:
            first, *lines = path.read_bytes().split(b"\n")
            header = json.loads(first)
            of_model = header["version"] == VERSION and header["run"]["model"]["fingerprint"] == model_fingerprint
            if of_model and (data_ref is None or header["run"]["data"]["ref"] == data_ref):
                done = dict(filter(None, map(_record_of, lines[:-1])))
                runs += [KeptRun(path, header["run"], done)] if done else []
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
    return runs


def run_path(folder: Path, kind: str, run: dict) -> Path:
    """The file that a run is kept in, whether it has begun or not."""
    digest = hashlib.sha256(_header(kind, run).encode()).hexdigest()
    return folder / "runs" / f"{kind}-{digest[:12]}.jsonl"


def _header(kind: str, run: dict) -> str:
    return json.dumps({"kind": kind, "version": VERSION, "run": run}, sort_keys=True) + "\n"


def _digest(name: str, record: dict) -> str:
    return hashlib.sha256(json.dumps([name, record]).encode()).hexdigest()[:16]


def _record_of(line: bytes) -> tuple[str, dict] | None:
    """A line's unit and record; None where it is damaged. Lines without a digest are of an earlier version."""
    try:
        kept = json.loads(line)
        name, record = kept["piece"], kept["record"]
        whole = isinstance(name, str) and isinstance(record, dict)
        return (name, record) if whole and kept.get("digest") in (None, _digest(name, record)) else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _read(path: Path, header: str) -> dict[str, dict]:
    """The finished units; what a crash cut short, or damage made unreadable, is removed from the file."""
    data = path.read_bytes() if path.exists() else b""
    first, *lines = data.splitlines(keepends=True) or [b""]
    if not first.endswith(b"\n"):
        write_atomic(path, header.encode())
        return {}
    if first != header.encode():
        raise StatisticsError(f"{path} is damaged, or another run's: its first line is not as expected. Move it away.")
    units = [_record_of(line) if line.endswith(b"\n") else None for line in lines]
    if None in units:
        write_atomic(path, first + b"".join(line for line, unit in zip(lines, units, strict=True) if unit))
    if damaged := sum(unit is None and line.endswith(b"\n") for line, unit in zip(lines, units, strict=True)):
        _log.warning("%d damaged lines of %s were dropped; what they held is measured again.", damaged, path)
    return dict(filter(None, units))
