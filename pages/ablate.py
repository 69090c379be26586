"""Ablate: what changes without the selected neurons, by every method, on the same predictions."""

import streamlit as st

from ablation_core.engine.metrics import METRICS, telling_metrics
from ablation_core.errors import AblationError, as_markdown
from ablation_core.report import frames
from ablation_core.report.charts import head_maps, method_charts
from ablation_core.ui import export_row, page
from ablation_core.ui.ablation import job as ablation_job
from ablation_core.ui.ablation.figures import show_result
from ablation_core.ui.ablation.methods import methods_table, show_methods
from ablation_core.ui.boxes import text_in
from ablation_core.ui.picking import draw_selection
from ablation_core.ui.runs.watching import watched
from ablation_core.ui.together.interactions import show_interactions
from ablation_core.ui.token_view import show_affected_tokens
from ablation_core.ui.user_input import show_user_input
from ablation_core.ui.widgets import as_tables, choose_metric, dark_page, draw

_SHOWN = "figures shown last"
_NAMED = 16  # characters of a selection in the title, which stays on one line
view = page.open_page("Ablate", "✂️")
shape = view.model.shape
metrics = telling_metrics((metric for metric in METRICS.values() if not metric.answers), view.model)


def with_figures(now: ablation_job.AblationProgress) -> tuple[ablation_job.AblationProgress, bool]:
    """What there are figures of, and whether they are the last ones of this model and data, since there are no new ones yet."""
    kept, of = st.session_state.get(_SHOWN), (view.info.fingerprint, request.data.fingerprint)
    if now.result is None and now.estimate is None and not is_stopped and kept and kept[0] == of:
        return kept[1], True
    st.session_state[_SHOWN] = of, now
    return now, False


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
        show_result(shown, view.method, metrics, request.data.predictions)
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
        show_methods(view, shown, metrics)


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
    | ({"All methods": methods_table(progress.result, metrics)} if progress.result else {}),
    key="tables of the ablation",
)
if progress.whole:
    export_row.of_ablation(view, progress)
