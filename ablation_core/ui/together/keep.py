"""Keep this result: a result of a page under a name, on the shelf of this person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from ablation_core.errors import AblationError, as_markdown
from ablation_core.presentation import Presented
from ablation_core.saved.shelves import MOST_NAME, FolderShelf, SessionShelf, Shelf
from ablation_core.server import access
from ablation_core.storage import CACHE

FOLDER = CACHE
_SESSION = "saved results"


def my_shelf() -> Shelf:
    """The cache folder's shelf or, on a shared server, one that lasts as long as this visitor's session."""
    if not access.ACCESS.shared:
        return FolderShelf(FOLDER)
    shelf: SessionShelf = st.session_state.setdefault(_SESSION, SessionShelf())
    return shelf


def keep_popover(result: Presented, path: str, suggested: str) -> None:
    """A button that keeps a result under a name, with the page that shows it again as it is now.

    Args:
        path: the page's own, such as `pages/ablate.py`.
        suggested: a name to begin with.
    """
    key = f"keep {path} {type(result).__name__}"
    where = "in this session, until its tab is closed" if access.ACCESS.shared else "in the cache folder"
    with st.popover("Keep this result", help="Keep it under a name, to show it again and beside others."):
        box = f"{key} {suggested}"
        st.text_input("Name", value=suggested[:MOST_NAME], key=box, max_chars=MOST_NAME)
        st.caption(f"Kept {where}, with its figures and its settings.")
        st.button("Keep", key=f"{key} button", type="primary", on_click=_keep, args=(key, result, box, path))
        if outcome := st.session_state.pop(f"{key} outcome", None):
            done, sentence = outcome
            (st.success if done else st.error)(as_markdown(sentence))


def _keep(key: str, result: Presented, box: str, path: str) -> None:
    from ablation_core.saved.results import (
        keep,  # knows every kind of result, and torch: the first page shows sooner without
    )

    here = {name: st.query_params.get_all(name) for name in st.query_params}
    params = {name: values[0] if len(values) == 1 else values for name, values in here.items()}
    page: Mapping[str, Any] = {"path": path, "params": params}
    try:
        entry = keep(my_shelf(), result, st.session_state[box], page=page)
        st.session_state[f"{key} outcome"] = (True, f"Kept as {entry.name}. The page Saved results shows it.")
    except AblationError as error:
        st.session_state[f"{key} outcome"] = (False, str(error))
