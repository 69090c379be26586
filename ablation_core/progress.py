"""What `progress=` means: nothing, a function of (done, total), or True for a bar (in a notebook, a notebook's bar).

ablate(model, data, "3.2", statistics="python-docs", progress=True)
ablate(model, data, "3.2", statistics="python-docs", progress=lambda done, total: print(done, total))
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

Progress = Callable[[int, int], None]
ShareProgress = Callable[[float], None]


class Growing(Protocol):
    """A result that may not be whole yet."""

    @property
    def share(self) -> float: ...


Result = TypeVar("Result", bound=Growing)


def finished(steps: Iterable[Result], progress: ShareProgress = lambda share: None) -> Result:
    """The last of a run's results, each more whole than the one before; `progress` is called with the share of each.

    result = finished(sweep_steps(model, data, spec, statistics, folder))
    """
    for result in steps:
        progress(result.share)
    return result


@contextmanager
def reporting(progress: Progress | bool | None, words: str, unit: str = "batch") -> Iterator[Progress | None]:
    """Yields the function that is told (done, total).

    Args:
        words, unit: what the bar counts, where there is one.
    """
    if not isinstance(progress, bool):
        yield progress
    elif not progress:
        yield None
    else:
        with progress_bar(words, unit) as show:
            yield show


@contextmanager
def reporting_share(progress: ShareProgress | bool | None, words: str) -> Iterator[ShareProgress]:
    """The same for what reports the share done, from 0 to 1."""
    if not isinstance(progress, bool):
        yield progress or (lambda share: None)
    else:
        with reporting(progress, words, "%") as show:
            yield in_per_cent(show or (lambda done, total: None))


@contextmanager
def progress_bar(words: str, unit: str) -> Iterator[Progress]:
    """A bar on standard error, or below the cell of a notebook; yields a function of (done, total)."""
    with warnings.catch_warnings():  # without ipywidgets a notebook shows the bar as text, which is no reason to warn
        warnings.filterwarnings("ignore", message="IProgress not found")
        from tqdm.auto import tqdm

    with tqdm(desc=words, unit=unit) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def in_per_cent(progress: Progress) -> ShareProgress:
    """From shares to a bar of a hundred."""
    return lambda share: progress(round(100 * share), 100)
