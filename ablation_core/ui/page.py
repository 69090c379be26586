"""What the pages share: their frame, errors as sentences, the turn with a model, and the legend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import streamlit as st
from streamlit.errors import StreamlitPageNotFoundError

from ablation_core.errors import AblationError, as_markdown
from ablation_core.report.charts import mark_of
from ablation_core.runtime import prepare_process
from ablation_core.server.turns import turn
from ablation_core.ui.run_controls import show_mine
from ablation_core.ui.sidebar import View, read_view

if TYPE_CHECKING:
    from ablation_core.models.loaded import LoadedModel

PAGES = {
    "app.py": "Distributions",
    "pages/ablate.py": "Ablate",
    "pages/head_map.py": "Head map",
    "pages/pruning_curves.py": "Pruning curves",
    "pages/saved.py": "Saved results",
    "pages/models_and_data.py": "Models and data",
    "pages/learn.py": "Learn",
}


# The dark theme's accent is light, so that it can be read as text: what is written on it must be dark.
_STYLE = """<style>
.stMainBlockContainer {padding-top: 3rem; padding-bottom: 2rem}
@media (prefers-color-scheme: dark) {button[data-testid="stBaseButton-primary"] p, [data-baseweb="tag"] * {color: #11161c}}
</style>"""


# Streamlit pushes an entry into the browser's history for each setting that it writes into the address, so that a change of
# page made three, and Back showed other settings on the same page. One entry per page: settings replace it.
_HISTORY = """<script>
if (!window.oneEntryPerPage) {
  window.oneEntryPerPage = true;
  const push = history.pushState.bind(history);
  history.pushState = (state, title, address) => {
    const there = new URL(address ?? location.href, location.href);
    there.pathname === location.pathname ? history.replaceState(state, title, address) : push(state, title, address);
  };
}
</script>"""


def open_page(title: str, icon: str, runs_model: bool = True) -> View:
    """Set the page up and draw the sidebar; stops the page, with a sentence in the main area, if something is missing.

    Args:
        runs_model: False for a page that shows something before the model is loaded.
    """
    open_frame(title, icon)
    messages = st.container()
    try:
        with st.sidebar:
            return read_view(runs_model, messages)
    except AblationError as error:
        messages.error(as_markdown(error), icon="⚠️")
        st.stop()


# What a choice was called in addresses that people have kept: (parameter, old value) → new value.
_OLD_VALUES = {("odd", "unsure peak"): "uncertain peak", ("odd", "second mode"): "second hump"}


def open_frame(title: str, icon: str) -> None:
    """Set the page up, with links to the others, for a page that needs no model."""
    st.set_page_config(page_title=f"{title} · Ablation Explorer", page_icon=icon, layout="wide")
    for (name, old), new in _OLD_VALUES.items():
        if st.query_params.get(name) == old and name not in st.session_state:
            st.session_state[name] = new
    prepare_process()
    st.html(_STYLE)
    st.html(_HISTORY, unsafe_allow_javascript=True)
    with st.sidebar:
        st.markdown("### Ablation Explorer")
        with suppress(StreamlitPageNotFoundError):  # a page run by itself has no others beside it
            here = st.query_params.to_dict()
            for path, label in PAGES.items():
                st.page_link(path, label=label, query_params=here)
        show_mine(title)


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
    """The kinds of values, each with its line in its colour and style."""
    styles = {"zero": "dotted", "mean": "dashed", "median": "double"}
    lines = "".join(
        f'<span style="margin-right:1.4em;white-space:nowrap"><span style="display:inline-block;width:26px;'
        f'vertical-align:middle;border-top:3px {style} {mark_of(kind).color}"></span> {kind}</span>'
        for kind, style in ((kind, styles.get(kind, "solid")) for kind in kinds)
    )
    st.html(f'<div style="font-size:0.85rem;opacity:0.85">{lines}</div>')
