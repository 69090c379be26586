"""Long runs behind the pages: each in a thread of its own, watched from anywhere. Knows no Streamlit.

A run is a generator of partial results that each have a `share` of the work done; it saves what it finishes itself, so
that a job can be stopped, or die with its server, at any time. Two people who ask for the same run watch one job. A job
that nobody has looked at for a while ends by itself.
"""

import threading
import time
from collections.abc import Callable, Generator
from typing import Any

from ablation_core.errors import AblationError
from ablation_core.server.turns import FairLock

MOST_AT_ONCE = 3
PATIENCE = 180.0  # seconds without anybody looking: a hidden tab still asks once a minute
_PACE = 0.02  # of the work: from less, the rest cannot be told
_PRESENT = 5.0  # seconds since somebody's last look in which they are still there
_OWNER_PRESENT = 90.0  # the same of who started it: a hidden tab still asks once a minute
_ENDED = 32  # jobs that have ended, kept for what they found
_DEFECT = "The run was ended by a defect of the program; finished units are saved. The server's log has the details."


class Job:
    """A run under way, or the end of one.

    Attributes:
        name: what it is, for people.
        result: the newest partial result; None before the first.
        error: a sentence, where it ended by one.
    """

    def __init__(
        self,
        name: str,
        steps: Callable[[], Generator[Any]],
        lock: FairLock | None = None,
        after: "Job | None" = None,
        patience: float = PATIENCE,
        owner: str | None = None,
    ) -> None:
        self.name = name
        self.owner = owner
        self.result: Any = None
        self.error: str | None = None
        self._steps, self._lock, self._after, self._patience = steps, lock, after, patience
        self._stop = threading.Event()
        self._looked = time.monotonic()
        self._watchers: dict[str, float] = {}  # who they are, and when they last looked
        self._first: tuple[float, float] | None = None  # when the share began to grow, and from what
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        return self.running and self._stop.is_set()

    @property
    def waiting(self) -> bool:
        """Whether it stands in line for the model that it runs."""
        return self._lock is not None and self._lock.waits(self._thread.ident)

    @property
    def share(self) -> float:
        return 0.0 if self.result is None else self.result.share

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far, of this job alone; None until there is a pace."""
        if self._first is None:
            return None
        began, share = self._first
        gained = self.share - share
        return None if gained < _PACE else (time.monotonic() - began) * (1 - self.share) / gained

    @property
    def time_left(self) -> str:
        """The end of a sentence about its progress: ", 1 min 5 s left"; empty until there is a pace."""
        left = self.seconds_left
        if left is None:
            return ""
        minutes, seconds = divmod(round(left), 60)
        return f", {minutes} min {seconds} s left" if minutes else f", {seconds} s left"

    def look(self, who: str | None = None) -> None:
        """Somebody is watching."""
        self._looked = time.monotonic()
        if who is not None:
            self._watchers[who] = self._looked

    def leave(self, who: str) -> None:
        """One of those that watch goes: the job ends if they were the last. Returns at once."""
        self._watchers.pop(who, None)
        if not any(time.monotonic() - looked < _PRESENT for looked in list(self._watchers.values())):
            self.stop()

    def may_be_stopped_by(self, who: str) -> bool:
        """Whether this person may stop it: who started it, or anybody once that one has gone."""
        looked = self._watchers.get(self.owner or "", 0.0)
        return self.owner in (None, who) or time.monotonic() - looked > _OWNER_PRESENT

    def stop(self) -> None:
        """End after the batch under way; returns at once."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        if self._after is not None:
            self._after.wait()  # it holds the run's file until its last batch is done
        error: str | None = _DEFECT
        steps = self._steps()
        del self._after, self._steps  # an ended job is kept for its result, not for a model
        try:
            for result in steps:
                self.result = result
                if self._first is None or result.share <= self._first[1]:
                    self._first = time.monotonic(), result.share  # a cluster may take a while to begin
                if self._stop.is_set() or time.monotonic() - self._looked > self._patience:
                    break
            error = None
        except AblationError as refused:
            error = str(refused)
        finally:
            steps.close()
            self.error = error


class Jobs:
    """The jobs of a server, by what they compute; at most so many at once.

    Args:
        patience: seconds without anybody looking after which a job ends.
    """

    def __init__(self, most: int = MOST_AT_ONCE, patience: float = PATIENCE) -> None:
        self._most, self._patience = most, patience
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Job | None:
        return self._jobs.get(key)

    def running(self) -> dict[str, Job]:
        """Those under way and not about to end."""
        return {key: job for key, job in list(self._jobs.items()) if job.running and not job.stopping}

    def start(
        self,
        key: str,
        name: str,
        steps: Callable[[], Generator[Any]],
        lock: FairLock | None = None,
        owner: str | None = None,
    ) -> Job:
        """The job of this key, started unless it is running.

        Args:
            lock: that of the model it runs here.
            owner: who starts it, and alone may stop it while they are present.

        Raises:
            AblationError: too many others are.
        """
        with self._lock:
            under_way = self.running()
            if key in under_way:
                return under_way[key]
            if len(under_way) >= self._most:
                names = "; ".join(job.name for job in under_way.values())
                raise AblationError(
                    f"{len(under_way)} computations are already running on this server ({names}). Stop one, or wait."
                )
            ended = [other for other, job in self._jobs.items() if not job.running and other != key]
            for other in ended[:-_ENDED]:
                del self._jobs[other]
            job = Job(name, steps, lock, self._jobs.pop(key, None), self._patience, owner)
            if owner is not None:
                job.look(owner)
            self._jobs[key] = job  # behind those that began before it
            return job

    def forget(self, key: str) -> None:
        """Drop a job that has ended, so that its error is not shown again."""
        with self._lock:
            job = self._jobs.get(key)
            if job is not None and not job.running:
                del self._jobs[key]
