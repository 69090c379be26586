"""What the pages share: their frame, errors as sentences, the turn with a model, and the legend."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import streamlit as st

from ablation_core.errors import AblationError, as_markdown
from ablation_core.runtime import prepare_process
from ablation_core.server.turns import turn
from ablation_core.ui.learn.strip import show_strip
from ablation_core.ui.runs.controls import show_mine
from ablation_core.ui.settings import keep_settings
from ablation_core.ui.sidebar.sidebar import CONTROLS, read_view
from ablation_core.ui.sidebar.view import View
from ablation_core.ui.widgets import DISTRIBUTIONS_ONLY, copy_buttons, page_link

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

    from ablation_core.models.loaded import LoadedModel

PAGES = {
    "app.py": "One head",
    "pages/distributions.py": "Distributions",
    "pages/ablate.py": "Ablate",
    "pages/head_map.py": "Head map",
    "pages/pruning_curves.py": "Pruning curves",
    "pages/tasks.py": "Tasks",
    "pages/saved.py": "Saved results",
    "pages/models_and_data.py": "Models and data",
    "pages/learn.py": "Learn",
}


def asks_for_distributions(parameters: Iterable[str]) -> bool:
    """Whether these names of an address' parameters are of the Distributions page."""
    return not DISTRIBUTIONS_ONLY.isdisjoint(parameters)


# A page's own style is drawn a moment after it arrives: what it places comes later, or would move (once a visit).
_PLACED, _HEAD_START = "style is there", 0.25
_FOLDER = Path(__file__).parent
_STYLE = f"<style>{(_FOLDER / 'page.css').read_text(encoding='utf-8')}</style>"
# Narrow margins, since tables and charts need the room. A column of text has Streamlit's own margins: it is there before
# any style, and would be set again.
_WIDE = """<style>
.stMainBlockContainer {padding: 2.1rem 2.2rem 2rem}
@media (max-width: 640px) {.stMainBlockContainer {padding: 3.6rem 1rem 1rem}}
</style>"""
_SCRIPT = f"<script>{(_FOLDER / 'page.js').read_text(encoding='utf-8')}</script>"
# For the back row: everything larger, and the sidebar away.
_PROJECTED = """<style>
html {font-size: 21px}
[data-testid="stSidebar"], [data-testid="stExpandSidebarButton"] {display: none}
</style>"""


def open_page(
    title: str, icon: str, runs_model: bool = True, controls: Collection[str] = CONTROLS, style: str = ""
) -> View:
    """Set the page up and draw the sidebar; stops the page, with a sentence in the main area, if something is missing.

    Args:
        runs_model: False for a page that shows something before the model is loaded.
        controls: which of the sidebar's the page uses.
        style: a style element of the page's own, which so is there before what it places.
    """
    _open(title, icon, style=style)
    show_strip()
    messages = st.container()
    try:
        with st.sidebar:
            view = read_view(runs_model, messages, controls)
            _show_views(messages)
            return view
    except AblationError as error:
        messages.error(as_markdown(error), icon="⚠️")
        st.stop()


def open_frame(title: str, icon: str, layout: Literal["wide", "centered"] = "wide") -> None:
    """Set the page up, with links to the others, for a page that needs no model.

    Args:
        layout: centered for a page to read.
    """
    _open(title, icon, layout)
    main = st.container()
    with st.sidebar:
        _show_views(main)


def _open(title: str, icon: str, layout: Literal["wide", "centered"] = "wide", style: str = "") -> None:
    st.set_page_config(page_title=f"{title} · Ablation Explorer", page_icon=icon, layout=layout)
    with st.container(key="style", height=1, border=False):  # whatever holds its place meanwhile, nothing moves
        # `st.html` is drawn late, after what the style places.
        st.markdown(_STYLE + (_WIDE if layout == "wide" else "") + style, unsafe_allow_html=True)
        st.html(_SCRIPT, unsafe_allow_javascript=True)
    prepare_process()
    keep_settings(title)
    with st.sidebar:
        st.markdown("### Ablation Explorer")
        with st.container(key="pages"):
            for path, label in PAGES.items():
                page_link(path, label, {}, icon=None)
        show_mine(title)
    if _PLACED not in st.session_state:
        st.session_state[_PLACED] = True
        time.sleep(_HEAD_START)


def _show_views(main: DeltaGenerator) -> None:
    """At the foot of the sidebar: the address to copy, a larger view for a projector, and a fresh start for the next class."""

    def leave() -> None:
        st.session_state["projector"] = False

    copy_buttons({"Copy link": ""})
    st.toggle(
        "Projector view", key="projector", bind="query-params", help="Larger text and charts, without the sidebar."
    )
    st.html('<a href="./" target="_self" style="color: inherit; font-size: 0.875rem">Reset all settings</a>')
    if st.session_state["projector"]:
        with main:
            st.html(_PROJECTED)
            st.button("Leave the projector view", on_click=leave)


@contextmanager
def show_errors() -> Iterator[None]:
    """Show an error of the core as its sentence and end the page there."""
    try:
        yield
    except AblationError as error:
        st.error(as_markdown(error), icon="⚠️")
        st.stop()


@contextmanager
def model_turn(model: LoadedModel) -> Iterator[None]:
    """Hold the model; until it is free, say here that another computation is using it."""
    place = st.empty()
    with turn(model, place.caption):
        place.empty()
        yield


def legend(kinds: tuple[str, ...]) -> None:
    """The kinds of values, each with its line as charts draw it."""
    from ablation_core.report.heads.html import line_sample  # brings pandas, which no sidebar waits for

    lines = "".join(
        f'<span style="margin-right:1.4em;white-space:nowrap">{line_sample(kind, 26)} {kind}</span>' for kind in kinds
    )
    st.html(f'<div style="font-size:0.85rem;opacity:0.85">{lines}</div>')
