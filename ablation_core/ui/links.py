"""Links from one page to another, with everything set."""

from contextlib import suppress

import streamlit as st
from streamlit.errors import StreamlitPageNotFoundError


def page_link(page: str, label: str, params: dict[str, str], icon: str | None = "➡️") -> None:
    """A link that opens a page with these parameters in its address."""
    with suppress(StreamlitPageNotFoundError):  # a page run by itself has no others beside it
        st.page_link(page, label=label, icon=icon, query_params=params)
