"""Where the project keeps what it makes or fetches: one cache folder, and nothing is written outside it; and its JSON.

What comes with the project is only ever read; an installed package is never written to.

Several processes may write there at once, and any may be killed: who writes holds a lock, which the system lets go of
when the process dies, and files appear whole or not at all.
"""

import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

_PACKAGE = Path(__file__).parent
PROJECT = _PACKAGE.parent  # the source tree; where the package is installed, the folder that it lies in
INSTALLED = not (PROJECT / "app.py").is_file()
APP = _PACKAGE / "app" if INSTALLED else PROJECT  # app.py, pages/ and .streamlit/
# Statistics and runs that come with the project. In the source tree they lie in the cache folder itself.
PUBLISHED = _PACKAGE / "bundled" / "published" if INSTALLED else PROJECT / "cached_stats"


def _cache_folder() -> Path:
    """The cache folder: what the environment names, the source tree's, or else one of the user's own."""
    if named := os.environ.get("ABLATION_CACHE"):
        return Path(named)
    if not INSTALLED:
        return PUBLISHED
    from platformdirs import user_cache_path

    return user_cache_path("ablation-explorer")


CACHE = _cache_folder()
NUMBER_OR_NULL = (int, float, NoneType)
_PARTIAL = ".partial-"
_YOUNG = 3600.0  # seconds: between making a folder and holding it nobody may take it for abandoned


def project_version() -> str:
    """The version of the project. pyproject.toml alone has it; an installed package has it from there."""
    if INSTALLED:
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("ablation-explorer")
        except PackageNotFoundError:  # a copy of the folder, without the project around it
            return "unknown"
    import tomllib

    return tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def reading_places(cache: Path = CACHE) -> tuple[Path, ...]:
    """Where kept things are looked for: the cache folder, and behind the usual one what comes with the project."""
    return (cache, PUBLISHED) if cache == CACHE != PUBLISHED else (cache,)


def models_folder(cache: Path = CACHE) -> Path:
    """The folder of fetched models inside a cache folder."""
    return cache / "models"


def uploads_folder(cache: Path = CACHE) -> Path:
    """The folder of what people uploaded inside a cache folder."""
    return cache / "uploads"


@contextmanager
def file_lock(path: Path, wait: bool) -> Iterator[bool]:
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


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, also where the process is killed or the disk is full.

    What killed processes have left of files in this folder goes first.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path.parent, wait=True) as alone:
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
    with tempfile.TemporaryDirectory(dir=parent, prefix=_PARTIAL) as temporary, file_lock(Path(temporary), wait=False):
        yield Path(temporary)


def _remove_abandoned(parent: Path) -> None:
    """The clock alone would not do: it may jump while a process is at work."""
    for path in parent.glob(f"{_PARTIAL}*"):
        try:
            if time.time() - path.stat().st_mtime > _YOUNG:
                with file_lock(path, wait=False):
                    shutil.rmtree(path, ignore_errors=True)
        except OSError:  # somebody holds it, or has just finished
            continue


def matches_schema(value: Any, schema: Any) -> bool:
    """Whether a value from a JSON file is built as expected, before anything is looked up in it.

    >>> matches_schema({"loss": 3.5, "more": 1}, {"loss": NUMBER_OR_NULL})
    True

    Args:
        schema: a type or several; a dictionary: an object with at least these fields, each of its schema; a list of one
            schema: a list of such. A truth value is not a number.
    """
    if isinstance(schema, dict):
        return isinstance(value, dict) and all(
            name in value and matches_schema(value[name], part) for name, part in schema.items()
        )
    if isinstance(schema, list):
        return isinstance(value, list) and all(matches_schema(one, schema[0]) for one in value)
    kinds = schema if isinstance(schema, tuple) else (schema,)
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def as_number(value: float | None) -> float | None:
    """JSON has neither NaN nor infinity: they become null."""
    return value if value is not None and math.isfinite(value) else None
