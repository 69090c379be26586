"""Ablate: what changes without the selected neurons, by every method, on the same predictions."""

import math

import streamlit as st

from ablation_core.engine.metrics import METRICS, Metric, metrics_in
from ablation_core.errors import AblationError, as_markdown
from ablation_core.experiments.noise_floor import NoiseFloor
from ablation_core.experiments.results import AblationResult
from ablation_core.report import charts, frames
from ablation_core.report.numbers import interval_text, is_points, number
from ablation_core.report.sentences import comparison, floor_words, loss_split, verdict
from ablation_core.selection import Selection
from ablation_core.stats.intervals import Interval
from ablation_core.ui import ablation_job, export_row, page
from ablation_core.ui.run_controls import watched
from ablation_core.ui.together.interactions import show_interactions
from ablation_core.ui.token_view import show_affected_tokens
from ablation_core.ui.user_input import show_user_input
from ablation_core.ui.widgets import as_tables, dark_page, draw, single_choice

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
classes = view.model.classes if view.model.predicts_class else None
metrics = [
    name
    for name, metric in METRICS.items()
    if not metric.answers and (classes is None or classes >= metric.fewest_classes)
]


def toggle_head() -> None:
    """Add the clicked head to the selection, or remove it."""
    if clicked := st.session_state[map_key].selection.get("pick"):
        head = Selection.of_heads([(int(clicked[0]["layer"]), int(clicked[0]["head"]))], shape)
        st.session_state["select"] = str(view.selection.toggled(head))


def show_numbers(result: AblationResult, floor: NoiseFloor | None) -> None:
    """The chosen method's figures: baseline, ablated, change with its interval."""
    row = next((row for row in result.results if row.method == view.method), result.results[0])
    before, after = result.baseline, row.performance
    figures = []
    for metric in metrics_in(row.change):
        if metric.name not in metrics:
            continue
        change = row.change[metric.name]
        clean = "0" if metric.divergence else f"{before[metric.name]:{metric.format}}"
        figures.append(
            (
                metric,
                metric.heading,
                clean,
                f"{after[metric.name]:{metric.format}}",
                _change(change, metric.change_format),
            )
        )
        for one in metric.derived:
            values = (f"{performance[one.name]:{one.format}}" for performance in (before, after))
            figures.append((metric, one.label, *values, _ratio(change)))
    for column, (metric, name, baseline, ablated, text) in zip(st.columns(len(figures)), figures, strict=True):
        colour = _colour(row.change[metric.name], metric, floor and floor.band(row.method, metric.name))
        column.markdown(
            f"**{name[0].upper()}{name[1:]}**  \n{baseline} → **{ablated}**  \n:{colour}[{as_markdown(text)}]"
        )


def _colour(change: Interval, metric: Metric, band: tuple[float, float] | None) -> str:
    """Red for worse, green for better, grey for no significant effect. A divergence is never negative, so that its interval
    never holds 0: it counts as worse where it exceeds the noise floor."""
    if metric.divergence:
        return "red" if band is not None and change.mean > band[1] else "gray"
    return ("red" if metric.worse * change.mean > 0 else "green") if change.shows_effect else "gray"


def _change(change: Interval, form: str) -> str:
    return interval_text(change.mean, change.low, change.high, form)


def _ratio(change: Interval) -> str:
    """The change of what is derived from a mean by the exponential, as a factor: the change, exponentiated."""
    bounds = (None, None) if change.low is None else (_factor(change.low), _factor(change.high))
    return "× " + interval_text(_factor(change.mean), *bounds, ".4f")


def _factor(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf  # beyond that a float overflows


def show_result(progress: ablation_job.AblationProgress) -> None:
    """The answer so far: an estimate, or what is measured and on how much."""
    result = progress.result
    if result is None:
        if progress.estimate:
            show_estimate(progress.estimate)
        else:
            st.caption("Nothing has been measured yet.")
        return
    show_numbers(result, progress.floor)
    st.markdown(as_markdown(f"{verdict(result, view.method, progress.floor)} {comparison(result)}"))
    if split := loss_split(result, view.method):
        st.markdown(as_markdown(split))
    done, wanted = result.data["predictions"], request.data.predictions
    if done < wanted:
        st.caption(f"So far: {done:,} of {wanted:,} predictions; intervals narrow as more are measured.")


def show_methods(progress: ablation_job.AblationProgress) -> None:
    """All methods side by side, each with its own noise floor, as far as they are measured."""
    result, floor = progress.result, progress.floor
    if result is None:
        st.caption("All methods side by side, once the first predictions are measured.")
        return
    metric = st.session_state.get("metric") or "loss"
    row = METRICS[metric if metric in metrics else "loss"]
    frame = frames.change_frame(result, row.name, view.method, floor)
    banded = bool(frame["floor_low"].notna().any())
    draw(
        charts.changes,
        frame,
        title=row.change_title,
        variant=(tuple(frame["kind"]), banded),
        points=is_points(row.change_format),
        alt=f"{row.change_title} by method with 95 % intervals.",
    )
    unit = {"vision": "images", "text-classification": "texts"}.get(view.model.modality, "sequences")
    counted = result.data["predictions"]
    sample = (
        f"{counted:,} {unit}"
        if view.model.predicts_class
        else f"{counted:,} predictions in {result.data['sequences']:,} sequences"
    )
    notes = [f"{sample} of {result.data['ref']}", f"95 % intervals, paired, resampling whole {unit}"]
    if banded and floor is not None:
        notes.append(f"grey bands: noise floor, {floor_words(floor.sets)}")
    st.caption(as_markdown("; ".join(notes) + "."))
    table = frames.result_frame(result)
    unused = [name for name in table if "top10" in name and "top10" not in metrics]
    st.dataframe(table.drop(columns=unused), column_config=_COLUMNS, hide_index=True, width="stretch")


def show_estimate(estimate: ablation_job.QuickEstimate) -> None:
    """The estimate, of the chosen method first, with the number of predictions behind it."""
    changes = estimate.changes
    first = view.method if view.method in changes else next(iter(changes))
    others = ", ".join(f"{name} {number(change, '+.4f')}" for name, change in changes.items() if name != first)
    st.markdown(
        f"**Estimate from {estimate.predictions} predictions**: {first} changes the loss by "
        f"{number(changes[first], '+.4f')} nats per prediction ({others})."
    )
    st.caption(
        "From gradients on one window; a second-order estimate. It can be far off, and for a small change even have the "
        "wrong sign. With several heads selected it is the sum of theirs. Measured values follow and replace it."
    )


def show_map() -> None:
    st.markdown("**Click heads to add or remove them**")
    draw(
        charts.head_map,
        heads,
        title="|peak − mean| in std",
        dark=dark_page(),
        variant=shape,
        key=map_key,
        on_pick=toggle_head,
        alt=f"Map of {len(heads)} heads; the selected ones are outlined: {view.selection}.",
    )
    st.markdown("**Replacement values**")
    draw(
        charts.replaced_values,
        values,
        variant=tuple(values["kind"].unique()),
        alt="Each method's values in standard deviations from the neurons' means.",
    )


def chosen() -> tuple[str, bool]:
    """What on this page decides the result."""
    return st.session_state.get("select") or "", bool(st.session_state.get("every"))


map_key = f"map {view.selection}"  # a new key forgets the last click, so that the same head can be clicked again
heads = frames.head_frame(frames.head_distances(view.statistics, view.bins), shape, set(view.selection.heads))
values = frames.replaced_frame(view.statistics, view.selection, view.bins)
seen, first_look = chosen(), iter((True,))
with page.show_errors():
    request = ablation_job.request_of(view)
    ablation_job.forget_failure(request)
    progress = ablation_job.progress_of(request)


def is_out_of_date() -> bool:
    """Whether the whole page has to be drawn again: another selection, or methods that are all measured by now."""
    if chosen() != seen:
        return True
    try:
        now = ablation_job.progress_of(request)
    except AblationError:
        return False  # shown in the part itself
    return (now.measured, now.whole) != (progress.measured, progress.whole)


title_column, progress_column = st.columns([3, 2], vertical_alignment="center")
words = as_markdown(str(view.selection))
is_head = len(view.selection.chosen) == 1 and len(view.selection) == shape.head_dim
title_column.header(f"What changes without {'head ' if is_head else ''}{words or 'any neurons'}", anchor=False)
with page.show_errors(), progress_column:
    progress = ablation_job.wait(request)
stopped = ablation_job.is_stopped(request)


@watched(is_out_of_date, None if progress.whole or stopped else ablation_job.EVERY)
def measured_part() -> None:
    """The figures, the map and the methods: all from the progress at one moment."""
    try:
        now = progress if next(first_look, False) else ablation_job.progress_of(request)
    except AblationError as error:
        st.error(as_markdown(error), icon="⚠️")
        return
    if not now.whole:
        ablation_job.show_progress(request, now)
    show_result(now)
    map_column, result_column = st.columns([2, 3], gap="large")
    with map_column:
        show_map()
    with result_column:
        single_choice(
            st.pills, "Metric", metrics, default="loss", key="metric", help="What the chart shows for every method."
        )
        st.toggle(
            "All methods",
            key="every",
            bind="query-params",
            help="Compare the other ways to find the peak and to resample, too. Run time grows with the number of methods.",
        )
        for note in request.data.notes:
            st.caption(note)
        show_methods(now)


measured_part()
show_interactions(view, request.data)
st.divider()
show_affected_tokens(view, progress)
st.divider()
show_user_input(view, later=not (progress.measured or stopped))
as_tables(
    {
        "Every head": heads[["label", "value"]].set_axis(["head", "|peak − mean| in std"], axis=1),
        "Replacement values": values.set_axis(["method", "neuron", "std from its mean"], axis=1),
    },
    key="tables of the ablation",
)
if progress.whole:
    export_row.of_ablation(view, progress)
