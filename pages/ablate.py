"""Ablate: what the model does without the selected neurons, by every method, on the same predictions."""

import math

import streamlit as st

from ablation_core.engine.metrics import METRICS, Metric, metrics_in, metrics_of
from ablation_core.experiments.noise_floor import NoiseFloor
from ablation_core.experiments.results import AblationResult
from ablation_core.report import charts, frames
from ablation_core.report.sentences import comparison, harm_split, verdict
from ablation_core.selection import Selection
from ablation_core.stats.intervals import Interval
from ablation_core.ui import ablation_job, export_row, page
from ablation_core.ui.choice import single_choice
from ablation_core.ui.shared import shared_data
from ablation_core.ui.token_view import show_affected_tokens
from ablation_core.ui.user_input import show_user_input
from ablation_core.ui.widgets import as_tables, draw

_COLUMNS = {
    one.name: st.column_config.NumberColumn(
        one.heading if isinstance(one, Metric) else one.label,
        format="percent" if one.format.endswith("%") else f"%{one.format}",
    )
    for metric in METRICS.values()
    for one in (metric, *metric.derived)
} | {
    "moved": st.column_config.NumberColumn(
        "moved, std", format="%.2f", help="How far the values are moved: root mean square, in standard deviations."
    ),
    "residual": st.column_config.NumberColumn(
        "residual stream's length", format="percent", help="Its mean change after the ablated layers."
    ),
}

view = page.open_page("Ablate", "✂️")
shape = view.model.shape
with page.show_errors():
    data = shared_data(view.model, view.data_ref, view.predictions, "evaluation")


def toggle_head() -> None:
    """The clicked head is added to the selection, or taken out of it."""
    if clicked := st.session_state[map_key].selection.get("pick"):
        head = Selection.of_heads([(int(clicked[0]["layer"]), int(clicked[0]["head"]))], shape)
        st.session_state["select"] = str(view.selection.toggled(head))


def show_numbers(result: AblationResult) -> None:
    """The chosen method's row of figures: baseline, ablated, change with interval."""
    row = next((row for row in result.results if row.method == view.method), result.results[0])
    before, after = result.baseline, row.performance
    figures = []
    for metric in metrics_in(row.change):
        change = row.change[metric.name]
        clean = "0" if metric.divergence else f"{before[metric.name]:{metric.format}}"
        text = page.interval_text(change, metric.change_format)
        figures.append((metric, metric.heading, clean, f"{after[metric.name]:{metric.format}}", text))
        for one in metric.derived:
            values = (f"{performance[one.name]:{one.format}}" for performance in (before, after))
            figures.append((metric, one.label, *values, _ratio(change)))
    for column, (metric, name, baseline, ablated, text) in zip(st.columns(len(figures)), figures, strict=True):
        change = row.change[metric.name]
        colour = ("red" if metric.worse * change.mean > 0 else "green") if change.shows_effect else "gray"
        column.markdown(f"**{name[0].upper()}{name[1:]}**  \n{baseline} → **{ablated}**  \n:{colour}[{text}]")


def _ratio(change: Interval) -> str:
    """The change of what is derived from a mean by the exponential, as a factor: the change, exponentiated."""
    bounds = (None, None) if change.low is None else (_factor(change.low), _factor(change.high))
    return "× " + page.interval_text(Interval(_factor(change.mean), *bounds), ".4f")


def _factor(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf  # beyond, it is no float any more


def show_comparison(result: AblationResult, floor: NoiseFloor | None) -> None:
    """All methods side by side, with the noise floor."""
    metric = st.session_state.get("metric") or "loss"
    title = METRICS[metric].change_title
    band = (floor.low, floor.high) if floor and metric == floor.metric else None
    frame = frames.change_frame(result, metric, view.method)
    draw(
        charts.changes,
        frame,
        title=title,
        floor=band,
        variant=tuple(frame["kind"]),
        alt=f"{title} by method with 95 % intervals.",
    )
    notes = [
        f"{result.data['predictions']:,} predictions in {result.data['sequences']:,} sequences of {result.data['ref']}",
        "95 % intervals, paired, resampling whole sequences",
    ]
    if band:
        notes.append(f"grey band: {floor.sets} random sets of as many neurons of the same layers, mean-ablated")
    st.caption("; ".join(notes) + ".")
    st.dataframe(frames.result_frame(result), column_config=_COLUMNS, hide_index=True, width="stretch")


def show_answer(outcome: ablation_job.AblationProgress) -> None:
    """The answer so far: an estimate, or what is measured and on how much."""
    result = outcome.result
    if outcome.guess and result is None:
        show_guess(outcome.guess)
    if result is None:
        if outcome.guess is None:
            st.caption("Nothing is measured yet.")
        return
    show_numbers(result)
    st.markdown(f"{verdict(result, view.method, outcome.floor)} {comparison(result)}")
    if split := harm_split(result, view.method):
        st.markdown(split)
    if not outcome.whole:
        done, wanted = result.data["predictions"], question.data.predictions
        more = f"So far: {done:,} of {wanted:,} predictions; the intervals shrink as more are measured."
        st.caption(more if done < wanted else f"All {done:,} predictions are measured; the noise floor follows.")


def show_methods(outcome: ablation_job.AblationProgress) -> None:
    """All methods side by side, as far as they are measured."""
    if outcome.result is None:
        st.caption("All methods side by side, once the first predictions are measured.")
    else:
        show_comparison(outcome.result, outcome.floor)


def show_guess(guess: ablation_job.Estimate) -> None:
    """The estimate, of the chosen method first, with the count it was made from."""
    changes = guess.changes
    first = view.method if view.method in changes else next(iter(changes))
    others = ", ".join(f"{name} {change:+.4f}" for name, change in changes.items() if name != first)
    st.markdown(
        f"**A rough estimate, from {guess.predictions} predictions**: {first} changes the loss by {changes[first]:+.4f} "
        f"nats a prediction ({others})."
    )
    st.caption(
        "By the loss's slope and bend on a single window, without ablating, so that it can be far off, and that of a "
        "small change even of the wrong sign; the sum of the heads' where several are selected. The measured values "
        "follow and take its place."
    )


st.header("What the model does without them", anchor=False)
answer, growing_answer = st.empty(), st.container()
map_column, result_column = st.columns([2, 3], gap="large")
with map_column:
    st.markdown("**Click heads to add or remove them**")
    map_key = f"map {view.selection}"  # a new key forgets the last click, so that the same head can be clicked again
    frame = frames.head_frame(frames.head_distances(view.statistics, view.bins), shape, set(view.selection.heads))
    draw(
        charts.head_map,
        frame,
        title="|peak − mean| in std",
        variant=shape,
        key=map_key,
        on_pick=toggle_head,
        alt=f"Map of {len(frame)} heads; the selected ones are outlined: {view.selection}.",
    )
    st.markdown("**Where the replaced values lie**")
    values = frames.replaced_frame(view.statistics, view.selection, view.bins)
    draw(
        charts.replaced_values,
        values,
        variant=tuple(values["kind"].unique()),
        alt="Each method's values in standard deviations from the neurons' means.",
    )
with result_column:
    single_choice(
        st.pills,
        "Compared by",
        [metric.name for metric in metrics_of(data)],
        default="loss",
        key="metric",
        help="What the picture shows for every method.",
    )
    st.toggle(
        "All methods",
        key="every",
        bind="query-params",
        help="Compare also the other ways to find the peak and to resample. They take as much longer as they are more.",
    )
    outcome = ablation_job.AblationProgress(None, share=0.0)
    with page.show_errors():
        question = ablation_job.asked(view)
        for note in question.data.notes:
            st.caption(note)
        place, growing_methods = st.empty(), st.container()
        for outcome in ablation_job.watched(question):
            with answer.container():
                show_answer(outcome)
            with place.container():
                show_methods(outcome)
        if not outcome.whole:
            answer.empty()
            place.empty()
            with growing_answer:
                ablation_job.keep_watching(question, show_answer)
            with growing_methods:
                ablation_job.keep_watching(question, show_methods, controls=True)
st.divider()
show_affected_tokens(view, outcome)
st.divider()
show_user_input(view, later=not outcome.whole)
as_tables(
    {
        "Every head": frame[["label", "value"]].set_axis(["head", "|peak − mean| in std"], axis=1),
        "Where the replaced values lie": values.set_axis(["method", "neuron", "std from its mean"], axis=1),
    },
    key="tables of the ablation",
)
if outcome.whole:
    export_row.of_ablation(view, outcome)
