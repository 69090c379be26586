"""Keep this result: a result of a page under a name, on the shelf of this person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def keep_popover(
    result: Presented | Callable[[], Presented], path: str, suggested: str, words: str = "Keep this result"
) -> None:
    """A button that keeps a result under a name, with the page that shows it again as it is now.

    Args:
        result: or what makes it, when it is to be kept.
        path: the page's own, such as `pages/ablate.py`.
        suggested: a name to begin with.
        words: on the button that opens the box.
    """
    key = f"keep {path} {type(result).__name__}"
    where = "in this session, until its tab is closed" if access.ACCESS.shared else "in the cache folder"
    with st.popover(words, help="Keep it under a name, to show it again and beside others."):
        box = f"{key} {suggested}"
        st.text_input("Name", value=suggested[:MOST_NAME], key=box, max_chars=MOST_NAME)
        st.caption(f"Kept {where}, with its figures and its settings.")
        if st.button("Keep", key=f"{key} button", type="primary"):
            done, sentence = _keep(result, st.session_state[box], path)
            (st.success if done else st.error)(as_markdown(sentence))


def _keep(result: Presented | Callable[[], Presented], name: str, path: str) -> tuple[bool, str]:
    """Whether it is kept, and a sentence about it."""
    from ablation_core.saved.results import (
        keep,  # knows every kind of result, and torch: the first page shows sooner without
    )

    here = {one: st.query_params.get_all(one) for one in st.query_params}
    params = {one: values[0] if len(values) == 1 else values for one, values in here.items()}
    page: Mapping[str, Any] = {"path": path, "params": params}
    try:
        made = result if isinstance(result, Presented) else result()
        entry = keep(my_shelf(), made, name, page=page)
    except AblationError as error:
        return False, str(error)
    return True, f"Kept as {entry.name}. The page Saved results shows it."
