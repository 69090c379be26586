"""The sidebar: the view that all pages share, chosen and checked.

Every choice is a widget bound to the address: it survives page changes and reloads, and a copied link opens the same
view.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, TypeVar

import streamlit as st

from ablation_core.activations.statistics import not_finite_sentence
from ablation_core.errors import as_markdown
from ablation_core.methods.registry import METHODS, USUAL
from ablation_core.models.info import ModelInfo, predicts_class
from ablation_core.selection import Selection
from ablation_core.server import access
from ablation_core.ui.boxes import text_in
from ablation_core.ui.sidebar.data import choose_data, statistics_sentence
from ablation_core.ui.sidebar.model import SWITCHED, carry_selection_over, choose_model
from ablation_core.ui.sidebar.selection import choose_selection, fitting
from ablation_core.ui.sidebar.view import View

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator


T = TypeVar("T")
CONTROLS = ("predictions", "selection", "method")  # beside model, data and bins, which every page with a view uses
BINS = (20, 30, 40, 50, 60, 75, 100, 120, 150, 200, 300)
PREDICTIONS = (500, 1000, 2000, 5000, 10_000)


def read_view(runs_model: bool, main: DeltaGenerator, controls: Collection[str] = CONTROLS) -> View:
    """Draw the sidebar and return what is chosen there.

    What cannot be used is said in the main area, where it is seen on a telephone too, and the last choice that could be
    used stays. Stops the page where there is none, or where something has to be fetched or computed first.

    Args:
        runs_model: False for a page that shows something before the model is loaded.
        main: where messages go.
        controls: which of `CONTROLS` the page uses; the others keep their values out of sight.
    """
    allowed = access.ACCESS
    for sentence in allowed.refusals(st.query_params):  # before a box drops from the address what it does not list
        main.warning(as_markdown(sentence), icon="⚠️")
    info = choose_model(runs_model, main)
    if st.session_state.pop(SWITCHED, False):
        carry_selection_over(info)
    statistics, data_ref, whole = choose_data(info, not runs_model, main)
    predictions = _choose_predictions(info, "predictions" in controls)
    if "selection" in controls:
        selection = choose_selection(info, data_ref, statistics, main)
    else:
        selection = Selection.parse(fitting(text_in("select") or "", info.shape), info.shape)
    method = _choose_method(info, "method" in controls)
    offered = [count for count in BINS if count <= statistics.bins] or [statistics.bins]
    bins = st.select_slider(
        "Bins for the peak",
        offered,
        value=100 if 100 in offered else offered[-1],
        key="bins",
        bind="query-params",
        help="The peak is the centre of the fullest bin. Fewer bins: steadier, coarser. More bins: finer, noisier.",
    )
    if broken := not_finite_sentence(statistics):
        main.warning(broken, icon="⚠️")
    st.caption(as_markdown(statistics_sentence(statistics, whole, measured="predictions" in controls)))
    return View(info, data_ref, predictions, statistics, selection, method, bins, whole)


def _choose_predictions(info: ModelInfo, is_shown: bool) -> int:
    usual = 1000 if predicts_class(info.modality) else 2000
    if not is_shown:
        return _out_of_sight("predictions", PREDICTIONS, usual)
    return st.select_slider(
        {"vision": "Images", "text-classification": "Texts"}.get(info.modality, "Predictions"),
        PREDICTIONS,
        value=usual,
        key="predictions",
        bind="query-params",
        help="How many are scored with and without the ablation. More give narrower intervals and take longer.",
    )


def _choose_method(info: ModelInfo, is_shown: bool) -> str:
    usual_first = sorted(METHODS, key=lambda name: name not in USUAL)
    offered = {name: METHODS[name] for name in usual_first if info.modality in METHODS[name].modalities}
    if not is_shown:
        return _out_of_sight("method", list(offered), "peak")
    return st.selectbox(
        "Method",
        list(offered),
        index=list(offered).index("peak"),
        key="method",
        bind="query-params",
        help="What replaces each selected neuron's value.  \n"
        + "  \n".join(f"**{name}**: {as_markdown(row.description)}" for name, row in offered.items()),
    )


def _out_of_sight(name: str, options: Sequence[T], usual: T) -> T:
    """A setting that this page does not use, as another page has it or the address says."""
    said = {str(option): option for option in options}
    value = st.session_state.get(name, said.get(st.query_params.get(name, "")))
    if value not in options:
        return usual
    st.session_state[name] = value
    return value
