"""What changes without the head: the verdict, every method's change beside its noise band; and a neuron's values.

A saved sweep answers at once. Its figures are the view's own where the settings are the same; else the view's are measured
in the background and take their place.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from ablation_core.engine.metrics import METRICS
from ablation_core.errors import AblationError, as_markdown
from ablation_core.report import frames
from ablation_core.report.charts import method_charts
from ablation_core.report.heads import charts as head_charts
from ablation_core.report.heads.frames import known_frame, neurons_by_oddness, value_frame
from ablation_core.report.heads.html import value_legend
from ablation_core.report.heads.sentences import head_verdict
from ablation_core.report.numbers import number
from ablation_core.runs.ledger import run_path
from ablation_core.ui.glance.shown import Glance, slot
from ablation_core.ui.runs import controls as run_controls
from ablation_core.ui.runs.watching import watched
from ablation_core.ui.shared import is_loaded, let_loading_begin
from ablation_core.ui.widgets import draw

if TYPE_CHECKING:
    from ablation_core.ui.ablation.job import AblationProgress, AblationRequest

EVERY = 0.7  # seconds between two looks at what is loaded or measured
SELDOM = 2.0  # the same where the figures are known: a look is work for the browser, which is still drawing
METRIC = METRICS["loss"]
_SETTLED = (True, True, True, True)
_LOOKS = "looks at the first page"
_IDLE = 2  # looks on time in a row, until which the browser counts as drawing
_CHART = 196  # pixels


def show_answer(glance: Glance) -> None:
    """The verdict and the figures."""
    if not glance.picked:
        with slot("verdict"):
            st.markdown("**Pick a head**: click one on the map.")
        return
    try:
        frame, right, source = _figures(glance)
    except AblationError as error:
        st.error(as_markdown(error), icon="⚠️")
        return
    with slot("verdict"):
        st.markdown(head_verdict(glance.name, frame) if len(frame) else f"**Head {glance.name}** is being measured …")
        st.caption(" ".join(filter(None, (right, source))))
    with slot("figures"):
        methods_column, values_column = st.columns([6, 5], gap="medium")
        with methods_column:
            _show_methods(glance, frame)
        with values_column:
            _show_values(glance)


def watch(glance: Glance) -> None:
    """Draw the page again once the model is loaded, and as the view's own figures come; looks, and draws nothing."""
    seen = _state(glance)
    known = glance.known is not None and not is_loaded(glance.view.info.ref)
    every = SELDOM if known else EVERY

    def is_out_of_date() -> bool:
        if _looks_on_time(every) >= _IDLE:
            let_loading_begin()
        return _state(glance) != seen

    @watched(is_out_of_date, None if seen == _SETTLED else every)
    def look() -> None:
        pass

    look()


def _looks_on_time(every: float) -> int:
    """How many looks, this one the last, came in time one after the other: a browser that is still drawing is late, and
    catches up afterwards.
    """
    last, on_time = st.session_state.get(_LOOKS, (0.0, 0))
    now = time.monotonic()
    on_time = on_time + 1 if abs(now - last - every) < 0.2 * every else 0
    st.session_state[_LOOKS] = now, on_time
    return on_time


def _state(glance: Glance) -> tuple[bool, ...]:
    """Whether the model is loaded, and of the view's own figures whether there are any, are measured, and have their bands."""
    if not glance.view.whole or not glance.picked:
        return _SETTLED  # statistics under way draw the page again themselves
    if not is_loaded(glance.view.info.ref):
        return (False, False, False, False)
    from ablation_core.ui.ablation import job as ablation_job

    try:
        request = own_request(glance)
        if request is None or ablation_job.is_stopped(request):
            return _SETTLED
        found = ablation_job.progress_of(request)
        return (True, found.result is not None, found.measured, found.whole)
    except AblationError:  # said where the figures would be
        return _SETTLED


def own_request(glance: Glance) -> AblationRequest | None:
    """What is to be measured for the view itself; None where the saved sweep is of just these settings."""
    from ablation_core.runs.units import describe_work
    from ablation_core.ui.ablation import job as ablation_job

    request = ablation_job.request_of(glance.view)
    if glance.known is None:
        return request
    view = glance.view
    described = describe_work(view.model, request.data, view.statistics, view.bins)
    same = run_path(run_controls.FOLDER, "sweep", described).name == glance.known.path.name
    methods = {method.name for method in request.methods}
    return None if same and methods <= set(glance.known.sweep.methods) else request


def _figures(glance: Glance) -> tuple[pd.DataFrame, str, str]:
    """The methods' changes, what they mean in right answers, and where they come from."""
    view, known = glance.view, glance.known
    own = _measured(glance)
    if own is not None and own.result is not None:
        frame = frames.change_frame(own.result, METRIC.name, view.method, own.floor)
        before = own.result.baseline["top1"]
        after = {row.method: row.performance["top1"] for row in own.result.results}
        return (
            frame,
            _right(before, after, view.method),
            as_markdown(f"{own.result.data['predictions']:,} {glance.unit} of {view.data_ref}."),
        )
    if known is None:
        return pd.DataFrame(), "", ""
    method = known.method(view.method)
    frame = known_frame(known.sweep, glance.head, METRIC.name, method)
    rows, baseline = known.sweep.rows[glance.name], known.sweep.baseline or {}
    after = {name: row["top1"] for name, row in rows.items()}
    note = "" if _state(glance) == _SETTLED else "Saved figures; this view's own follow."
    return (
        frame,
        _right(baseline.get("top1"), after, method),
        note,
    )


def _measured(glance: Glance) -> AblationProgress | None:
    """The view's own measurement as far as it is; None where the saved one is the same, or nothing can be measured yet."""
    if not glance.view.whole or not is_loaded(glance.view.info.ref):
        return None
    request = own_request(glance)
    if request is None:
        return None
    from ablation_core.ui.ablation import job as ablation_job

    found = ablation_job.progress_of(request)
    return found if found.measured or glance.known is None else None


def _right(before: float | None, after: dict[str, float], method: str) -> str:
    """How often the first guess is right, before and after."""
    if before is None or method not in after:
        return ""
    return f"First guess right: {before:.1%} → {after[method]:.1%} ({method})."


def _show_methods(glance: Glance, frame: pd.DataFrame) -> None:
    st.markdown("**What changes without it**")
    if not len(frame):
        return
    banded = bool(frame["floor_low"].notna().any())
    draw(
        method_charts.changes,
        frame,
        title=METRIC.change_heading,
        variant=(tuple(frame["kind"]), banded),
        height=_CHART,
        alt=f"{METRIC.change_heading} without head {glance.name} by method, with 95% intervals: "
        + ", ".join(f"{row.kind} {number(row.mean, '+.3f')}" for row in frame.itertuples()),
    )
    st.caption("95% intervals; grey: random neurons" if banded else "95% intervals")


def _show_values(glance: Glance) -> None:
    """One neuron of the head: its histogram with zero, mean and peak marked."""
    view, (layer, head) = glance.view, glance.head
    odd = neurons_by_oddness(view.statistics, layer, head, view.bins)
    neuron = odd[0] if glance.neuron is None else glance.neuron
    st.markdown(f"**Values of neuron {glance.name}:{neuron}** (of {len(odd)})")
    bars = frames.histogram_frame(view.statistics, layer, head, neuron, view.bins)
    marks = value_frame(view.statistics, layer, head, neuron, view.bins)
    values: Sequence[tuple[str, float]] = list(zip(marks["kind"], marks["value"], strict=True))
    draw(
        head_charts.values,
        bars,
        marks,
        unit="activation",  # without the name, so that the chart's structure is every neuron's
        height=_CHART - 24,
        alt=f"Histogram of neuron {glance.name}:{neuron}: "
        + ", ".join(f"{kind} {number(value, '.3g')}" for kind, value in values),
    )
    st.html(value_legend(values))
