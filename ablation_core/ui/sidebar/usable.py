"""A box whose value cannot be used: said where it is seen, while the last usable value stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import streamlit as st

from ablation_core.errors import AblationError, as_markdown

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator


T = TypeVar("T")


def last_usable(
    box: str, name: str, value: str, read: Callable[[str], T], main: DeltaGenerator, usual: str | None = None
) -> T:
    """What is read from a box's value; if that is an error, it is shown, the box marked, and the last value read that
    could be used.

    Args:
        box: the widget's key.
        name: what the last usable value is remembered by.
        usual: what is read where there is none yet; None stops the page.
    """
    key = f"last usable {name}"
    try:
        found = read(value)
    except AblationError as error:
        main.error(as_markdown(error), icon="⚠️")
        st.html(f"<style>.st-key-{box} [data-baseweb] {{outline: 2px solid #c8401d; border-radius: 8px}}</style>")
        last = st.session_state.get(key, usual)
        if last is None or last == value:
            st.stop()
        main.caption(as_markdown(f"Shown below: {last or 'no selection'}."))
        return read(last)
    st.session_state[key] = value
    return found
