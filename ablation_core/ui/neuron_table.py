"""All of the model's neurons as a table, the most unusual first: a click on a row shows that neuron."""

from collections.abc import Callable

import streamlit as st

from ablation_core.report.distribution_frames import ODDITIES, all_neurons_frame
from ablation_core.ui.choice import single_choice
from ablation_core.ui.shared import shared_all_neurons
from ablation_core.ui.sidebar import View

_KEPT = 2000


def show_all_neurons(view: View, pick: Callable[[str], None]) -> None:
    """The table with what it is sorted by.

    Args:
        pick: called with the name of the clicked neuron, before the page runs again.
    """
    by = single_choice(
        st.pills, "Most unusual first, by", list(ODDITIES), default="peak from mean", key="odd", wrap=True,
        help="How far peak, mean and zero lie apart; skew; the distance of a second mode; or the width of the range "
        "in which the peak falls in 95 % of samples of as many positions. Distances are in standard deviations.",
    )  # fmt: skip
    frame = all_neurons_frame(
        view.statistics, shared_all_neurons(view.statistics, view.bins), view.info.shape, view.bins, by
    )
    key = f"all neurons {by} {view.bins} {view.statistics.digest}"
    shown = frame.head(_KEPT)

    def picked() -> None:
        if rows := st.session_state[key].selection.rows:
            pick(shown["neuron"].iloc[rows[0]])

    numbers = {name: st.column_config.NumberColumn(format="%.3f") for name in frame if name != "neuron"}
    st.dataframe(
        shown, key=key, on_select=picked, selection_mode="single-row", column_config=numbers, hide_index=True,
        width="stretch", height=430, row_height=28,
    )  # fmt: skip
    most = (
        f"the {_KEPT:,} most unusual of {len(frame):,} neurons" if len(frame) > _KEPT else f"all {len(frame):,} neurons"
    )
    st.caption(f"Click a row's first cell to see that neuron below; {most}. A click on a column's title sorts by it.")
