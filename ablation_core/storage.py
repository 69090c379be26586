"""Where the project keeps what it makes or fetches: one cache folder, and nothing is written outside it.

Several processes may write there at once, and any may be killed: who writes holds a lock, which the system lets go of
when the process dies, and files appear whole or not at all.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).parent.parent
CACHE = Path(os.environ.get("ABLATION_CACHE") or PROJECT / "cached_stats")
_PARTIAL = ".partial-"
_YOUNG = 3600.0  # seconds: between making a folder and holding it nobody may take it for abandoned


def models_folder(cache: Path = CACHE) -> Path:
    """The folder of fetched models inside a cache folder."""
    return cache / "models"


def uploads_folder(cache: Path = CACHE) -> Path:
    """The folder of what people uploaded inside a cache folder."""
    return cache / "uploads"


@contextmanager
def held(path: Path, wait: bool) -> Iterator[bool]:
    """Hold a folder, or a file made for this, against everybody else for a `with` block.

    Yields:
        Whether it is held: not on Windows, nor on network drives without locks.

    Raises:
        BlockingIOError: somebody else holds it, and this is not to wait.
        OSError: it cannot be opened.
    """
    try:
        import fcntl
    except ImportError:
        yield False
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        yield _lock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    finally:
        os.close(handle)


def _lock(handle: int, how: int) -> bool:
    import fcntl

    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, also where the process is killed or the disk is full.

    What killed processes have left of files in this folder goes first.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path.parent, wait=True) as alone:
        for left in path.parent.glob(f"{_PARTIAL}*") if alone else ():
            left.unlink(missing_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=_PARTIAL, suffix=path.suffix)
        try:
            try:
                write_all(handle, content)
                os.fsync(handle)
            finally:
                os.close(handle)
            os.chmod(partial, 0o644)
            os.replace(partial, path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise


def write_all(handle: int, content: bytes) -> None:
    """Write to an open file, however many calls the system needs for it."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(handle, rest) :]


def check_writable(folder: Path) -> None:
    """Find out before a long computation whether its result can be kept.

    Raises:
        OSError: no file can be made in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def working_folder(parent: Path) -> Iterator[Path]:
    """A folder inside `parent` to prepare something in, removed at the end. What killed processes left goes first.

    Raises:
        OSError: it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent)
    with tempfile.TemporaryDirectory(dir=parent, prefix=_PARTIAL) as temporary, held(Path(temporary), wait=False):
        yield Path(temporary)


def _remove_abandoned(parent: Path) -> None:
    """The clock alone would not do: it may jump while a process is at work."""
    for path in parent.glob(f"{_PARTIAL}*"):
        try:
            if time.time() - path.stat().st_mtime > _YOUNG:
                with held(path, wait=False):
                    shutil.rmtree(path, ignore_errors=True)
        except OSError:  # somebody holds it, or has just finished
            continue
