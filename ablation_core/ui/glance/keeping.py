"""Keeping the head on show under a name: all that the cards say of it, and what is lost without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from ablation_core.ui.glance.shown import Glance
from ablation_core.ui.heads.computed import computed
from ablation_core.ui.shared import is_loaded
from ablation_core.ui.together.keep import keep_popover

if TYPE_CHECKING:
    from ablation_core.heads.describe import HeadDescription


def show_keep(glance: Glance) -> None:
    """The button; it describes the head when it is pressed. Shown once the model is loaded."""
    if not glance.view.whole or not is_loaded(glance.view.info.ref):
        return
    with st.container(key="keep-head"):
        suggested = f"{glance.view.info.ref}, head {glance.name}, {glance.view.data_ref}"
        keep_popover(lambda: _described(glance), "app.py", suggested, words="Keep this head")


def _described(glance: Glance) -> HeadDescription:
    from ablation_core.heads.describe import describe_head
    from ablation_core.ui.ablation.job import request_of

    view, request = glance.view, request_of(glance.view)
    names = sorted((method.name for method in request.methods), key=lambda name: name != view.method)  # its own first
    what = ("description", glance.name, request.data.fingerprint, view.statistics.digest, view.bins, *names)
    return computed(
        view, what, "Describing the head",
        lambda: describe_head(view.model, request.data, glance.name, names, view.statistics, bins=view.bins),
    )  # fmt: skip
