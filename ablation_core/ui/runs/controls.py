"""Long runs on a page: started and stopped by buttons, drawn from what is saved.

A page draws the ledger's finished units, whoever computes them; a job only says how far it is. So the results of a
stopped run, of another session or of the command line are shown at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import streamlit as st

from ablation_core.errors import AblationError, as_markdown
from ablation_core.server import access
from ablation_core.server.turns import FairLock
from ablation_core.storage import CACHE
from ablation_core.ui.runs.choice import shown_key
from ablation_core.ui.runs.expected import say
from ablation_core.ui.runs.watching import MINE, me, running, under_way, watched
from ablation_core.ui.shared import shared_jobs

FOLDER = CACHE
WITH_RUNS = ("Head map", "Pruning curves", "Tasks")
_REFUSED = "long run refused"


def controls(
    own: Path,
    name: str,
    steps: Callable[[], Generator[Any]],
    begin: str | None,
    lock: FairLock | None = None,
    saves: bool = True,
    aside: bool = False,
    seconds: Callable[[], float | None] = lambda: None,
) -> None:
    """The progress of the view's own run with a Stop button or, where something is left to do, a button that starts it.

    Args:
        name: the run's name, for readers.
        begin: the label of that button; None where nothing is left.
        lock: that of the model, where this server runs it.
        saves: whether it saves what it finishes.
        aside: whether something is shown already, so that starting is not the main thing to do.
        seconds: how long it will take, where that can be said.
    """
    # The button comes first, and stays where it is when another run begins or ends: what moves under a click loses it.
    with st.container(horizontal=True, vertical_alignment="center"):
        if str(own) in under_way(own):
            _show_progress(str(own))
        elif begin is not None and saves and not access.ACCESS.keeps_runs:
            st.caption("This server saves nothing, so long runs are not offered; earlier results are shown.")
        elif begin is not None:
            begin_button(own, name, steps, begin, lock, saves, aside)
            say(seconds())
        for key in under_way(own):
            if key != str(own):
                _show_progress(key)
    if refused := st.session_state.pop(_REFUSED, None):
        st.error(as_markdown(refused), icon="⚠️")
    job = shared_jobs().get(str(own))
    if job is not None and not job.running and job.error:
        st.error(as_markdown(job.error), icon="⚠️")


def begin_button(
    own: Path,
    name: str,
    steps: Callable[[], Generator[Any]],
    begin: str,
    lock: FairLock | None = None,
    saves: bool = True,
    aside: bool = False,
) -> None:
    """The button alone, for a second run on a page whose `controls` show the progress of either."""
    st.button(
        begin, key=f"start {own.name}", type="secondary" if aside else "primary", on_click=_start, args=(own, name, steps, lock),
        help="It continues while you look at other pages, and can be stopped"
        + (": finished units are saved." if saves else "."),
    )  # fmt: skip


def begin_once(key: str, name: str, steps: Callable[[], Generator[Any]], lock: FairLock) -> None:
    """Start a short run by itself, unless one of this person's is running or they have met this one before: a run that
    was stopped stays stopped; one whose result was dropped from memory is made again."""
    flag = f"begun {key}"
    if (flag not in st.session_state or shared_jobs().get(key) is None) and not under_way():
        st.session_state[flag] = True
        try:
            shared_jobs().start(key, name, steps, lock, me())
            st.session_state[MINE] = key
        except AblationError:
            st.session_state.pop(flag)  # the server is busy; the next look tries again


def show_mine(title: str) -> None:
    """In the sidebar of pages without runs of their own: the run that this person has started, while it is running."""
    if title in WITH_RUNS or not under_way():
        return

    @watched(lambda: not under_way(), 2.0)
    def progress() -> None:
        for key in under_way():
            _show_progress(key)

    progress()


def _show_progress(key: str) -> None:
    job = shared_jobs().get(key)
    if job is None:  # it has just ended
        return
    job.look(me())
    progress_column, button_column = st.columns([4, 1], vertical_alignment="center")
    waiting = "waiting for the model, which another computation is using"
    state = waiting if job.waiting else f"{job.share:.0%}{job.time_left}"
    progress_column.progress(job.share, f"{job.name}: {state}")
    if not job.may_be_stopped_by(me()):
        return  # started by somebody else, who is still there
    button_column.button(
        "Stop", key=f"stop {key}", on_click=job.stop, width="stretch", help="Finished units are saved."
    )


def _start(own: Path, name: str, steps: Callable[[], Generator[Any]], lock: FairLock | None) -> None:
    """Start; an earlier run of the same person is stopped, and its finished units stay."""
    jobs, earlier = shared_jobs(), st.session_state.get(MINE)
    if earlier and earlier != str(own) and (job := running(earlier)):
        job.stop()
    try:
        jobs.start(str(own), name, steps, lock, me())
        st.session_state[MINE] = str(own)
        st.session_state[shown_key(own)] = own
    except AblationError as error:
        st.session_state[_REFUSED] = str(error)
