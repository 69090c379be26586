"""The selection of heads and neurons: typed, clicked away, undone."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import streamlit as st

from ablation_core.activations.neuron_summary import peak_distance
from ablation_core.activations.statistics import Statistics
from ablation_core.errors import AblationError, as_markdown
from ablation_core.models.info import ModelInfo
from ablation_core.selection import ModelShape, Selection
from ablation_core.ui.boxes import last_usable, put, text_box, text_in
from ablation_core.ui.glance.known import known_effects

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator


_REMEMBERED = 20  # selections that can be undone


def choose_selection(info: ModelInfo, data_ref: str, statistics: Statistics, main: DeltaGenerator) -> Selection:
    usual = str(_usual_head(info, data_ref, statistics))
    text = text_box(
        "select",
        "Ablated heads and neurons",
        usual,
        help=as_markdown(
            "3.2 is head 2 of layer 3; 3.2:0-7,12 are neurons of it; 3.* is a layer; *.* is everything. "
            "Separate several by spaces."
        ),
    )
    name = f"selection in {info.ref}"
    selection = last_usable(
        "select", name, text, lambda typed: Selection.parse(typed, info.shape), main,
        usual=usual,
    )  # fmt: skip
    _chips(selection)
    _undo(selection, info)
    return selection


def _chips(selection: Selection) -> None:
    """The selected terms; clicking one removes it."""
    terms = str(selection).split()
    if not terms:
        st.caption("No neurons are selected. Pick a head: click one on the Ablate page, or type it above.")
        return

    def keep() -> None:
        if text_in("select") == drawn:  # else the chips are of a selection before, which the browser still reports
            put("select", " ".join(st.session_state[key]))

    key, drawn = f"chips {selection}", text_in("select")
    st.pills(
        f"{len(selection):,} neuron{'s' * (len(selection) != 1)} · click to remove",
        terms,
        default=terms,
        selection_mode="multi",
        key=key,
        on_change=keep,
        format_func=as_markdown,  # *.* is emphasis in Markdown
        help="The selection in the box above, term by term.",
    )


def _undo(selection: Selection, info: ModelInfo) -> None:
    """A button that brings back the selection before this one."""
    past = st.session_state.setdefault(f"selections in {info.ref}", [])
    if not past or past[-1] != str(selection):
        past.append(str(selection))
        del past[:-_REMEMBERED]

    def undo() -> None:
        past.pop()
        put("select", past[-1])

    before = as_markdown(past[-2] or "nothing selected") if len(past) > 1 else ""
    st.button(
        "Undo", disabled=not before, on_click=undo, help=f"Back to: {before}." if before else "Nothing to undo yet."
    )


def _usual_head(info: ModelInfo, data_ref: str, statistics: Statistics) -> Selection:
    """The head that matters most in a saved sweep; without one, that whose neurons' peaks are farthest from their means."""
    known = known_effects(info, data_ref)
    if known is not None and (strongest := known.strongest_head) is not None:
        return Selection.of_heads([strongest], info.shape)
    distance = abs(peak_distance(statistics, min(100, statistics.bins))).mean(axis=-1)
    layer, head = divmod(int(distance.argmax()), distance.shape[1])
    return Selection.of_heads([(layer, head)], info.shape)


def fitting(text: str, shape: ModelShape) -> str:
    """The terms of a selection that a model of this shape has."""
    found = []
    for term in text.split():
        with suppress(AblationError):
            found.append(str(Selection.parse(term, shape)))
    return " ".join(found)
