"""Long runs on a page: started and stopped by buttons, watched as they grow, drawn from what is saved.

A page draws the ledger's finished units, whoever computes them; a job only says how far it is. So the results of a
stopped run, of another session or of the command line are shown at once.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from ablation_core.data.uploads import named
from ablation_core.errors import AblationError, as_markdown
from ablation_core.methods.registry import USUAL
from ablation_core.server import access
from ablation_core.server.jobs import Job
from ablation_core.server.turns import FairLock
from ablation_core.storage import CACHE
from ablation_core.ui.runs.expected import say
from ablation_core.ui.shared import shared_jobs
from ablation_core.ui.widgets import choose_metric

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

FOLDER = CACHE
WITH_RUNS = ("Head map", "Pruning curves", "Tasks")
_EVERY = 0.8  # seconds between two looks at a run under way
_MINE = "my long run"
_REFUSED = "long run refused"


def me() -> str:
    """This session among those that start and watch jobs."""
    return st.session_state.setdefault("me", uuid.uuid4().hex)


def choose_measure(names: Sequence[str], help: str) -> str:
    """The choice of the metric that is drawn."""
    return choose_metric(st.pills, names, "loss", "metric", help, wrap=True)


def choose_methods(usable: Sequence[str], help: str, more: DeltaGenerator) -> list[str]:
    """The choice of methods, in the registry's order: the usual ones, and the variants where they are asked for or chosen.

    Args:
        more: where the variants are asked for.
    """
    usual = [name for name in usable if name in USUAL]
    there = st.session_state.get("methods") or st.query_params.get_all("methods")
    variants = more.checkbox(
        "More methods",
        value=any(name in usable and name not in USUAL for name in there),
        key="more methods",
        help="Offer the other ways to find the peak and to resample, and optimal constants.",
    )
    chosen = st.pills(
        "Methods",
        usable if variants else usual,
        default=usual,
        selection_mode="multi",
        wrap=True,
        key="methods",
        bind="query-params",
        help=help,
    )
    return [name for name in usable if name in chosen]


def choose_place() -> str | None:
    """Where runs that are started on this page are computed: the address of the cluster, or None for this machine.

    Offered only where the server's operator has named a cluster, in `ABLATION_RAY_ADDRESS`.
    """
    address = os.environ.get("ABLATION_RAY_ADDRESS")
    if not address:
        return None
    here, there = "this machine", "the cluster" if access.ACCESS.shared else f"the cluster at {address}"
    chosen = st.pills(
        "Computed on",
        [here, there],
        default=here,
        key="place",
        persist_state="session",
        required=True,
        help="A long run can be sent to a cluster. The results are identical, and finished units are saved here.",
    )
    return address if chosen == there else None


def words_of(place: str | None) -> str:
    """The part of a run's name that says where it is computed."""
    return " on the cluster" if place else ""


def choose_run(own: Path, kept: dict[Path, Any], view: dict, done: Callable[[Any], tuple[int, int]], unit: str) -> Path:
    """Which saved run is shown: the view's own where it has started, else the best saved one; a box to choose.

    The best has the view's data (or its smaller or larger edition), then the most units, then the most predictions.

    Args:
        own: the file of the view's own run.
        kept: saved results by their files.
        view: the description of the view's own run.
        done: how many of a result's units are measured, and of how many.
        unit: what a unit is.
    """

    def rank(path: Path) -> tuple:
        data, (there, wanted) = kept[path].description["data"], done(kept[path])
        return not _same_data(data, view["data"]), -there / wanted, -data["predictions"]

    shown = (path for path in kept if path != own and done(kept[path])[0] and may_be_shown(kept[path].description))
    others = sorted(shown, key=rank)
    options = [own, *others]
    if not others:
        return own
    begun = own in kept or _running(own) is not None
    fits = _same_data(kept[others[0]].description["data"], view["data"])

    def label(path: Path) -> str:
        described = kept[path].description if path in kept else view
        text = f"{described['data']['predictions']:,} predictions of {named(described['data']['ref'])}, "
        if path == own and _running(own) is not None:
            text += "being measured"  # the count beside the progress bar is newer than this box
        else:
            text += f"{done(kept[path])[0]} of {done(kept[path])[1]} {unit}" if path in kept else "not measured yet"
        return f"this view: {text}" if path == own else f"saved: {text}{_differences(described, view)}"

    return st.selectbox(
        "Results from",
        options,
        index=1 if fits and not begun else 0,
        format_func=label,
        key=_shown_key(own),
        help="Finished heads and points are saved in the cache folder; runs with other settings or data can be shown, too.",
    )


def may_be_shown(described: dict) -> bool:
    """Whether a saved run is of what is offered (or of its other edition): one may name the files of a server's operator."""
    allowed, made = access.ACCESS, described["statistics"]
    refs = {described["data"]["ref"], *([made["data"]] if made else [])}
    offered = all(any(_same_data({"ref": ref}, {"ref": one}) for one in allowed.data) for ref in refs)
    return not allowed.shared or (described["model"]["ref"] in allowed.models and offered)


def _same_data(one: dict, other: dict) -> bool:
    """Whether two runs are of one data set, or of its smaller and its larger edition (fashion-mnist:full)."""
    a, b = sorted((one["ref"], other["ref"]), key=len)
    return a == b or b.startswith(f"{a}:")


def _shown_key(own: Path) -> str:
    return f"shown for {own.name}"


def _differences(there: dict, view: dict) -> str:
    """The settings of a saved run that differ from the view's, other than the data set and the number of predictions."""
    found = []
    if there["bins"] != view["bins"]:
        found.append(f"{there['bins']} bins")
    digests = [described["statistics"] and described["statistics"]["digest"] for described in (there, view)]
    if digests[0] != digests[1]:
        found.append("from another statistics file")
    mine, other = view["data"], there["data"]
    found += [f"{words} {other[name]}" for name, words in _SETTINGS.items() if mine[name] != other[name]]
    if there["model"]["dtype"] != view["model"]["dtype"]:
        found.append(there["model"]["dtype"])
    same = all(mine[name] == other[name] for name in ("ref", "predictions", *_SETTINGS))
    if same and mine["fingerprint"] != other["fingerprint"]:
        found.append("another version of the data")
    return f" ({', '.join(found)})" if found else ""


_SETTINGS = {"seq_len": "windows of", "seed": "seed"}


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
    before = _under_way(own)
    return watched(lambda: before != _under_way(own), _EVERY if before else None)


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
    for key in _under_way(own):
        if key != str(own):
            _show_progress(key)
    if str(own) in _under_way(own):
        _show_progress(str(own))
    elif begin is not None and saves and not access.ACCESS.keeps_runs:
        st.caption("This server saves nothing, so long runs are not offered; earlier results are shown.")
    elif begin is not None:
        with st.container(horizontal=True, vertical_alignment="center"):
            begin_button(own, name, steps, begin, lock, saves, aside)
            say(seconds())
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
    if (flag not in st.session_state or shared_jobs().get(key) is None) and not _under_way():
        st.session_state[flag] = True
        try:
            shared_jobs().start(key, name, steps, lock, me())
            st.session_state[_MINE] = key
        except AblationError:
            st.session_state.pop(flag)  # the server is busy; the next look tries again


def show_mine(title: str) -> None:
    """In the sidebar of pages without runs of their own: the run that this person has started, while it is running."""
    if title in WITH_RUNS or not _under_way():
        return

    @watched(lambda: not _under_way(), 2.0)
    def progress() -> None:
        for key in _under_way():
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


def _under_way(own: Path | None = None) -> list[str]:
    """The keys of the running jobs that concern this person: the one they started, and the view's own, whoever started it."""
    mine = st.session_state.get(_MINE)
    here = None if own is None else str(own)
    return [key for key in dict.fromkeys((mine, here)) if key and _running(key) is not None]


def is_running(own: Path) -> bool:
    return _running(own) is not None


def _running(own: Path | str) -> Job | None:
    job = shared_jobs().get(str(own))
    return job if job is not None and job.running and not job.stopping else None


def _start(own: Path, name: str, steps: Callable[[], Generator[Any]], lock: FairLock | None) -> None:
    """Start; an earlier run of the same person is stopped, and its finished units stay."""
    jobs, earlier = shared_jobs(), st.session_state.get(_MINE)
    if earlier and earlier != str(own) and (job := _running(earlier)):
        job.stop()
    try:
        jobs.start(str(own), name, steps, lock, me())
        st.session_state[_MINE] = str(own)
        st.session_state[_shown_key(own)] = own
    except AblationError as error:
        st.session_state[_REFUSED] = str(error)
