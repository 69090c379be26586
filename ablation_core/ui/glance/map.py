"""The map of heads on the first page: a click picks a head, and the map itself stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from ablation_core.engine.metrics import METRICS
from ablation_core.errors import as_markdown
from ablation_core.report import run_frames
from ablation_core.report.charts import effect_maps
from ablation_core.report.run_frames import HeadEstimates
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.ui.boxes import put, text_in
from ablation_core.ui.glance.estimated import estimated_map
from ablation_core.ui.glance.known import KnownEffects
from ablation_core.ui.glance.shown import Glance
from ablation_core.ui.picking import draw_choice
from ablation_core.ui.widgets import dark_page

METRIC = METRICS["loss"]


def show_map(glance: Glance, selected: str) -> None:
    """The map by a saved sweep or, where there is none, by estimates; and what it shows.

    Args:
        selected: the sidebar's whole selection.
    """
    known, unit, shape = glance.known, glance.unit, glance.view.info.shape
    if known is not None:
        method, data = known.method(glance.view.method), known.sweep.description["data"]
        _draw_map(glance, known.sweep, method, {}, known.path.name)
        sample = as_markdown(f"{data['predictions']:,} {unit} of {data['ref']}")
        dots = effect_maps.significant_words(shape.layers * max(shape.heads))
        st.caption(f"Measured on {sample}. {dots} {_why_first(known, method)}Click a head.")
    elif (found := estimated_map(glance)) is not None:
        _draw_map(glance, found.sweep, found.method, found.estimates, found.key)
        st.caption(f"*Estimated* from gradients on {found.predictions:,} {unit}, not measured. Click a head.")
    offer_earlier_selection(selected)


def _why_first(known: KnownEffects, method: str) -> str:
    """Why the page opens on a head that is not the darkest; said whatever head is on show, so that a click moves nothing."""
    sweep = known.sweep
    if known.strongest_head is None:
        return ""
    name, changes = ".".join(map(str, known.strongest_head)), sweep.changes(method, METRIC.name)
    is_darkest = name == max(changes, key=lambda head: changes[head])
    is_sure = all(name in sweep.significant(one, METRIC.name) for one in sweep.methods)
    return f"{name} opens first: it matters by every method. " if is_sure and not is_darkest else ""


def _draw_map(glance: Glance, sweep: SweepResult, method: str, estimates: HeadEstimates, source: str) -> None:
    """Every head's change of loss.

    Only a head chosen elsewhere, or other values, make another map.

    Args:
        source: what the values come from: another source is another map.
    """
    shape, dark = glance.view.info.shape, dark_page()
    identity = (glance.view.info.fingerprint, source, method, dark)

    def pick(mark: Mapping[str, Any]) -> None:
        remember_selection(glance)
        put("select", f"{int(mark['layer'])}.{int(mark['head'])}")

    frame = run_frames.map_frame(sweep, method, METRIC.name, None, estimates)
    title = f"{METRIC.change_heading}, by {method}"
    draw_choice(
        effect_maps.effect_map,
        frame,
        title=title,
        metric=METRIC,
        layers=shape.layers,
        heads=max(shape.heads),
        dark=dark,
        variant=identity,  # made once, down to the names that Altair counts up: another specification would be drawn again
        key=f"glance map {' '.join(map(str, identity))}",
        shown={"layer": glance.head[0], "head": glance.head[1]} if glance.picked else None,
        choose=pick,
        alt=f"Map of {len(frame)} heads coloured by {title}. The head on show is outlined.",
    )


_EARLIER = "selection before a head was picked"


def remember_selection(glance: Glance) -> None:
    """Keep a selection of more than the head on show, which picking another head would lose."""
    before = text_in("select")
    if before and before != glance.name:
        st.session_state[_EARLIER] = before


def offer_earlier_selection(selected: str) -> None:
    """A button that selects again what was selected before a head was picked here."""
    earlier = st.session_state.get(_EARLIER)
    if not earlier or earlier == selected:
        return

    def select() -> None:
        put("select", st.session_state.pop(_EARLIER))

    st.button(
        f"Select {as_markdown(earlier)} again",
        on_click=select,
        type="tertiary",
        help="What was selected before you picked a head here.",
    )
