"""Long runs on a page: begun and stopped by buttons, watched as they grow, drawn from what is kept.

A page draws the ledger's finished pieces, whoever computes them; a job only says how far it is. So what a stopped run,
another session or the command line has left shows at once.
"""

import os
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from ablation_core.errors import AblationError, as_markdown
from ablation_core.server import access
from ablation_core.server.jobs import Job
from ablation_core.server.turns import FairLock
from ablation_core.storage import CACHE
from ablation_core.ui.shared import shared_jobs
from ablation_core.ui.widgets import single_choice

FOLDER = CACHE
WITH_RUNS = ("Head map", "Pruning curves")
_EVERY = 0.8  # seconds between two looks at a run under way
_MINE = "my long run"
_REFUSED = "long run refused"


def choose_measure(names: Sequence[str], help: str) -> str:
    """The pills that say what is drawn."""
    return single_choice(st.pills, "Measure", names, default="loss", key="metric", help=help)


def choose_place() -> str | None:
    """Where runs that are begun on this page are computed: the address of the cluster, or None for this machine.

    Asked only where the server's operator has named a cluster, in `ABLATION_RAY_ADDRESS`.
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
        help="A long run can be given to a cluster; its numbers are the same, and what is finished is kept here.",
    )
    return address if chosen == there else None


def words_of(place: str | None) -> str:
    """What a run's name says of where it is computed."""
    return " on the cluster" if place else ""


def choose_run(own: Path, kept: dict[Path, Any], view: dict, done: Callable[[Any], tuple[int, int]], unit: str) -> Path:
    """Which kept run is shown: the view's own where it has begun, else the best kept one; a box to choose.

    The best has the view's data (or its smaller or larger edition), then the most pieces, then the most predictions.

    Args:
        own: the file of the view's own run.
        kept: results by their files.
        view: the description of the view's own run.
        done: how many of a result's pieces are there, and of how many.
        unit: what a piece is.
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
        text = f"{described['data']['predictions']:,} predictions of {described['data']['ref']}, "
        text += f"{done(kept[path])[0]} of {done(kept[path])[1]} {unit}" if path in kept else "not measured yet"
        return f"this view: {text}" if path == own else f"kept: {text}{_differences(described, view)}"

    return st.selectbox(
        "Shown",
        options,
        index=1 if fits and not begun else 0,
        format_func=label,
        key=_shown_key(own),
        help="Finished heads and points are kept in the cache folder; runs with other settings or data can be shown too.",
    )


def may_be_shown(described: dict) -> bool:
    """Whether a kept run is of what is offered (or of its other edition): one may name the files of a server's operator."""
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
    """What, other than the data set and the number of predictions, a kept run was made with."""
    found = []
    if there["bins"] != view["bins"]:
        found.append(f"{there['bins']} bins")
    digests = [described["statistics"] and described["statistics"]["digest"] for described in (there, view)]
    if digests[0] != digests[1]:
        found.append("other statistics")
    mine, other = view["data"], there["data"]
    found += [f"{words} {other[name]}" for name, words in _SETTINGS.items() if mine[name] != other[name]]
    if there["model"]["dtype"] != view["model"]["dtype"]:
        found.append(there["model"]["dtype"])
    same = all(mine[name] == other[name] for name in ("ref", "predictions", *_SETTINGS))
    if same and mine["fingerprint"] != other["fingerprint"]:
        found.append("another version of the data")
    return f" ({', '.join(found)})" if found else ""


_SETTINGS = {"seq_len": "windows of", "seed": "seed"}


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


def controls(
    own: Path, name: str, steps: Callable[[], Generator[Any]], begin: str | None, lock: FairLock | None = None
) -> None:
    """The progress of the view's own run with a Stop button or, where something is left to do, a button that begins.

    Args:
        name: what the run is, for people.
        begin: the words of that button; None where nothing is left.
        lock: that of the model, where this server runs it.
    """
    for key in _under_way(own):
        if key != str(own):
            _show_progress(key)
    if str(own) in _under_way(own):
        _show_progress(str(own))
    elif begin is not None and not access.ACCESS.keeps_runs:
        st.caption("This server keeps nothing, so long runs are not offered; what was measured before is shown.")
    elif begin is not None:
        st.button(
            begin, key=f"start {own.name}", type="primary", on_click=_start, args=(own, name, steps, lock),
            help="It goes on while you look at other pages, and can be stopped: what is finished is kept.",
        )  # fmt: skip
    if refused := st.session_state.pop(_REFUSED, None):
        st.error(as_markdown(refused), icon="⚠️")
    job = shared_jobs().get(str(own))
    if job is not None and not job.running and job.error:
        st.error(as_markdown(job.error), icon="⚠️")


def begin_once(key: str, name: str, steps: Callable[[], Generator[Any]], lock: FairLock) -> None:
    """Begin a short run by itself, unless one of this person's is under way or they have met it while it is remembered:
    one that was stopped stays so, one whose result others have displaced is made again."""
    flag = f"begun {key}"
    if (flag not in st.session_state or shared_jobs().get(key) is None) and not _under_way():
        st.session_state[flag] = True
        try:
            shared_jobs().start(key, name, steps, lock)
            st.session_state[_MINE] = key
        except AblationError:
            st.session_state.pop(flag)  # the server is busy; the next look tries again


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
    progress_column, button_column = st.columns([4, 1], vertical_alignment="center")
    waiting = "waiting for the model, which another computation is using"
    state = waiting if job.waiting else f"{job.share:.0%}{job.time_left}"
    progress_column.progress(job.share, f"{job.name}: {state}")
    if access.ACCESS.shared and key != st.session_state.get(_MINE):
        return  # begun by another visitor, who may stop it
    button_column.button(
        "Stop", key=f"stop {key}", on_click=job.stop, width="stretch", help="What is finished is kept."
    )


def _under_way(own: Path | None = None) -> list[str]:
    """The keys of the runs under way that concern this person: the one begun, and the view's own, whoever began it."""
    mine = st.session_state.get(_MINE)
    here = None if own is None else str(own)
    return [key for key in dict.fromkeys((mine, here)) if key and _running(key) is not None]


def _running(own: Path | str) -> Job | None:
    job = shared_jobs().get(str(own))
    return job if job is not None and job.running and not job.stopping else None


def _start(own: Path, name: str, steps: Callable[[], Generator[Any]], lock: FairLock | None) -> None:
    """Begin; an earlier run of the same person is stopped, and what it has finished stays."""
    jobs, earlier = shared_jobs(), st.session_state.get(_MINE)
    if earlier and earlier != str(own) and (job := _running(earlier)):
        job.stop()
    try:
        jobs.start(str(own), name, steps, lock)
        st.session_state[_MINE] = str(own)
        st.session_state[_shown_key(own)] = own
    except AblationError as error:
        st.session_state[_REFUSED] = str(error)
