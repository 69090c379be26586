"""Long runs on a page: begun and stopped by buttons, watched as they grow, drawn from what is kept.

A page draws the ledger's finished pieces, whoever computes them; a job only says how far it is. So what a stopped run,
another session or the command line has left shows at once.
"""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import streamlit as st

from ablation_core.errors import AblationError
from ablation_core.folders import CACHE
from ablation_core.jobs import Job
from ablation_core.server import shared_jobs

FOLDER = CACHE
WITH_RUNS = ("Head map", "Pruning curves")
_EVERY = 0.8  # seconds between two looks at a run under way
_MINE = "my long run"
_REFUSED = "long run refused"


def choose_run(own: Path, kept: dict[Path, Any], view: dict, words: Callable[[Any], str]) -> Path:
    """Which kept run is shown: the view's own where it has begun, else the largest of the same data; a box to choose.

    Args:
        own: the file of the view's own run.
        kept: results by their files, the largest first.
        view: the description of the view's own run.
        words: how much of a result is there, in words.
    """
    fitting = [path for path, result in kept.items() if result.description["data"]["ref"] == view["data"]["ref"]]
    options = [own, *(path for path in fitting if path != own)]
    if len(options) == 1:
        return own
    begun = own in kept or _running(own) is not None

    def label(path: Path) -> str:
        if path not in kept:
            return f"this view: {view['data']['predictions']:,} predictions, not measured yet"
        result = kept[path]
        text = f"{result.description['data']['predictions']:,} predictions, {words(result)}"
        return f"this view: {text}" if path == own else f"kept: {text}{_differences(result.description, view)}"

    return st.selectbox(
        "Shown",
        options,
        index=0 if begun else 1,
        format_func=label,
        key=_shown_key(own),
        help="Finished heads and points are kept in the cache folder; runs with other settings can be shown too.",
    )


def _shown_key(own: Path) -> str:
    return f"shown for {own.name}"


def _differences(there: dict, view: dict) -> str:
    """What, other than the number of predictions, a kept run was made with."""
    found = []
    if there["bins"] != view["bins"]:
        found.append(f"{there['bins']} bins")
    digests = [described["statistics"] and described["statistics"]["digest"] for described in (there, view)]
    if digests[0] != digests[1]:
        found.append("other statistics")
    mine, other = view["data"], there["data"]
    if mine["predictions"] == other["predictions"] and mine["fingerprint"] != other["fingerprint"]:
        found.append("another version of the data")
    return f" ({', '.join(found)})" if found else ""


def watched(own: Path) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Decorates the part of a page that is drawn again and again while a run of the view or of this person is under way."""
    before = _under_way(own)

    def decorate(draw: Callable[[], None]) -> Callable[[], None]:
        def drawn() -> None:
            if before != _under_way(own):
                st.rerun()  # one has begun or ended: only a whole run of the page changes how often it looks
            draw()

        return st.fragment(drawn, run_every=_EVERY if before else None)

    return decorate


def controls(own: Path, name: str, steps: Callable[[], Generator[Any]], begin: str | None) -> None:
    """The progress of the view's own run with a Stop button or, where something is left to do, a button that begins.

    Args:
        name: what the run is, for people.
        begin: the words of that button; None where nothing is left.
    """
    for key in _under_way(own):
        if key != str(own):
            _show_progress(key)
    if str(own) in _under_way(own):
        _show_progress(str(own))
    elif begin is not None:
        st.button(begin, key=f"start {own.name}", type="primary", on_click=_start, args=(own, name, steps))
    if refused := st.session_state.pop(_REFUSED, None):
        st.error(refused, icon="⚠️")
    job = shared_jobs().get(str(own))
    if job is not None and not job.running and job.error:
        st.error(job.error, icon="⚠️")


def begin_once(key: str, name: str, steps: Callable[[], Generator[Any]]) -> None:
    """Begin a short run by itself, the first time that this person meets it, unless one of theirs is under way."""
    flag = f"begun {key}"
    if flag not in st.session_state and not _under_way():
        st.session_state[flag] = True
        try:
            shared_jobs().start(key, name, steps)
            st.session_state[_MINE] = key
        except AblationError:
            del st.session_state[flag]  # the server is busy; the next look tries again


def show_mine(title: str) -> None:
    """On the sidebar of pages without runs of their own: the run that this person has begun, while it is under way."""
    if title in WITH_RUNS or not _under_way():
        return

    def drawn() -> None:
        if not _under_way():
            st.rerun()
        for key in _under_way():
            _show_progress(key)

    st.fragment(drawn, run_every=2.0)()


def _show_progress(key: str) -> None:
    job = shared_jobs().get(key)
    if job is None:  # it has just ended
        return
    job.look()
    left = job.seconds_left
    minutes, seconds = divmod(round(left or 0), 60)
    time_left = "" if left is None else f", {minutes} min {seconds} s left" if minutes else f", {seconds} s left"
    progress_column, button_column = st.columns([4, 1], vertical_alignment="center")
    progress_column.progress(job.share, f"{job.name}: {job.share:.0%}{time_left}")
    button_column.button(
        "Stop", key=f"stop {key}", on_click=job.stop, width="stretch", help="What is finished is kept."
    )


def _under_way(own: Path | None = None) -> list[str]:
    """The keys of the runs under way that concern this person: the one begun, and the view's own, whoever began it."""
    mine = st.session_state.get(_MINE)
    return [key for key in dict.fromkeys((mine, own and str(own))) if key and _running(key) is not None]


def _running(own: Path | str) -> Job | None:
    job = shared_jobs().get(str(own))
    return job if job is not None and job.running and not job.stopping else None


def _start(own: Path, name: str, steps: Callable[[], Generator[Any]]) -> None:
    """Begin; an earlier run of the same person is stopped, and what it has finished stays."""
    jobs, earlier = shared_jobs(), st.session_state.get(_MINE)
    if earlier and earlier != str(own) and (job := _running(earlier)):
        job.stop()
    try:
        jobs.start(str(own), name, steps)
        st.session_state[_MINE] = str(own)
        st.session_state[_shown_key(own)] = own
    except AblationError as error:
        st.session_state[_REFUSED] = str(error)
