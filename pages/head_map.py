"""Head map: the effect of removing each head, one at a time, by any method and metric."""

from collections.abc import Generator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from ablation_core.cluster.driver import Progress
from ablation_core.engine.metrics import METRICS, metrics_of, telling_metrics
from ablation_core.errors import as_markdown
from ablation_core.methods.registry import METHODS, usable_methods
from ablation_core.report import run_frames
from ablation_core.report.charts import effect_maps
from ablation_core.report.numbers import sample_unit
from ablation_core.report.run_sentences import adaptive_sentence, shown_sentence, sweep_sentence
from ablation_core.runs.ledger import run_path
from ablation_core.runs.sweep import SweepSpec
from ablation_core.runs.sweep_result import SweepResult, empty_sweep, kept_sweeps
from ablation_core.runs.units import describe_work
from ablation_core.selection import Head, Selection
from ablation_core.server import head_map as instant
from ablation_core.server.turns import fair_lock
from ablation_core.ui import export_row, page
from ablation_core.ui.boxes import last_usable, put, text_box
from ablation_core.ui.heads.effects import show_agreement, show_estimates, show_head
from ablation_core.ui.heads.scores import choose_colour, score_columns, show_score_map, show_score_scatter, with_scores
from ablation_core.ui.picking import draw_choice
from ablation_core.ui.runs import choice as run_choice
from ablation_core.ui.runs import controls as run_controls
from ablation_core.ui.runs.expected import passes_of_heads, seconds_of
from ablation_core.ui.runs.export_row import head_table, sweep_exports
from ablation_core.ui.runs.watching import watched_run
from ablation_core.ui.shared import shared_data, shared_estimates, shared_jobs, shared_maps
from ablation_core.ui.together.comparison import show_comparison
from ablation_core.ui.widgets import dark_page

ADAPTIVE = (
    "Tests all heads at planned interim looks and stops each as soon as it is significant or unlikely to become so. "
    "Faster, with wider intervals; for the loss only."
)

COMPARE = (
    "Which heads matter on one data set and not on another, or in one model and not in another: the difference of every "
    "head's effect."
)

view = page.open_page("Head map", "🗺️", controls=("predictions", "method"))
model, shape = view.model, view.model.shape


def pick_head(mark: Mapping[str, Any]) -> None:
    """Show the clicked head beside the map."""
    put("head", f"{int(mark['layer'])}.{int(mark['head'])}")


def pick_point(mark: Mapping[str, Any]) -> None:
    """The same, for a point of a scatter."""
    put("head", str(mark["label"]))


title_column, compare_column = st.columns([3, 2], vertical_alignment="bottom")
title_column.header("Effect of removing each head", anchor=False)
if compare_column.toggle("Compare two data sets or models", key="compare", bind="query-params", help=COMPARE):
    show_comparison(view)
    st.stop()
with page.show_errors():
    data = shared_data(model, view.data_ref, view.predictions, "evaluation")
with st.container(key="settings"):
    metric_column, methods_column, more_column = st.columns([6, 11, 3], vertical_alignment="bottom")
more = more_column.popover("More", help="More methods, an adaptive sweep, and where long runs are computed.")
with more:
    adaptive = st.toggle("Adaptive", key="adaptive", bind="query-params", help=ADAPTIVE)
    place = None if adaptive else run_choice.choose_place()
with metric_column:
    drawn = ["loss"] if adaptive else telling_metrics(metrics_of(data), model)
    metric = run_choice.choose_measure(drawn, "What the colours show. Red: the model gets worse; blue: it gets better.")
usable = usable_methods(data, model.modality)
with methods_column:
    methods = run_choice.choose_methods(
        usable,
        "The map shows the method chosen in the sidebar; the others are measured on the same heads and compared.",
        more,
    )
names = [name for name in usable if name in {*methods, view.method} and not (adaptive and METHODS[name].learned)]
spec = SweepSpec(tuple(METHODS[name] for name in names), view.bins)
described = describe_work(model, data, view.statistics, view.bins)
exact = run_path(run_controls.FOLDER, "sweep", described)
# Adaptive maps by other methods share a ledger, so that one runs at a time; each shows only its own methods.
own = run_path(run_controls.FOLDER, "adaptive", described) if adaptive else exact
store, maps, estimate_key = shared_estimates(), shared_maps(), f"estimate for {exact.name} {' '.join(names)}"
adaptive_key = f"{own.name} {' '.join(names)}"
title = METRICS[metric].change_heading


def kept_runs() -> dict[Path, SweepResult]:
    """Sweeps saved in the cache folder; adaptive ones as the server remembers them."""
    if adaptive:
        found = maps.get(adaptive_key)  # read once: others may displace it
        return {} if found is None else {own: found}
    return kept_sweeps(model, run_controls.FOLDER, names)


def measured(result: SweepResult) -> tuple[int, int]:
    """How many heads are measured by the shown method, and of how many."""
    return len(result.changes(view.method, metric)), len(result.wanted)


def no_estimate() -> str:
    """Why there is no instant estimate, where there is none."""
    job = shared_jobs().get(estimate_key)
    if job is None or job.running:
        return "Being computed."
    return (
        job.error or "This model has no gradients, or there is not enough memory for them, so nothing can be estimated."
    )


def estimate_steps() -> Generator[instant.Instant]:
    return instant.estimate_steps(model, data, spec, view.statistics, store, estimate_key)


def exact_steps() -> Generator[instant.Instant | SweepResult | Progress]:
    if adaptive:
        return instant.adaptive_sweeps(model, data, spec, view.statistics, maps, adaptive_key, run_controls.FOLDER)
    return instant.refined_steps(model, data, spec, view.statistics, store, estimate_key, run_controls.FOLDER, place)


def begin_words(mine: SweepResult | None) -> str | None:
    """The label of the button that starts the run; None where nothing is left to do."""
    words = f"{len(names)} method{'s' * (len(names) != 1)}"
    if adaptive:
        done = mine is not None and instant.decided(mine)
        most = f"{data.predictions:,} {sample_unit(model.modality)}"
        return None if done or not names else f"Measure {sum(shape.heads)} heads × {words} on at most {most}"
    left = len(mine.wanted) - len(mine.heads) if mine else sum(shape.heads)
    if not left:
        return None
    heads = f"{left} head{'s' * (left != 1)}"
    return (
        f"Continue: {heads} left"
        if mine
        else f"Measure {heads} × {words} on {data.predictions:,} {sample_unit(model.modality)}"
    )


def seconds() -> float | None:
    """How long the run will take on this machine."""
    mine = kept_runs().get(own)
    done, random_sets = (0, 0) if adaptive else (len(mine.heads) if mine else 0, spec.random_sets)
    left = sum(shape.heads) - done + random_sets
    return None if place else seconds_of(model, data, len(names) * passes_of_heads(shape, left))


estimate = store.get(estimate_key)
if names and (estimate is None or estimate.share < 1):
    run_controls.begin_once(estimate_key, f"Instant estimate of {model.ref}", estimate_steps, fair_lock(model))


def show_effects(frame: pd.DataFrame, result: SweepResult, head: Head) -> None:
    """The map of effects; the head beside it is outlined."""
    most = effect_maps.deepest(frame)
    draw_choice(
        effect_maps.effect_map,
        frame,
        title=f"{title}, by {view.method}",
        metric=METRICS[metric],
        layers=shape.layers,
        heads=max(shape.heads),
        dark=dark_page(),
        variant=most,
        key="effects",
        shown={"layer": head[0], "head": head[1]},
        choose=pick_head,
        alt=f"Map of all heads coloured by {title}; the one beside it is outlined.",
    )
    beyond = "" if most == frame["value"].abs().max() else "; the largest changes exceed it"
    st.caption(
        f"{effect_maps.marks_words(shape.layers * max(shape.heads))} Square-root colour scale{beyond}.  \n"
        f"{as_markdown(shown_sentence(result.description)) if result.rows else ''}"
    )


@watched_run(own)
def show_run() -> None:
    kept = kept_runs()
    by = f" by {', '.join(names)}" if adaptive else ""
    name = f"Head map of {model.ref}{by}{run_choice.words_of(place)}"
    lock = None if place else fair_lock(model)
    begin = begin_words(kept.get(own))
    with run_choice.row():
        shown = run_choice.choose_run(own, kept, described, measured, "heads")
        with st.container():
            run_controls.controls(own, name, exact_steps, begin, lock, aside=shown != own, seconds=seconds)
    result = kept.get(shown) or empty_sweep(model, described, names)
    estimated = instant.head_estimates(store.get(estimate_key), view.method, metric)
    neurons = instant.neuron_estimates(store.get(estimate_key), view.method, metric)
    frame = run_frames.map_frame(result, view.method, metric, None, estimated)
    if frame.empty:
        with st.container(height=420, border=False):  # where the map will be
            st.info(
                "Nothing has been measured with these settings yet. The map fills as heads are finished; each is saved."
            )
        return
    sentence = sweep_sentence(result, view.method, metric)
    how = adaptive_sentence(result, view.method) if adaptive and result.rows else ""
    st.markdown(f"{sentence} {how}")
    first = frame["label"].iloc[0]
    map_column, head_column = st.columns([3, 2], gap="large")
    with head_column:
        text = text_box(
            "head",
            "Head",
            placeholder=f"{first}, the largest change",
            help="Click a head on the map, or type it: 3.2; or one of its neurons: 3.2:5.",
        )
        one = last_usable(
            "head", f"head of {model.ref}", text or first, partial(Selection.parse_one, shape=shape), usual=first
        )
        (((layer, number), picked),) = one.chosen
        head = f"{layer}.{number}"
        term = f"{head}:{picked[0]}" if len(picked) == 1 else head
        show_head(result, head, term, view.method, metric)
    with map_column:
        scored = choose_colour(view, data)
        if scored:
            show_score_map(view, data, *scored, (layer, number), pick_head)
        else:
            show_effects(frame, result, (layer, number))
    with st.expander("Table of all heads"):
        table = head_table(frame).rename(columns={"value": title})
        table = score_columns(table, *scored) if scored else table
        st.dataframe(table, hide_index=True, width="stretch", row_height=28, placeholder="–")
    if scored:
        show_score_scatter(view, *scored, result, estimated, metric, head, pick_point)
    show_agreement(result, metric)
    counted = instant.predictions(store.get(estimate_key))
    show_estimates(result, estimated, neurons, head, term, view.method, metric, counted, no_estimate())
    exports = sweep_exports(result, view.method, metric, head, estimated, neurons, adaptive)
    export_row.row(with_scores(exports, view, *scored) if scored else exports)


show_run()
