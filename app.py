"""Distributions, the page that opens first: how a head's neurons are distributed, and where zero, mean and peak lie."""

import streamlit as st

from ablation_core import charts, frames, takeaway, ui
from ablation_core.reading import read_neuron
from ablation_core.selection import Selection

COLUMNS = 8

view = ui.open_page("Distributions", "📊")
statistics, shape = view.statistics, view.model.shape


def show_head() -> None:
    """The clicked head of the map becomes the one shown."""
    if clicked := st.session_state["heads"].selection.get("pick"):
        st.session_state["neuron"] = f"{int(clicked[0]['layer'])}.{int(clicked[0]['head'])}"


def show_neuron() -> None:
    """The clicked neuron of the grid becomes the one shown large."""
    if clicked := st.session_state[f"grid {layer}.{head}"].selection.get("pick"):
        st.session_state["neuron"] = f"{layer}.{head}:{int(clicked[0]['neuron'])}"


def toggle(term: str) -> None:
    """Add a head or a neuron to what is ablated, or take it out."""
    st.session_state["select"] = str(view.selection.toggled(Selection.parse(term, shape)))


def toggle_button(term: str, words: str) -> None:
    """A button that adds the term to what is ablated or, where it is there already, removes it."""
    chosen = Selection.parse(term, shape)
    grown = view.selection.toggled(chosen)
    verb = "Add" if len(grown) > len(view.selection) else "Remove"
    direction = "to" if verb == "Add" else "from"
    st.button(
        f"{verb} {words} {direction} what is ablated",
        key=f"toggle {words}",
        on_click=toggle,
        args=(term,),
        help="The sidebar lists what is ablated; the Ablate page shows what happens without it.",
    )


st.header("How a head's neurons are distributed", anchor=False)

map_column, grid_column = st.columns([2, 3], gap="large")
with map_column:
    st.markdown("**Every head: how far peak and mean lie apart**")
    heads_slot = st.container()
    text = st.text_input(
        "Shown: a head (3.2) or a neuron of it (3.2:5)",
        value=str(view.selection).split()[0].split(":")[0] if view.selection.heads else "0.0",
        key="neuron",
        bind="query-params",
        help="Click a head on the map or a small histogram on the right, or type it.",
    )
with ui.sentences():
    shown = Selection.parse(text or "0.0", shape)
    (layer, head), picked = shown.chosen[0] if shown.chosen else ((0, 0), tuple(range(shape.head_dim)))
neurons = frames.neuron_frame(statistics, layer, head, view.bins)
neuron = picked[0] if len(picked) == 1 else int(neurons["neuron"].iloc[0])

with heads_slot:
    distances = frames.head_distances(statistics, view.bins)
    frame = frames.head_frame(distances, shape, {(layer, head)})
    st.altair_chart(
        charts.head_map(frame, "|peak − mean| in std"),
        key="heads",
        on_select=show_head,
        selection_mode="pick",
        alt=f"Map of {len(frame)} heads coloured by the distance between peak and mean; head {layer}.{head} is outlined.",
    )
with map_column:
    toggle_button(f"{layer}.{head}", f"head {layer}.{head}")

with grid_column:
    st.markdown(f"**Head {layer}.{head}: its {shape.head_dim} neurons, the oddest first**")
    st.altair_chart(
        charts.neuron_grid(*frames.grid_frames(statistics, layer, head, neurons, neuron, COLUMNS), COLUMNS),
        key=f"grid {layer}.{head}",
        on_select=show_neuron,
        selection_mode="pick",
        alt=f"Small histograms of the neurons of head {layer}.{head} with zero, mean, median and peak marked.",
    )
    ui.legend(("zero", "mean", "median", "peak"))
    st.caption("Each over its own range; zero is left out where it lies beyond. Click one to see it large.")

st.divider()
reading = read_neuron(statistics, layer, head, neuron, view.bins)
title_column, button_column, log_column = st.columns([5, 5, 2], vertical_alignment="bottom")
title_column.subheader(f"Neuron {layer}.{head}:{neuron}", anchor=False)
with button_column:
    toggle_button(f"{layer}.{head}:{neuron}", f"neuron {layer}.{head}:{neuron}")
log = log_column.toggle("Log", key="log", bind="query-params", help="Logarithmic counts: rare activations show too.")
st.markdown(reading.sentence)
st.altair_chart(
    charts.neuron_histogram(
        frames.histogram_frame(statistics, layer, head, neuron, view.bins),
        frames.mark_frame(reading),
        f"activation of neuron {layer}.{head}:{neuron}",
        log,
    ),
    alt=f"Histogram of neuron {layer}.{head}:{neuron}. {reading.sentence}",
)
if reading.outside:
    st.caption(f"{reading.outside:.2%} of the values lie beyond the bins' range; mean and std include them.")
with st.expander("All neurons of this head as a table"):
    st.dataframe(
        neurons.rename(columns={"apart": "peak − mean, in std"}), hide_index=True, width="stretch", row_height=28
    )
takeaway.of_neuron(view, layer, head, neuron)
