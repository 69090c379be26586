"""What the head does: cards below the first picture, each computed when it is opened and kept."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from ablation_core.errors import AblationError, as_markdown
from ablation_core.ui.glance.active import show_active
from ablation_core.ui.glance.kind import show_kind
from ablation_core.ui.glance.looks import show_looks
from ablation_core.ui.glance.shown import Glance
from ablation_core.ui.glance.writing import show_writing

_CARDS: dict[str, tuple[str, Callable[[Glance], None]]] = {  # the address' name → title, content
    "looks": ("Where it looks", show_looks),
    "scores": ("What kind of head it is", show_kind),
    "examples": ("When it is active", show_active),
    "writes": ("What it writes", show_writing),
}


def show_cards(glance: Glance) -> None:
    for name, (title, show) in _CARDS.items():
        _card(glance, name, title, show)


@st.fragment
def _card(glance: Glance, name: str, title: str, show: Callable[[Glance], None]) -> None:
    card = st.expander(f"**{title}**", key=name, on_change="rerun", bind="query-params")
    if not card.open:
        return
    with card:
        try:
            show(glance)
        except AblationError as error:
            st.info(as_markdown(error))
