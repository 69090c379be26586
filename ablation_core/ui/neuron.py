"""One neuron: its distribution, the same on another data set, or by position; and the table of all neurons."""

from collections.abc import Callable

import pandas as pd
import streamlit as st

from ablation_core.activations.neuron_summary import NeuronSummary, summarise_neuron
from ablation_core.activations.statistics import Statistics
from ablation_core.data.references import STATISTICS_PREDICTIONS
from ablation_core.data.uploads import named
from ablation_core.errors import as_markdown
from ablation_core.report import distribution_frames, frames
from ablation_core.report.charts import distribution_charts, neuron_charts
from ablation_core.report.distribution_frames import ODDITIES, all_neurons_frame
from ablation_core.report.numbers import number
from ablation_core.server import access
from ablation_core.ui import page, statistics_job
from ablation_core.ui.shared import (
    find_shared_statistics,
    shared_all_neurons,
    shared_data,
    shared_positions,
    shared_statistics,
)
from ablation_core.ui.sidebar.data import DATA_KINDS
from ablation_core.ui.sidebar.view import View
from ablation_core.ui.widgets import dark_page, draw, single_choice, with_digits

SHOWN = ("histogram", "two data sets", "by position")
DENSITIES = ("smoothed", "normal")
_LISTED = 2000  # neurons in the table of the whole model


def show_neuron(view: View, layer: int, head: int, neuron: int) -> pd.DataFrame:
    """The controls, the sentence and the chart of a neuron; returns the chart's data."""
    reading = summarise_neuron(view.statistics, layer, head, neuron, view.bins)
    st.markdown(reading.sentence)
    shown_column, density_column, log_column = st.columns([5, 4, 2], vertical_alignment="bottom")
    shown = single_choice(
        shown_column.segmented_control, "View", SHOWN, default=SHOWN[0], key="shown",
        help="The histogram; the same neuron on another data set, on the same axes; or by position in the sequence.",
    )  # fmt: skip
    if shown == "two data sets":
        return _two_sets(view, layer, head, neuron)
    if shown == "by position":
        return _by_position(view, layer, head, neuron)
    density = density_column.pills(
        "Density", DENSITIES, key="density", bind="query-params",
        help="A curve over the bars: smoothed by a Gaussian kernel of Silverman's width, or a normal distribution of "
        "the same mean and standard deviation.",
    )  # fmt: skip
    log = log_column.toggle(
        "Log scale", key="log", bind="query-params", help="Counts on a logarithmic scale: rare activations show, too."
    )
    return _histogram(view, layer, head, neuron, reading, density, log)


def _histogram(
    view: View, layer: int, head: int, neuron: int, reading: NeuronSummary, density: str | None, log: bool
) -> pd.DataFrame:
    name = f"{layer}.{head}:{neuron}"
    bars = frames.histogram_frame(view.statistics, layer, head, neuron, view.bins)
    marks = frames.mark_frame(reading, bars)
    units = [bars, marks]
    if density:
        units.append(distribution_frames.density_frame(view.statistics, layer, head, neuron, view.bins, density))
    draw(
        distribution_charts.histogram_with_density if density else neuron_charts.neuron_histogram,
        *units,
        unit=f"activation of neuron {name}",
        log=log,
        dark=dark_page(),
        key="neuron picture",
        variant=len(marks),
        alt=f"Histogram of neuron {name}. {reading.sentence}",
    )
    notes = [f"{int(view.statistics.count[layer, head, neuron]):,} positions in {view.bins} bins"]
    if reading.outside:
        notes.append(
            f"{reading.outside:.2%} of the values are outliers beyond the bins' range; mean and std include them"
        )
    st.caption("; ".join(notes) + ".")
    return bars


def _two_sets(view: View, layer: int, head: int, neuron: int) -> pd.DataFrame:
    kind, listed = DATA_KINDS[view.info.modality]
    allowed = access.ACCESS
    others = [name for name in allowed.offered_data(kind, listed) if name != view.data_ref]
    if not others:
        st.caption("There is no other data to compare with here.")
        return pd.DataFrame()
    other_ref = st.selectbox(
        "Compare with", others, key="beside", bind="query-params", accept_new_options=not allowed.shared,
        help="Another data set that this server offers (statistics part)." if allowed.shared else "Another data set (statistics part). Type text: and a file's path, or images: and a folder's path.",
    )  # fmt: skip
    assert other_ref is not None  # one is always chosen
    with page.show_errors():
        other = _other_statistics(view, other_ref)
    bars, moves = distribution_frames.two_sets_frames(view.statistics, other, layer, head, neuron, view.bins)
    name = f"{layer}.{head}:{neuron}"
    one, two = (summarise_neuron(s, layer, head, neuron, view.bins) for s in (view.statistics, other))
    moved = distribution_frames.moves_sentence(moves, named(view.data_ref), named(other_ref))
    st.markdown(as_markdown(moved))
    draw(
        distribution_charts.two_sets,
        bars,
        moves,
        unit=f"activation of neuron {name}",
        first=view.statistics.provenance["data"],
        second=other.provenance["data"],
        dark=dark_page(),
        key="two data sets picture",
        alt=f"Histograms of neuron {name} on {view.data_ref} and on {other_ref}, one over the other. {moved}",
    )
    st.caption("Above the bars: mean and peak, from the first data set (tick) to the second (dot).")
    for ref, reading, statistics in ((view.data_ref, one, view.statistics), (other_ref, two, other)):
        values = ", ".join(f"{kind} {number(value, '.4g')}" for kind, value in reading.values.items())
        st.markdown(
            f"**{as_markdown(named(ref))}** ({statistics.provenance['tokens']:,} positions): {values}, std {reading.std:.4g}. "
            f"{reading.sentence}"
        )
    return bars


def _other_statistics(view: View, ref: str) -> Statistics:
    """Another data set's statistics, from the cache or as they are being computed; else a button that starts that."""
    entry = find_shared_statistics(view.info, ref)
    if entry is not None:
        return shared_statistics(view.info, entry)
    counted = statistics_job.offer(view.info, ref, view.model)
    if counted is None:
        st.stop()
    return counted


def _by_position(view: View, layer: int, head: int, neuron: int) -> pd.DataFrame:
    from ablation_core.activations.by_position import SEQUENCES

    with page.show_errors():
        data = shared_data(view.model, view.data_ref, STATISTICS_PREDICTIONS[view.model.modality], "statistics")
        with st.spinner("Running the model on a few sequences …", show_time=True), page.model_turn(view.model):
            found = shared_positions(view.model, data, layer)
    name = f"{layer}.{head}:{neuron}"
    frame = distribution_frames.position_frame(found, head, neuron)
    if view.info.modality == "vision":
        draw(
            distribution_charts.patches,
            distribution_frames.patch_frame(frame),
            unit=f"activation of neuron {name}",
            dark=dark_page(),
            key="position picture",
            alt="The neuron's mean activation at each patch of the image.",
        )
    else:
        skip = st.toggle(
            "Hide the first position", value=True, key="skip first", help="Its values are often far from all others."
        )
        draw(
            distribution_charts.positions,
            frame.iloc[1:] if skip else frame,
            unit=f"activation of neuron {name}",
            key="position picture",
            alt="The neuron by position: mean, median and the range of the middle 80% of the sequences.",
        )
        page.legend(("mean", "median"))
    shown = (
        "the mean at each patch."
        if view.info.modality == "vision"
        else "mean and median at each position; band: 10% to 90% quantile."
    )
    first = frame.iloc[0]
    st.caption(
        as_markdown(
            f"Over {found.sequences} {'images' if view.info.modality == 'vision' else 'sequences'} of {named(found.data)} "
            f"(statistics part; at most {SEQUENCES} are run): {shown} "
            f"At the first position the mean is {number(first['mean'], '.4g')}."
        )
    )
    return frame


def show_all_neurons(view: View, pick: Callable[[str], None]) -> None:
    """The table of all neurons, with the choice of what it is sorted by.

    Args:
        pick: called with the name of the clicked neuron, before the page runs again.
    """
    by = single_choice(
        st.pills, "Most unusual first, by", list(ODDITIES), default="peak from mean", key="odd", wrap=True,
        help="The distances between peak, mean and zero; skew; the distance of a second hump from the peak; or the width "
        "of the peak's interval: where it falls in 95% of samples of as many positions. Distances are in standard "
        "deviations.",
    )  # fmt: skip
    frame = all_neurons_frame(
        view.statistics, shared_all_neurons(view.statistics, view.bins), view.info.shape, view.bins, by
    )
    key = f"all neurons {by} {view.bins} {view.statistics.digest}"
    shown = frame.head(_LISTED)

    def picked() -> None:
        if rows := st.session_state[key].selection.rows:
            pick(shown["neuron"].iloc[rows[0]])

    digits = dict.fromkeys(frame.columns.drop("neuron"), ".3f")
    st.dataframe(
        with_digits(shown, digits), key=key, on_select=picked, selection_mode="single-row", hide_index=True,
        width="stretch", height=430, row_height=28,
    )  # fmt: skip
    most = (
        f"the {_LISTED:,} most unusual of {len(frame):,} neurons"
        if len(frame) > _LISTED
        else f"all {len(frame):,} neurons"
    )
    st.caption(f"Click a row's first cell to see that neuron below; {most}. Click a column's title to sort by it.")
