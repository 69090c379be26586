"""Distributions: what values a head's neurons take, with zero, mean, median and peak marked."""

import streamlit as st

from ablation_core.errors import AblationError, as_markdown
from ablation_core.report import frames
from ablation_core.report.charts import head_maps, neuron_charts
from ablation_core.selection import Selection
from ablation_core.ui import export_row, page
from ablation_core.ui.boxes import put, text_box
from ablation_core.ui.neuron import show_all_neurons, show_neuron
from ablation_core.ui.picking import draw_choice
from ablation_core.ui.shared import load_in_background
from ablation_core.ui.sidebar.selection import fitting
from ablation_core.ui.widgets import as_tables, dark_page, single_choice

COLUMNS = 8
LISTS = ("this head", "whole model")

view = page.open_page("Distributions", "📊", runs_model=False, controls=("selection",))
statistics, shape = view.statistics, view.info.shape


def toggle(term: str) -> None:
    """Add a head or a neuron to the selection, or remove it."""
    put("select", str(view.selection.toggled(Selection.parse(term, shape))))


def toggle_button(term: str, words: str) -> None:
    """A button that ablates the term or, where it is selected already, stops that."""
    grown = view.selection.toggled(Selection.parse(term, shape))
    verb = "Ablate" if len(grown) > len(view.selection) else "Stop ablating"
    if st.button(
        f"{verb} {words}",
        key=f"toggle {words}",
        on_click=toggle,
        args=(term,),
        help="The sidebar lists what is ablated; the Ablate page shows the effect.",
    ):
        st.rerun()  # the sidebar shows it, too


def pick(term: str) -> None:
    """Show this head or neuron."""
    put("neuron", term)


def show_map(layer: int, head: int) -> None:
    """Every head; the shown one is outlined."""
    frame = frames.head_frame(frames.head_distances(statistics, view.bins), shape)
    draw_choice(
        head_maps.head_map,
        frame,
        title="|peak − mean| in std",
        dark=dark_page(),
        variant=shape,
        key="heads",
        shown={"layer": layer, "head": head},
        choose=lambda mark: pick(f"{int(mark['layer'])}.{int(mark['head'])}"),
        alt=f"Map of {len(frame)} heads coloured by the distance between peak and mean; the head on show is outlined.",
    )


def show_head(layer: int, head: int, neuron: int) -> None:
    """The head's neurons as small histograms."""
    neurons = frames.neuron_frame(statistics, layer, head, view.bins)
    outlines, marks, cells = frames.grid_frames(statistics, layer, head, neurons, neuron, COLUMNS)
    draw_choice(
        neuron_charts.neuron_grid,
        outlines,
        marks,
        cells,
        columns=COLUMNS,
        dark=dark_page(),
        variant=(len(cells), tuple(marks["kind"].unique())),
        key=f"grid {layer}.{head}",
        shown={"neuron": neuron},
        choose=lambda mark: pick(f"{layer}.{head}:{int(mark['neuron'])}"),
        picked_in=2,
        alt=f"Small histograms of the neurons of head {layer}.{head} with zero, mean, median and peak marked.",
    )
    page.legend(("zero", "mean", "median", "peak"))
    st.caption(
        f"The {shape.head_dim} neurons of head {layer}.{head}, those with the peak farthest from the mean first, each on "
        f"its own range; zero is marked where it lies within. Click one to enlarge it."
    )


@st.fragment
def body() -> None:
    """Everything but the sidebar: a click here runs only this."""
    map_column, list_column = st.columns([2, 3], gap="large")
    with map_column:
        st.markdown("**Every head: distance between peak and mean**")
        map_slot = st.container()
        text = text_box(
            "neuron",
            "Head or neuron",
            usual=str(view.selection).split()[0].split(":")[0] if view.selection.heads else "0.0",
            help="Click a head on the map, a small histogram or a row on the right; or type a head (3.2) or a neuron of it (3.2:5).",
        )
        try:
            shown = Selection.parse(text or "0.0", shape)
            st.session_state["last shown neuron"] = str(shown)
        except AblationError as error:  # the last one that could be read stays
            st.error(as_markdown(error), icon="⚠️")
            shown = Selection.parse(fitting(st.session_state.get("last shown neuron", ""), shape) or "0.0", shape)
        (layer, head), picked = shown.chosen[0] if shown.chosen else ((0, 0), tuple(range(shape.head_dim)))
        oddest = frames.neuron_frame(statistics, layer, head, view.bins)["neuron"].iloc[0]
        neuron = picked[0] if len(picked) == 1 else int(oddest)
        toggle_button(f"{layer}.{head}", f"head {layer}.{head}")
    with map_slot:
        show_map(layer, head)
    with list_column:
        listed = single_choice(
            st.segmented_control,
            "Neurons of",
            LISTS,
            default=LISTS[0],
            key="list",
            help="The neurons of this head as small histograms, or all neurons of the model as a table, the most unusual first.",
        )
        if listed == LISTS[0]:
            show_head(layer, head, neuron)
        else:
            show_all_neurons(view, pick)
    st.divider()
    title_column, button_column = st.columns(2, vertical_alignment="bottom")
    title_column.subheader(f"Neuron {layer}.{head}:{neuron}", anchor=False)
    with button_column:
        toggle_button(f"{layer}.{head}:{neuron}", f"neuron {layer}.{head}:{neuron}")
    pictured = show_neuron(view, layer, head, neuron)
    heads = frames.head_frame(frames.head_distances(statistics, view.bins), shape)
    tables = {
        "Every head": heads[["label", "value"]].set_axis(["head", "|peak − mean| in std"], axis=1),
        f"Head {layer}.{head}": frames.neuron_frame(statistics, layer, head, view.bins),
        f"Neuron {layer}.{head}:{neuron}": pictured,
    }
    as_tables(tables, key="tables of distributions")
    if view.whole:
        export_row.of_neuron(view, layer, head, neuron)


st.header("What values a head's neurons take", anchor=False)
body()
with page.show_errors():  # the model may vanish at any moment
    load_in_background(view.info.ref, first_import="ablation_core.ui.ablation.job")
