"""Saved results: what was kept under a name, shown again, beside each other, exported and imported."""

import streamlit as st

from ablation_core.server import access
from ablation_core.ui import page
from ablation_core.ui.together.keep import my_shelf
from ablation_core.ui.together.saved_results import (
    choose_shown,
    export_and_import,
    show_differences,
    show_one,
    show_side_by_side,
)
from ablation_core.ui.widgets import show_outcome

page.open_frame("Saved results", "🔖")
st.header("Saved results", anchor=False)
show_outcome("delete saved result")
where = "in this session: export them before you close its tab" if access.ACCESS.shared else "in the cache folder"
st.caption(f"Results kept with “Keep this result” on the other pages, or with --save on the command line, {where}.")
with page.show_errors():
    shown = choose_shown(my_shelf())
    if len(shown) == 1:
        show_one(shown[0])
    elif shown:
        show_side_by_side(shown)
    if len(shown) == 2:
        show_differences(*shown)
st.divider()
export_and_import(my_shelf())
