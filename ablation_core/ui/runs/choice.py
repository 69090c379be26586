"""What is computed and what is shown on a page with long runs: the metric, the methods, the place, the saved run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from ablation_core.data.uploads import named
from ablation_core.methods.registry import USUAL
from ablation_core.report.numbers import sample_of
from ablation_core.server import access
from ablation_core.ui.runs.watching import running
from ablation_core.ui.widgets import choose_metric

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

_SETTINGS = {"seq_len": "windows of", "seed": "seed"}


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


def row() -> DeltaGenerator:
    """Where the choice of a run and the button that starts one stand beside each other, so that the answer is higher up."""
    return st.container(horizontal=True, vertical_alignment="bottom")


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
    begun = own in kept or running(own) is not None
    fits = _same_data(kept[others[0]].description["data"], view["data"])

    def label(path: Path) -> str:
        described = kept[path].description if path in kept else view
        text = f"{sample_of(described['model'], described['data'])} of {named(described['data']['ref'])}, "
        if path == own and running(own) is not None:
            text += "being measured"  # the count beside the progress bar is newer than this box
        else:
            text += f"{done(kept[path])[0]} of {done(kept[path])[1]} {unit}" if path in kept else "not measured yet"
        return f"this view: {text}" if path == own else f"saved: {text}{differences(described, view)}"

    return st.selectbox(
        "Results from",
        options,
        index=1 if fits and not begun else 0,
        format_func=label,
        key=shown_key(own),
        width=370,  # so that what stands beside it keeps to one line, and moves nothing when it comes
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


def shown_key(own: Path) -> str:
    """Where the session keeps which saved run is shown in place of the view's own."""
    return f"shown for {own.name}"


def differences(there: dict, view: dict) -> str:
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
