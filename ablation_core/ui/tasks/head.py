"""One head on the Tasks page: its effect by every method, by position, and on every prompt."""

from collections.abc import Generator, Sequence

import pandas as pd
import streamlit as st

from ablation_core.data.dataset import Data
from ablation_core.data.positions import EVERYWHERE, Positions
from ablation_core.engine.metrics import METRICS
from ablation_core.errors import as_markdown
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.predictions.task_prompts import AskedPrompt, asked_prompts
from ablation_core.experiments.results import AblationResult
from ablation_core.experiments.spec import AblationSpec
from ablation_core.methods.registry import METHODS
from ablation_core.report import run_frames
from ablation_core.report.charts import method_charts
from ablation_core.report.numbers import is_points
from ablation_core.report.sentences import floor_words
from ablation_core.report.tasks import position_charts, prompts
from ablation_core.runs.ledger import run_path
from ablation_core.runs.maps.position_map import (
    PositionMapResult,
    PositionMapSpec,
    kept_position_map,
    longest,
    position_map_steps,
)
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.runs.units import describe_work
from ablation_core.selection import Selection
from ablation_core.server import access
from ablation_core.server.turns import fair_lock
from ablation_core.ui.page import model_turn
from ablation_core.ui.runs import controls as run_controls
from ablation_core.ui.runs.expected import passes_of_head, say, seconds_of
from ablation_core.ui.runs.watching import running
from ablation_core.ui.shared import SEED, shared_clean_passes, shared_results
from ablation_core.ui.sidebar.view import View
from ablation_core.ui.tasks.harm import show_harm_parts
from ablation_core.ui.widgets import dark_page, draw_once, page_link, with_digits

_DIGITS = {"P(right)": ".1%", "P(wrong)": ".1%", "logit difference": "+.2f", "change": "+.2f"}
_SHOWN = {"logit difference": "logit diff., nats", "change": "change, nats"}
_ORDER = (
    "change",
    "right",
    "P(right)",
    "wrong",
    "P(wrong)",
    "logit difference",
    "prompt",
)  # the prompt takes most room

_MOST_POSITIONS = 48  # drawn of the longest prompt, from its end


def answered(view: View, data: Data, head: str, positions: Positions) -> tuple[AblationResult, list[AskedPrompt]]:
    """Every prompt's answers without and with a head ablated by the view's method; found again when asked for again."""
    known = shared_results()
    asked_key = f"asked {view.info.fingerprint} {data.fingerprint}"
    asked = known.get(asked_key)
    if asked is None:
        asked = known.keep(asked_key, asked_prompts(view.model, data))
    key = f"task {view.info.fingerprint} {data.fingerprint} {head} {view.method} {view.bins} {positions} {view.statistics.digest}"
    result = known.get(key)
    if result is None:
        with model_turn(view.model), st.spinner("Asking every prompt without the head …"):
            spec = AblationSpec(
                Selection.parse(head, view.model.shape), (METHODS[view.method],), view.bins, SEED, positions
            )
            run = AblationRun(view.model, data, spec, view.statistics, shared_clean_passes(view.model, data))
            result = known.keep(key, run.finish().result())
    return result, asked


def show_by_method(result: SweepResult, head: str, method: str, metric: str) -> None:
    """The head's effect by every method that the map was measured by."""
    row = METRICS[metric]
    st.markdown(f"**Without head {head}, by method**")
    frame = run_frames.method_frame(result, head, metric, method)
    if not len(frame):
        st.caption("Not measured yet.")
        return
    draw_once(
        method_charts.changes(frame, row.change_heading, is_points(row.change_format)),
        alt=f"{row.change_heading} without head {head}, by method, with 95% intervals.",
    )
    floor = result.floor(method, metric)
    band = f" Grey bands: noise floor, {floor_words(floor[2])} (layers in turn)." if floor else ""
    st.caption(f"95% intervals over prompts, paired.{band}")
    show_harm_parts(dict(zip(frame["kind"], frame["mean"], strict=True)), row, method)


def show_links(head: str) -> None:
    """The head on other pages."""
    here = st.query_params.to_dict()
    page_link("app.py", f"Head {head} at a glance", here | {"select": head})
    page_link("pages/distributions.py", f"Distributions of {head}", here | {"neuron": head})
    page_link("pages/ablate.py", f"Ablate {head} on text", here | {"select": head})


def position_run(view: View, data: Data, head: str) -> tuple[PositionMapSpec, PositionMapResult | None]:
    """The map by position of one head, and what is measured of it."""
    spec = PositionMapSpec((METHODS[view.method],), (head,), view.bins, EVERYWHERE)
    lengths = set() if data.lengths is None else set(data.lengths.tolist())
    if len(lengths) > 1:  # prompts of several lengths end together
        longest = min(_MOST_POSITIONS, max(lengths))
        spec = PositionMapSpec((METHODS[view.method],), (head,), view.bins, Positions(((-longest, -1),)))
    return spec, kept_position_map(view.model, data, spec, view.statistics, run_controls.FOLDER)


def show_by_position(view: View, data: Data, head: str, metric: str) -> None:
    """Where in the prompt the head matters: measured when it is asked for, drawn from what is saved."""
    st.markdown(f"**Head {head} at one position at a time**")
    spec, result = position_run(view, data, head)
    row, measured = METRICS[metric], 0 if result is None else len(result.changes(view.method, metric))
    path = run_path(run_controls.FOLDER, "positions", describe_work(view.model, data, view.statistics, view.bins))
    wanted = None if result is None else len(result.positions)

    def steps() -> Generator[PositionMapResult]:
        return position_map_steps(view.model, data, spec, view.statistics, run_controls.FOLDER)

    if running(path):
        st.caption("Being measured; the bar above the map says how far.")
    elif access.ACCESS.keeps_runs and (wanted is None or measured < wanted):
        left = f"Continue: {(wanted or 0) - measured} positions left"
        begin, name = left if measured else f"Measure head {head} by position", f"Head {head} by position in {data.ref}"
        with st.container(horizontal=True, vertical_alignment="center"):
            run_controls.begin_button(path, name, steps, begin, fair_lock(view.model), aside=True)
            cells = len(spec.positions.single(longest(data))) - measured
            layer = int(head.split(".")[0])
            say(seconds_of(view.model, data, cells * passes_of_head(view.info.shape, layer)))
    if result is None or not measured:
        st.caption("Each position by itself: a map of where the head's output matters for the answer.")
        return
    frame = position_charts.position_frame(result, view.method, metric)
    sentence = position_charts.position_sentence(result, view.method, metric)
    draw_once(
        position_charts.position_map_chart(frame, f"{row.change_heading}, by {view.method}", row, result, dark_page()),
        alt=sentence.replace("**", ""),
    )
    counted = "counted from the end" if min(result.positions) < 0 else "counted from the start"
    st.caption(f"{as_markdown(sentence.replace('**', ''))} Positions are {counted}; dots: significant (FDR 5%).")


def show_prompts(frame: pd.DataFrame, head: str, method: str) -> None:
    """On which prompts the head helps or hurts."""
    st.subheader("On which prompts it helps or hurts", anchor=False)
    st.markdown(prompts.help_sentence(frame, head, method))
    chart_column, table_column = st.columns([2, 3], gap="large")
    with chart_column:
        draw_once(
            prompts.prompt_changes(frame, "change of logit difference, nats", dark_page()),
            alt=f"Change of each prompt's logit difference without head {head} by {method}, sorted.",
        )
        st.caption("One bar per prompt. Red: the head helps there, since the right answer loses without it.")
    with table_column:
        st.dataframe(
            with_digits(frame.sort_values("change", kind="stable"), _DIGITS), column_config=_SHOWN, column_order=_ORDER,
            hide_index=True, width="stretch", height=280, row_height=28,
        )  # fmt: skip


def measured_names(usable: Sequence[str], usual: Sequence[str], method: str) -> list[str]:
    """The methods that a map is measured by: the usual ones that the task has sources for, and the shown one."""
    return [name for name in usable if (name in usual or name == method) and not METHODS[name].learned]
