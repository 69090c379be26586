"""Taking turns: one session at a time runs a shared model, and who waits sees it and can leave. Knows no Streamlit.

The lock is handed over in the order of asking: a job that takes it again and again would else keep all others out.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ablation_core.models.loaded import LoadedModel

T = TypeVar("T")
_PATIENCE = 0.4  # seconds of waiting before it is said (again)


class FairLock:
    """A re-entrant lock that goes to the thread that has waited longest."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._owner: int | None = None
        self._depth = 0
        self._queue: deque[tuple[int, threading.Event]] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As `threading.RLock.acquire`."""
        ticket = self._ask(queue=blocking)
        if ticket is None:
            return self._is_owned()
        try:
            if ticket[1].wait(None if timeout < 0 else timeout):
                return True
        except BaseException:  # an interrupt
            self._give_up(ticket)
            raise
        return not self._leave(ticket)

    def wait_in_line(self, every: float, say: Callable[[], object]) -> None:
        """Acquire; `say` is called every so many seconds meanwhile, and what it raises ends the waiting."""
        ticket = self._ask()
        if ticket is None:
            return
        try:
            while not ticket[1].wait(every):
                say()
        except BaseException:
            self._give_up(ticket)
            raise

    def _ask(self, queue: bool = True) -> tuple[int, threading.Event] | None:
        """None where there is nothing to wait for; else, if wanted, a place in the queue."""
        me = threading.get_ident()
        with self._guard:
            if self._owner in (me, None):
                self._owner, self._depth = me, self._depth + 1
                return None
            if not queue:
                return None
            ticket = (me, threading.Event())
            self._queue.append(ticket)
            return ticket

    def _leave(self, ticket: tuple[int, threading.Event]) -> bool:
        """Whether the place was given up; False where the lock was handed over at the last moment."""
        with self._guard:
            if ticket[1].is_set():
                return False
            self._queue.remove(ticket)
            return True

    def _give_up(self, ticket: tuple[int, threading.Event]) -> None:
        if not self._leave(ticket):
            self.release()

    def release(self) -> None:
        """As `threading.RLock.release`; the next in the queue has it at once."""
        with self._guard:
            if self._owner != threading.get_ident():
                raise RuntimeError("cannot release a lock that another thread, or none, holds")
            self._depth -= 1
            if self._depth:
                return
            if self._queue:
                self._owner, handed = self._queue.popleft()
                self._depth = 1
                handed.set()
            else:
                self._owner = None

    def waits(self, thread: int | None) -> bool:
        """Whether the thread of this identity stands in the queue."""
        with self._guard:
            return any(waiting == thread for waiting, _ in self._queue)

    def _is_owned(self) -> bool:
        """As `threading.RLock` has it: whether this thread holds it."""
        return self._owner == threading.get_ident()

    def __enter__(self) -> FairLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def fair_lock(model: LoadedModel) -> FairLock:
    """The model's lock, handed over in the order of asking. A plain one is replaced: ask before the model is shared."""
    if not isinstance(model.lock, FairLock):
        model.lock = FairLock()
    return model.lock


def waiting_words(ref: str) -> str:
    return f"waiting for {ref}, which another computation on this server is using"


@contextmanager
def turn(model: LoadedModel, say: Callable[[str], object]) -> Iterator[None]:
    """Hold a model for a step.

    Args:
        say: shows the words to who waits; called again and again meanwhile. What it raises ends the waiting: on a page
            that is where a change of mind, or a closed tab, is noticed.
    """
    words = waiting_words(model.ref)
    lock = fair_lock(model)
    lock.wait_in_line(_PATIENCE, lambda: say(f"{words[0].upper()}{words[1:]} …"))
    try:
        yield
    finally:
        lock.release()


def in_turns(model: LoadedModel, steps: Iterator[T], say: Callable[[str], object]) -> Iterator[T]:
    """What `steps` yields, each step in a turn of its own."""
    while True:
        with turn(model, say):
            try:
                one = next(steps)
            except StopIteration:
                return
        yield one
