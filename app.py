"""One head at a glance, the page that opens first: what changes without it, its values, and a prompt before and after.

The sidebar goes to the browser first: it draws that, and fetches its code for charts, while Altair and pandas are imported here.
"""

import streamlit as st

from ablation_core.ui import page
from ablation_core.ui.glance.shown import STYLE, fetching_chart_code, glance_at, slot
from ablation_core.ui.shared import LONGEST_DRAWING, load_in_background

if page.asks_for_distributions(st.query_params):  # which opened first until this page did
    st.switch_page("pages/distributions.py", query_params=st.query_params.to_dict())

view = page.open_page("One head", "🔎", runs_model=False, style=STYLE)

with fetching_chart_code():
    from ablation_core.ui.glance.answer import show_answer, watch
    from ablation_core.ui.glance.cards import show_cards
    from ablation_core.ui.glance.keeping import show_keep
    from ablation_core.ui.glance.links import show_deeper, show_title
    from ablation_core.ui.glance.map import show_map
    from ablation_core.ui.glance.prompt import show_prompt

glance = glance_at(view)
show_title()
map_column, answer_column = st.columns([2, 3], gap="medium")
with map_column, slot("map"):
    show_map(glance, str(view.selection))
with answer_column:
    show_answer(glance)
if glance.picked:
    show_prompt(glance)
    show_deeper(glance)
    show_cards(glance)
    show_keep(glance)
watch(glance)
with page.show_errors():  # the model may vanish at any moment
    load_in_background(view.info.ref, first_import="ablation_core.ui.ablation.job", patience=LONGEST_DRAWING)
