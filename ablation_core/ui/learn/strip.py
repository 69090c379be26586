"""An experiment of the Learn page as a strip above the page that it opens: question, answer, and the way back."""

import streamlit as st

from ablation_core.ui.learn.lessons import EXPERIMENTS
from ablation_core.ui.widgets import page_link

PARAMETER = "experiment"  # of the address: the experiment's number, from 1


def show_strip() -> None:
    """The strip, where the address asks for one."""
    number = st.query_params.get(PARAMETER, "")
    if number not in map(str, range(1, len(EXPERIMENTS) + 1)):
        return
    experiment = EXPERIMENTS[int(number) - 1]
    with st.container(border=True):
        st.markdown(f"**Experiment {number}: {experiment.title}** {experiment.question}")
        with st.container(horizontal=True, vertical_alignment="center"):
            with st.popover("Answer"):
                st.markdown(experiment.answer_text)
            if len(experiment.links) > 1:
                for label, link in experiment.links.items():
                    page_link(link.page, label, link.params | {PARAMETER: number})
            page_link("pages/learn.py", "Back to Learn", {}, icon="⬅️")
            st.button("Close", on_click=_close, help="The page stays as it is.")


def _close() -> None:
    st.query_params.pop(PARAMETER, None)
