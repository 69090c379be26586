"""The first page's title, and its links to the pages that go deeper."""

import streamlit as st

from ablation_core.ui.glance.shown import Glance
from ablation_core.ui.widgets import page_link

TITLE = "Take an attention head out of a model and see what it gets wrong"


def show_title() -> None:
    title_column, link_column = st.columns([7, 2], vertical_alignment="center")
    title_column.header(TITLE, anchor=False)
    with link_column.container(key="new-here"):
        page_link("pages/learn.py", "New here? Three minutes", st.query_params.to_dict(), icon=None)


def show_deeper(glance: Glance) -> None:
    """Links that keep the head, the method and every setting."""
    name = glance.name
    each = {"vision": "image", "text-classification": "text"}.get(glance.view.info.modality, "token")
    here = st.query_params.to_dict() | {"select": name}
    with st.container(horizontal=True, key="deeper"):
        for path, label, more in (
            ("pages/ablate.py", f"Ablate {name}: every metric, every {each}", {}),
            ("pages/distributions.py", "All its neurons", {"neuron": name}),
            ("pages/head_map.py", "All heads, all methods", {"head": name}),
            ("pages/pruning_curves.py", "Removing more and more neurons", {}),
        ):
            page_link(path, f"{label} →", here | more, icon=None)
