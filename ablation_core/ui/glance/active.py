"""The card "When it is active": positions of the data where the head writes much, or one of its neurons takes certain values."""

from __future__ import annotations

import streamlit as st

from ablation_core.report.heads.examples import example_images, example_lines, value_bars, value_chart
from ablation_core.report.heads.frames import neurons_by_oddness
from ablation_core.ui.glance import inputs
from ablation_core.ui.glance.shown import Glance
from ablation_core.ui.heads.computed import computed
from ablation_core.ui.widgets import draw_once

PLACES = ("highest", "lowest", *(f"decile {one}" for one in range(1, 11)), "a clicked bar")
_ENDS = {"highest": "top", "lowest": "bottom"}
_BAR = "clicked bar of values"


def show_active(glance: Glance) -> None:
    from ablation_core.heads.examples import LayerValues
    from ablation_core.heads.scores import patch_grid
    from ablation_core.heads.target import Target

    view, data, (layer, head) = glance.view, inputs.evaluation_data(glance), glance.head
    collected = computed(
        glance.view, ("values", data.fingerprint, layer), "Collecting the layer's values",
        lambda: LayerValues.collect(view.model, data, layer),
    )  # fmt: skip
    odd = neurons_by_oddness(view.statistics, layer, head, view.bins)
    what_column, where_column = st.columns(2)
    whole = "the head: how much it writes"
    what = what_column.selectbox(
        "Active means", [whole, *(f"neuron {glance.name}:{one}: its activation" for one in odd)], key="active what",
        help="For the head, the norm of what it adds to the residual stream; for a neuron, its activation.",
    )  # fmt: skip
    neuron = None if what == whole else int(what.split(":")[1])
    target = Target(layer, head, neuron)
    where = where_column.selectbox(
        "Examples from", PLACES, key="active where", help="Deciles and bars: drawn at random."
    )
    values = collected.values[:, collected.targets.index(target)]
    bars = value_bars(values)
    key = f"values of {target}"

    def pick() -> None:
        if clicked := st.session_state[key].selection.get("pick"):
            st.session_state[_BAR] = (str(target), int(clicked[0]["bar"]))
            st.session_state["active where"] = PLACES[-1]

    chart_column, list_column = st.columns([2, 3], gap="large")
    with chart_column:
        unit = "norm of what it writes" if neuron is None else "activation"
        draw_once(
            value_chart(bars, unit),
            key=key,
            on_pick=pick,
            alt=f"Histogram of {unit} at {len(values):,} positions.",
        )
        st.caption(f"{collected.positions:,} positions. Click a bar to see examples from it.")
    with list_column:
        chosen: str | tuple[float, float] = _ENDS.get(where, where)
        if where == PLACES[-1]:
            of, bar = st.session_state.get(_BAR, ("", 0))
            if of != str(target):
                st.caption("Click a bar of the histogram.")
                return
            chosen = float(bars["left"][bar]), float(bars["right"][bar])
        found = collected.examples(target, chosen, seed=data.seed)
        if view.info.modality == "vision":
            grid = patch_grid(view.model, int(collected.places[:, 1].max()) + 1)
            st.html(example_images(found, inputs.pictures(glance, [one.sequence for one in found]), grid))
        else:
            st.html(example_lines(found))
