"""Pruning curves: more and more random neurons removed, by every method, over several seeds."""

from dataclasses import replace
from pathlib import Path

import streamlit as st

from ablation_core.cluster.driver import steps_at
from ablation_core.engine.metrics import METRICS, metrics_of, telling_metrics
from ablation_core.methods.registry import METHODS, usable_methods
from ablation_core.report import run_frames
from ablation_core.report.charts import run_charts
from ablation_core.report.numbers import NONE, p_text, sample_unit
from ablation_core.report.run_sentences import curve_levels, curve_sentence, shown_sentence
from ablation_core.runs.ledger import run_path
from ablation_core.runs.pruning import SEEDS, CurveSpec, describe_curve, kept_curves, read_seeds
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.server.turns import fair_lock
from ablation_core.ui import export_row, page
from ablation_core.ui.boxes import last_usable
from ablation_core.ui.runs import choice as run_choice
from ablation_core.ui.runs import controls as run_controls
from ablation_core.ui.runs.expected import seconds_of
from ablation_core.ui.runs.export_row import curve_exports
from ablation_core.ui.runs.watching import watched_run
from ablation_core.ui.shared import shared_data
from ablation_core.ui.widgets import dark_page, draw, with_digits

STEPS = (5, 10, 20, 25, 50)

view = page.open_page("Pruning curves", "📉", controls=("predictions",))
model = view.model


def show_tables(result: CurveResult, metric: str) -> None:
    """The table at 50 and 90%, and the ranks over the whole curve."""
    st.markdown("**With 50 and 90% removed**")
    st.dataframe(run_frames.table_frame(result, metric), hide_index=True, width="stretch")
    st.caption(f"{METRICS[metric].heading}: mean over seeds (minimum–maximum).")
    ranks = run_frames.rank_frame(result, metric)
    if len(ranks):
        st.markdown(f"**Over the whole curve, by {metric}**")
        digits = dict.fromkeys(ranks.columns.drop("method"), ".4f") | {"mean rank": ".2f"}
        st.dataframe(with_digits(ranks, digits), hide_index=True, width="stretch", placeholder=NONE)
        p = p_text(result.ranks(metric)["p"])
        friedman = f" Friedman's test of equal ranks: {p}." if p else ""
        st.caption(
            f"Mean height: area under the curve divided by its width. Behind the best: mean difference from the best "
            f"method, paired over seeds, with its 95% t interval and p.{friedman}"
        )


st.header("Pruning curves: removing more and more neurons", anchor=False)
with page.show_errors():
    data = shared_data(model, view.data_ref, view.predictions, "evaluation")
with st.container(key="settings"):
    metric_column, methods_column, more_column = st.columns([6, 11, 3], vertical_alignment="bottom")
more = more_column.popover("More", help="More methods, seeds, step, whole heads, and where long runs are computed.")
with metric_column:
    metric = run_choice.choose_measure(
        telling_metrics((metric for metric in metrics_of(data) if metric.curve), model), "What the curves show."
    )
with methods_column:
    names = run_choice.choose_methods(
        usable_methods(data, model.modality), "One line per method; all remove the same neurons.", more
    )
with more:
    seeds = st.text_input(
        "Seeds",
        value=" ".join(map(str, SEEDS)),
        key="seeds",
        bind="query-params",
        help="Each seed fixes another random order of every layer's neurons.",
    )
    step = st.select_slider(
        "Step (%)", STEPS, value=10, key="step", bind="query-params", help="How much more is removed at each point."
    )
    whole_heads = st.toggle(
        "Whole heads",
        key="whole",
        bind="query-params",
        help="Remove whole heads of each layer instead of single neurons.",
    )
    place = run_choice.choose_place()
if not names:
    st.info("Choose at least one method.")
    st.stop()
usual = " ".join(map(str, SEEDS))
drawn = last_usable("seeds", "seeds", seeds or usual, read_seeds, usual=usual)
with page.show_errors():
    chosen = tuple(METHODS[name] for name in names)
    spec = CurveSpec(chosen, view.bins, drawn, tuple(range(0, 101, step)), whole_heads)
described = describe_curve(model, data, view.statistics, view.bins, whole_heads)
own = run_path(run_controls.FOLDER, "curve", described)


def kept_of_this_kind() -> dict[Path, CurveResult]:
    """The saved curves of neurons or of whole heads: the view's own with its steps and seeds, others with all they have."""
    kept = {path: _of_methods(result) for path, result in kept_curves(model, run_controls.FOLDER).items()}
    kept |= {path: result for path, result in kept_curves(model, run_controls.FOLDER, spec).items() if path == own}
    return {path: result for path, result in kept.items() if result.description["whole_heads"] == whole_heads}


def _of_methods(result: CurveResult) -> CurveResult:
    there = [name for name in names if name in result.description["methods"]]
    return replace(result, description=result.description | {"methods": there})


def measured(result: CurveResult) -> tuple[int, int]:
    """How many points of a curve are measured, and of how many."""
    methods, seeds, percents = (result.description[name] for name in ("methods", "seeds", "percents"))
    there = sum(name in rows for rows in result.points.values() for name in methods)
    return there, max(len(methods) * len(seeds) * len(percents), 1)


wanted = len(names) * len(spec.seeds) * len(spec.percents)


@watched_run(own)
def show_run() -> None:
    kept = kept_of_this_kind()
    mine = kept.get(own)
    left = wanted - (measured(mine)[0] if mine else 0)
    begin = (
        f"Continue: {left} points left"
        if mine
        else f"Measure {left} points on {data.predictions:,} {sample_unit(model.modality)}"
    )
    with run_choice.row():
        shown = run_choice.choose_run(own, kept, described, measured, "points")
        with st.container():
            run_controls.controls(
                own,
                f"Pruning curves of {model.ref}{run_choice.words_of(place)}",
                lambda: steps_at(place, model, data, spec, view.statistics, run_controls.FOLDER),
                begin if left else None,
                None if place else fair_lock(model),
                aside=shown != own,
                seconds=lambda: None if place else seconds_of(model, data, left),
            )
    result = kept.get(shown)
    points = None if result is None else run_frames.point_frame(result, metric)
    if result is None or not len(points):
        st.info(
            "Nothing has been measured with these settings yet. The curves grow point by point; each point is saved."
        )
        return
    sentence, row = curve_sentence(result, metric), METRICS[metric]
    st.markdown(sentence)
    units = "heads" if whole_heads else "neurons"
    bands = run_frames.curve_frame(result, metric)
    draw(
        run_charts.pruning_curves,
        bands,
        points,
        title=row.heading,
        form=row.axis_format,
        levels=tuple(curve_levels(result, metric).items()),
        dark=dark_page(),
        variant=(tuple(dict.fromkeys(points["kind"])), len(bands) > 0),
        key="curves",
        alt=f"{row.heading} against the share of {units} removed, one line per method.",
    )
    st.caption(
        f"{shown_sentence(result.description)} Lines: mean over seeds; bands: minimum to maximum; small marks: "
        f"single seeds. Every method removes the same {units}, drawn at random in each layer."
    )
    show_tables(result, metric)
    export_row.row(curve_exports(result, metric))


show_run()
