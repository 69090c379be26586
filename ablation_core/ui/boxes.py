"""Text boxes that the page writes into, too, since a click on a chart says the same as typing.

With every event the browser sends what stands in all boxes, and until it has the page's answer that is the text of a
moment ago. In a widget that is bound to a name, this text would undo the click. So what holds is kept here, and whenever
the page writes into a box, the box is another widget from then on: what the browser still sends of the one before is of
no widget. The address follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import streamlit as st

from ablation_core.errors import AblationError, as_markdown

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

T = TypeVar("T")
NAMES = ("select", "head", "neuron")  # the settings that have such a box
_BOXES = "text boxes"


@dataclass
class _Box:
    """A box's text; None while it is the usual one. `seen` is what the browser's box of this version said last."""

    text: str | None = None
    version: int = 0
    seen: str | None = None

    def key(self, name: str) -> str:
        return f"{name} {self.version}"


def text_in(name: str) -> str | None:
    """What is in a box, also where another page has it; None for what is usual there."""
    box = _box(name)
    typed = st.session_state.get(box.key(name))
    if typed is not None and typed != box.seen:
        box.text = box.seen = typed
    return box.text


def put(name: str, text: str | None) -> None:
    """Write into a box; None stands for what is usual there."""
    if text_in(name) != text:
        st.session_state[_BOXES][name] = _Box(text, _box(name).version + 1)


def follow_address() -> None:
    """Take what the address says, where a page is opened by it."""
    for name in NAMES:
        if name in st.query_params:
            put(name, st.query_params[name])


def text_box(name: str, label: str, usual: str = "", **looks: Any) -> str:
    """Draw a box and return its text.

    Args:
        usual: what is there before anything is typed or written; an address without a text stands for it.
        looks: as `st.text_input` takes them.
    """
    text, box = text_in(name), _box(name)
    text = usual if text is None else text
    if box.seen is None:
        box.seen = text

    def typed() -> None:
        text_in(name)

    with st.container(key=name):  # `page.css` shows the first of two versions
        st.text_input(label, value=text, key=box.key(name), on_change=typed, **looks)
    if text == usual:
        st.query_params.pop(name, None)
    elif st.query_params.get(name) != text:
        st.query_params[name] = text
    return text


def last_usable(
    box: str,
    name: str,
    value: str,
    read: Callable[[str], T],
    main: DeltaGenerator | None = None,
    usual: str | None = None,
) -> T:
    """What is read from a box's value; if that is an error, it is shown, the box marked, and the last value read that
    could be used.

    Args:
        box: the widget's key.
        name: what the last usable value is remembered by.
        main: where the error is shown; by default here.
        usual: what is read where there is none yet; None stops the page.
    """
    key = f"last usable {name}"
    try:
        found = read(value)
    except AblationError as error:
        main = main or st.container()
        main.error(as_markdown(error), icon="⚠️")
        st.html(f"<style>.st-key-{box} [data-baseweb] {{outline: 2px solid #c8401d; border-radius: 8px}}</style>")
        last = st.session_state.get(key, usual)
        if last is None or last == value:
            st.stop()
        main.caption(as_markdown(f"Shown below: {last.strip(' ,;') or 'nothing selected'}."))
        return read(last)
    st.session_state[key] = value
    return found


def _box(name: str) -> _Box:
    return st.session_state.setdefault(_BOXES, {}).setdefault(name, _Box())
