"""Which runs are under way, and parts of a page that are drawn again while one is."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from ablation_core.server.jobs import Job
from ablation_core.ui.shared import shared_jobs

MINE = "my long run"
_EVERY = 0.8  # seconds between two looks at a run under way


def me() -> str:
    """This session among those that start and watch jobs."""
    return st.session_state.setdefault("me", uuid.uuid4().hex)


def watched(
    is_out_of_date: Callable[[], bool], every: float | None
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Decorates a part of a page that is drawn again while a job is running; the one watcher of jobs on all pages.

    Args:
        is_out_of_date: whether the whole page has to be drawn again, as when the job has ended.
        every: seconds between two checks; None where nothing is running.
    """

    def decorate(draw: Callable[[], None]) -> Callable[[], None]:
        def drawn() -> None:
            if is_out_of_date():
                st.rerun()  # only a whole run of the page changes how often it checks
            draw()

        return st.fragment(drawn, run_every=every)

    return decorate


def watched_run(own: Path) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Decorates the part of a page that is drawn again while a run of the view or of this person is under way."""
    before = under_way(own)
    return watched(lambda: before != under_way(own), _EVERY if before else None)


def under_way(own: Path | None = None) -> list[str]:
    """The keys of the running jobs that concern this person: the one they started, and the view's own, whoever started it."""
    mine = st.session_state.get(MINE)
    here = None if own is None else str(own)
    return [key for key in dict.fromkeys((mine, here)) if key and running(key) is not None]


def running(own: Path | str) -> Job | None:
    """The job that fills this file, while it is running and nobody has stopped it."""
    job = shared_jobs().get(str(own))
    return job if job is not None and job.running and not job.stopping else None
