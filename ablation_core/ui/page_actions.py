"""Doing something from a page that changes what is here: with one sentence of what came of it, and no traceback."""

from collections.abc import Callable

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from ablation_core.errors import AblationError, as_markdown


def run_action(action: Callable[[], str]) -> None:
    """Do something and draw the page anew with the sentence it returns; an error is shown where it happened."""
    try:
        sentence = action()
    except AblationError as error:
        st.error(as_markdown(error), icon="⚠️")
        return
    st.session_state["said"] = sentence
    st.rerun()


def file_box(
    label: str, key: str, action: Callable[[UploadedFile], str], most: int, help: str, type: str | None = None
) -> None:
    """A box for a file that is taken in once, with what came of it below.

    Args:
        action: takes the file in, and says in a sentence what came of it.
        most: bytes.
    """
    st.file_uploader(
        label, type, key=key, on_change=_take_in, args=(key, action), max_upload_size=most // 1_000_000, help=help
    )
    if outcome := st.session_state.pop(f"{key} outcome", None):
        done, sentence = outcome
        if done:
            st.success(sentence, icon="✅")
        else:
            st.error(as_markdown(sentence), icon="⚠️")


def _take_in(key: str, action: Callable[[UploadedFile], str]) -> None:
    """A file was chosen: taken in now, not again at every run while it stays in its box."""
    file = st.session_state[key]
    if file is not None:
        try:
            st.session_state[f"{key} outcome"] = (True, action(file))
        except AblationError as error:
            st.session_state[f"{key} outcome"] = (False, str(error))


def show_said() -> None:
    """The sentence that the last run of the page kept."""
    if sentence := st.session_state.pop("said", ""):
        st.success(sentence, icon="✅")


def confirmed_delete(
    what: str, name: str, delete: Callable[[], None], *, disabled: bool = False, why: str = ""
) -> None:
    """A button that asks once more before it deletes."""

    def deleted() -> str:
        delete()
        return f"Deleted: {name}."

    with st.popover(f"Delete this {what} …", disabled=disabled, help=why or None):
        st.markdown("This cannot be undone.")
        if st.button("Delete it", key=f"delete {what}", type="primary"):
            run_action(deleted)


def megabytes(count: int | None) -> str:
    """A size for people; empty where it is not known."""
    return "" if count is None else f"{count / 1e6:,.1f} MB"
