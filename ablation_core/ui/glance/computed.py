"""What a card shows, computed once: by one session at a time, and kept for all."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

import streamlit as st

from ablation_core.server.lru import LRU
from ablation_core.ui import page
from ablation_core.ui.glance.shown import Glance

T = TypeVar("T")


@st.cache_resource
def _kept() -> LRU:
    """By what decides them. A layer's values are at most 64 MB (`heads/examples.py`)."""
    return LRU(24)


def computed(glance: Glance, what: Hashable, words: str, make: Callable[[], T]) -> T:
    """The result of `make` for this model, from memory where it was made before.

    Args:
        what: what decides it besides the model.
        words: what is being done, while one waits.
    """
    key = (glance.view.info.fingerprint, what)
    found = _kept().get(key)
    if found is None:
        with st.spinner(f"{words} …", show_time=True), page.model_turn(glance.view.model):
            found = _kept().keep(key, make())
    result: T = found
    return result
