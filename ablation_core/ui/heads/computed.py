"""What a head does, computed once for a page: by one session at a time, and kept for all."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, TypeVar

import streamlit as st

from ablation_core.server.lru import LRU
from ablation_core.ui import page
from ablation_core.ui.sidebar.view import View

if TYPE_CHECKING:
    from ablation_core.data.dataset import Data
    from ablation_core.heads.scores import HeadScores

T = TypeVar("T")


@st.cache_resource
def _kept() -> LRU:
    """By what decides them. A layer's values are at most 64 MB (`heads/examples.py`)."""
    return LRU(24)


def computed(view: View, what: Hashable, words: str, make: Callable[[], T]) -> T:
    """The result of `make` for this view's model, from memory where it was made before.

    Args:
        what: what decides it besides the model.
        words: what is being done, while one waits.
    """
    key = (view.info.fingerprint, what)
    found = _kept().get(key)
    if found is None:
        with st.spinner(f"{words} …", show_time=True), page.model_turn(view.model):
            found = _kept().keep(key, make())
    result: T = found
    return result


def computed_scores(view: View, data: Data) -> HeadScores:
    """The scores of every head over the data.

    Raises:
        ModelError: the model's own attention cannot be seen.
    """
    from ablation_core.heads.scores import head_scores

    return computed(view, ("scores", data.fingerprint), "Scoring every head", lambda: head_scores(view.model, data))
