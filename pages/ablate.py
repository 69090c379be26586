"""Ablate: what changes without the selected neurons, by every method, on the same predictions."""

import math

import pandas as pd
import streamlit as st

from ablation_core.data.uploads import named
from ablation_core.engine.metrics import METRICS, Metric, metrics_in
from ablation_core.errors import AblationError, as_markdown
from ablation_core.experiments.noise_floor import NoiseFloor
from ablation_core.experiments.results import AblationResult
from ablation_core.report import frames
from ablation_core.report.charts import head_maps, method_charts
from ablation_core.report.numbers import interval_text, is_points, number
from ablation_core.report.sentences import comparison, floor_words, loss_split, verdict
from ablation_core.report.tasks.harm import mean_changes
from ablation_core.stats.intervals import Interval
from ablation_core.ui import ablation_job, export_row, page
from ablation_core.ui.boxes import text_in
from ablation_core.ui.picking import draw_selection
from ablation_core.ui.runs.controls import watched
from ablation_core.ui.tasks.harm import show_harm_parts
from ablation_core.ui.together.interactions import show_interactions
from ablation_core.ui.token_view import show_affected_tokens
from ablation_core.ui.user_input import show_user_input
from ablation_core.ui.widgets import as_tables, choose_metric, dark_page, draw, with_digits

_COLUMNS = {
    one.name: st.column_config.NumberColumn(one.heading if isinstance(one, Metric) else one.label)
    for metric in METRICS.values()
    for one in (metric, *metric.derived)
} | {
    "moved": st.column_config.NumberColumn(
        "moved, std", help="How far the values are moved: root mean square, in standard deviations."
    ),
    "residual": st.column_config.NumberColumn(
        "residual stream's length", help="Its mean change after the ablated layers."
    ),
}

_DIGITS = {one.name: one.format for metric in METRICS.values() for one in (metric, *metric.derived)} | {
    "moved": ".2f",
    "residual": ".1%",
}
_SHOWN = "figures shown last"
_FIGURE = 138  # pixels, so that three stand beside each other in the answer's column
_NAMED = 16  # characters of a selection in the title, which stays on one line
view = page.open_page("Ablate", "✂️")
shape = view.model.shape
classes = view.model.classes if view.model.predicts_class else None
metrics = [
    name
    for name, metric in METRICS.items()
    if not metric.answers and (classes is None or classes >= metric.fewest_classes)
]


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
    with st.container(horizontal=True):  # as many beside each other as there is room for
        for metric, name, baseline, ablated, text in figures:
            colour = _colour(row.change[metric.name], metric, floor and floor.band(row.method, metric.name))
            mean, *interval = text.split(" [", 1)
            lines = [
                f"**{name[0].upper()}{name[1:]}**",
                f"{baseline} → **{ablated}**",
                f":{colour}[{as_markdown(mean)}]",
            ]
            lines += [
                f":{colour}[:small[{as_markdown(f'[{rest}')}]]" for rest in interval
            ]  # whole, on a line of its own
            st.container(width=_FIGURE).markdown("  \n".join(lines))


def _colour(change: Interval, metric: Metric, band: tuple[float, float] | None) -> str:
    """Red for worse, blue for better, grey for no significant effect. A divergence is never negative, so that its interval
    never holds 0: it counts as worse where it exceeds the noise floor."""
    if metric.divergence:
        return "red" if band is not None and change.mean > band[1] else "gray"
    return ("red" if metric.worse * change.mean > 0 else "blue") if change.shows_effect else "gray"


def _change(change: Interval, form: str) -> str:
    return interval_text(change.mean, change.low, change.high, form)


def _ratio(change: Interval) -> str:
    """The change of what is derived from a mean by the exponential, as a factor: the change, exponentiated."""
    bounds = (None, None) if change.low is None else (_factor(change.low), _factor(change.high))
    return "× " + interval_text(_factor(change.mean), *bounds, ".4f")


def _factor(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf  # beyond that a float overflows


def show_result(now: ablation_job.AblationProgress) -> None:
    """The answer so far: an estimate, or what is measured and on how much."""
    result = now.result
    if result is None:
        if now.estimate:
            show_estimate(now.estimate)
        else:
            st.caption("Nothing has been measured yet.")
        return
    show_numbers(result, now.floor)
    st.markdown(as_markdown(f"{verdict(result, view.method, now.floor)} {comparison(result)}"))
    if split := loss_split(result, view.method):
        st.markdown(as_markdown(split))
    done, wanted = result.data["predictions"], request.data.predictions
    if done < wanted:
        st.caption(f"So far: {done:,} of {wanted:,} predictions; intervals narrow as more are measured.")


def with_figures(now: ablation_job.AblationProgress) -> tuple[ablation_job.AblationProgress, bool]:
    """What there are figures of, and whether they are the last ones of this model and data, since there are no new ones yet."""
    kept, of = st.session_state.get(_SHOWN), (view.info.fingerprint, request.data.fingerprint)
    if now.result is None and now.estimate is None and not is_stopped and kept and kept[0] == of:
        return kept[1], True
    st.session_state[_SHOWN] = of, now
    return now, False


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
        method_charts.changes,
        frame,
        title=row.change_title,
        variant=(tuple(frame["kind"]), banded, method_charts.change_span(frame, is_points(row.change_format))),
        points=is_points(row.change_format),
        key="changes",
        alt="The change by each method with its 95 % interval.",
    )
    unit = {"vision": "images", "text-classification": "texts"}.get(view.model.modality, "sequences")
    counted = result.data["predictions"]
    sample = (
        f"{counted:,} {unit}"
        if view.model.predicts_class
        else f"{counted:,} predictions in {result.data['sequences']:,} sequences"
    )
    notes = [f"{sample} of {named(result.data['ref'])}", f"95 % intervals, paired, resampling whole {unit}"]
    if banded and floor is not None:
        notes.append(f"grey bands: noise floor, {floor_words(floor.sets)}")
    st.caption(as_markdown("; ".join(notes) + "."))
    parts = frames.split_frame(result)
    if len(parts):
        st.markdown("**What the optimal constants explain**")
        draw(
            method_charts.loss_parts,
            parts,
            parts=frames.SPLIT,
            variant=tuple(parts["kind"]),
            alt="Each constant's increase in loss in two parts: what even the optimal constants cost, and the rest.",
        )
    show_harm_parts(*mean_changes(result), view.method)
    table = methods_table(result)
    first = [name for name in table if not name.startswith("change") and name not in ("moved", "residual")]
    st.dataframe(
        with_digits(table, _DIGITS), column_order=first, column_config=_COLUMNS, hide_index=True, width="stretch"
    )


def methods_table(result: AblationResult) -> pd.DataFrame:
    """Every figure by every method, without those that say nothing about this model."""
    table = frames.result_frame(result)
    return table[[name for name in table if "top10" not in name or "top10" in metrics]]


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
    """Every head, the selected ones outlined; drawn before anything is measured, so that a click is seen at once."""
    st.markdown("**Click heads to add or remove them**")
    draw_selection(
        head_maps.head_map,
        heads,
        title="|peak − mean| in std",
        dark=dark_page(),
        variant=shape,
        key=f"map {view.info.fingerprint}",
        selection=view.selection,
        box="select",
        alt="Map of all heads by the distance between peak and mean; the selected ones are outlined.",
    )


def show_replaced() -> None:
    """What each method puts in the neurons' place."""
    st.markdown("**Replacement values**")
    draw(
        method_charts.replaced_values,
        values,
        variant=(tuple(values["kind"].unique()), method_charts.replaced_span(values)),
        key="replacement values",
        alt="Each method's values in standard deviations from the neurons' means.",
    )


def title_words() -> str:
    """The selection, or how much is selected where that is too long for a title."""
    words, chosen = str(view.selection), view.selection.chosen
    are_whole = all(len(neurons) == shape.size(layer) for (layer, _), neurons in chosen)
    if len(words) > _NAMED:
        return f"{len(chosen)} heads" if are_whole else f"{len(view.selection):,} neurons"
    return as_markdown(f"head {words}" if are_whole and len(chosen) == 1 else words)


def chosen() -> tuple[str | None, bool]:
    """What on this page decides the result."""
    return text_in("select"), bool(st.session_state.get("every"))


heads = frames.head_frame(frames.head_distances(view.statistics, view.bins), shape)
values = frames.replaced_frame(view.statistics, view.selection, view.bins)
seen, first_look = chosen(), iter((True,))
with page.show_errors():
    request = ablation_job.request_of(view)
    ablation_job.forget_failure(request)
    progress = ablation_job.progress_of(request)
is_stopped = ablation_job.is_stopped(request)


def is_out_of_date() -> bool:
    """Whether the whole page has to be drawn again: another selection, or methods that are all measured by now."""
    if chosen() != seen:
        return True
    try:
        now = ablation_job.progress_of(request)
    except AblationError:
        return False  # shown in the part itself
    return now.measured != progress.measured or (looks_again and now.whole)


looks_again = not (progress.whole or is_stopped)


@watched(is_out_of_date, ablation_job.EVERY if looks_again else None)
def measured_part() -> None:
    """The map, the figures and the methods: all from the progress at one moment, each in a slot of its own.

    The map comes first, and nothing that grows stands above it. Then the page waits for new figures while the old ones
    stay where they are.
    """
    global progress
    title_column, progress_column = st.columns([3, 2], vertical_alignment="center")
    words = title_words()
    title = f"What changes without {words}" if words else "Pick a head: nothing is ablated"
    title_column.container(key="title").header(title, anchor=False)
    progress_slot = progress_column.container(height=68, border=False, key="progress")
    map_column, answer_column = st.columns([2, 3], gap="large")
    with map_column:
        show_map()
    figures_slot = answer_column.container(key="figures", border=False)
    figures_slot.html("<div></div>")  # Streamlit draws no empty container, and the slot must be there from the start
    values_column, methods_column = st.columns([2, 3], gap="large")
    with values_column:
        show_replaced()
    try:
        with progress_slot:
            if next(first_look, False):
                progress = now = ablation_job.wait(request)
            else:
                now = ablation_job.progress_of(request)
            if not now.whole:
                ablation_job.show_progress(request, now)
    except AblationError as error:
        figures_slot.error(as_markdown(error), icon="⚠️")
        return
    shown, are_old = with_figures(now)
    if are_old:
        st.html("<style>.st-key-figures, .st-key-methods {opacity: 0.45}</style>")
    with figures_slot:
        show_result(shown)
    with methods_column.container(key="methods"):
        metric_column, every_column = st.columns([3, 2], vertical_alignment="bottom")
        choose_metric(metric_column.pills, metrics, "loss", "metric", "What the chart shows for every method.")
        every_column.toggle(
            "More methods",
            key="every",
            bind="query-params",
            help="Compare the other ways to find the peak and to resample, too. Run time grows with the number of methods.",
        )
        for note in request.data.notes:
            st.caption(note)
        show_methods(shown)


measured_part()
show_interactions(view, request.data)
st.divider()
show_affected_tokens(view, progress)
st.divider()
show_user_input(view, later=not (progress.measured or is_stopped))
as_tables(
    {
        "Every head": heads[["label", "value"]].set_axis(["head", "|peak − mean| in std"], axis=1),
        "Replacement values": values.set_axis(["method", "neuron", "std from its mean"], axis=1),
    }
    | ({"All methods": methods_table(progress.result)} if progress.result else {}),
    key="tables of the ablation",
)
if progress.whole:
    export_row.of_ablation(view, progress)
