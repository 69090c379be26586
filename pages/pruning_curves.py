"""Pruning curves: more and more random neurons ablated, by every method, over several seeds."""

import math

import streamlit as st

from ablation_core import long_runs, run_charts, run_frames, ui
from ablation_core.curve import SEEDS, CurveResult, CurveSpec, curve_steps, describe_curve, kept_curves
from ablation_core.errors import DataError
from ablation_core.ledger import run_path
from ablation_core.methods import METHODS, USUAL, usable_methods
from ablation_core.run_words import curve_sentence
from ablation_core.server import shared_data

METRICS = {"loss": ("loss, nats a prediction", ".2f"), "top1": ("top-1, share right", ".0%")}
STEPS = (5, 10, 20, 25, 50)

view = ui.open_page("Pruning curves", "📉")
model = view.model


def read_seeds(text: str) -> tuple[int, ...]:
    """The numbers of the box."""
    try:
        return tuple(int(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        raise DataError(f"Cannot read the seeds {text!r}: write whole numbers such as 42 123 456.") from error


def levels(result: CurveResult, metric: str) -> dict[str, float]:
    """The clean model's height, and that of guessing blindly among the model's classes or tokens."""
    classes = result.description["classes"]
    form = METRICS[metric][1] if metric == "loss" else ".2%"
    chance = math.log(classes) if metric == "loss" else 1 / classes
    found = {f"chance: 1 of {classes:,}, {chance:{form}}": chance}
    if result.baseline is not None:
        found[f"baseline {result.baseline[metric]:{METRICS[metric][1]}}"] = result.baseline[metric]
    return found


def show_tables(result: CurveResult, metric: str) -> None:
    """The table at 50 and 90 per cent, and the ranks over the whole curve."""
    st.markdown("**With 50 and 90 % ablated**")
    st.dataframe(run_frames.table_frame(result, metric), hide_index=True, width="stretch")
    st.caption(f"{METRICS[metric][0]}: mean over seeds (least–greatest).")
    ranks = run_frames.rank_frame(result, metric)
    if len(ranks):
        st.markdown(f"**Over the whole curve, by {metric}**")
        st.dataframe(
            ranks,
            hide_index=True,
            width="stretch",
            column_config={name: st.column_config.NumberColumn(format="%.4f") for name in ranks if name != "method"},
        )
        p = result.ranks(metric)["p"]
        friedman = "" if p is None else f" Friedman's test of equal ranks: p = {p:.3f}."
        st.caption(
            f"Height: area under the curve over its width. Behind the best: mean difference in harm, paired over seeds, "
            f"with its 95 % t interval and p.{friedman}"
        )


st.header("Without more and more neurons", anchor=False)
metric = st.pills(
    "Measure", list(METRICS), default="loss", key="metric", bind="query-params", required=True, help="What is drawn."
)
with ui.sentences():
    data = shared_data(model, view.data_ref, view.predictions, "evaluation")
usable = usable_methods(data, model.modality)
methods = st.pills(
    "Methods",
    usable,
    default=[name for name in USUAL if name in usable],
    selection_mode="multi",
    key="methods",
    bind="query-params",
    help="Each gets a line; all ablate the same neurons.",
)
row = st.columns(3, gap="large", vertical_alignment="center")
seeds = row[0].text_input(
    "Seeds",
    value=" ".join(map(str, SEEDS)),
    key="seeds",
    bind="query-params",
    help="Each fixes another random order of every layer's neurons.",
)
step = row[1].select_slider(
    "Step, %", STEPS, value=10, key="step", bind="query-params", help="How much more is ablated at each point."
)
whole_heads = row[2].toggle(
    "Whole heads", key="whole", bind="query-params", help="Draw whole heads of each layer instead of single neurons."
)
names = [name for name in usable if name in methods]
if not names:
    st.info("Choose at least one method.")
    st.stop()
with ui.sentences():
    chosen = tuple(METHODS[name] for name in names)
    spec = CurveSpec(chosen, view.bins, read_seeds(seeds or ""), tuple(range(0, 101, step)), whole_heads)
described = describe_curve(model, data, view.statistics, view.bins, whole_heads)
own = run_path(long_runs.FOLDER, "curve", described)


def kept_of_this_kind() -> dict:
    """Neurons and whole heads are two things: only the kept curves of the chosen one."""
    kept = kept_curves(model, long_runs.FOLDER, spec)
    return {path: result for path, result in kept.items() if result.description["whole_heads"] == whole_heads}


def measured(result: CurveResult) -> int:
    return sum(name in rows for rows in result.points.values() for name in names)


wanted = len(names) * len(spec.seeds) * len(spec.percents)
shown = long_runs.choose_run(
    own, kept_of_this_kind(), described, lambda result: f"{measured(result)} of {wanted} points"
)  # fmt: skip


@long_runs.watched(own)
def draw() -> None:
    kept = kept_of_this_kind()
    mine, result = kept.get(own), kept.get(shown)
    left = wanted - (measured(mine) if mine else 0)
    begin = f"{'Go on with' if mine else 'Measure'} {left} points on {data.predictions:,} predictions" if left else None
    long_runs.controls(
        own,
        f"Pruning curves of {model.ref}",
        lambda: curve_steps(model, data, spec, view.statistics, long_runs.FOLDER),
        begin,
    )
    points = None if result is None else run_frames.point_frame(result, metric)
    if result is None or not len(points):
        st.info("Nothing is measured with these settings yet. The curves grow point by point, and each point is kept.")
        return
    title, form = METRICS[metric]
    st.markdown(curve_sentence(result, metric))
    chart_column, table_column = st.columns([3, 2], gap="large")
    with chart_column:
        bands = run_frames.curve_frame(result, metric)
        st.altair_chart(
            run_charts.pruning_curves(bands, points, title, form, levels(result, metric)),
            alt=f"{title} against the share of {'heads' if whole_heads else 'neurons'} ablated, a line for each method. "
            + curve_sentence(result, metric),
        )
        made = result.description
        st.caption(
            f"{made['data']['predictions']:,} predictions of {made['data']['ref']}; seeds "
            f"{', '.join(map(str, made['seeds']))}. Lines: mean over seeds; bands: least to greatest; small marks: single "
            f"seeds. Every method ablates the same {'heads' if whole_heads else 'neurons'}, drawn in each layer."
        )
    with table_column:
        show_tables(result, metric)


draw()
