"""The choice of a task on the Tasks page: a built-in one or uploaded pairs, how many prompts, and at which positions."""

from dataclasses import dataclass

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from ablation_core.data import uploads
from ablation_core.data.tasks.registry import TASKS
from ablation_core.errors import as_markdown
from ablation_core.server import access
from ablation_core.ui.widgets import file_box

PROMPTS = (50, 100, 200, 500)
USUAL = "task:induction"  # random tokens repeated: what every small model can be asked
_HELP_POSITIONS = (
    "Where in each prompt heads are ablated: all; last (which predicts the answer); 3, -2, 3-7, 3-, several by commas; "
    "answer, where the answer's tokens are predicted."
)
_HELP_PAIRS = (
    "One JSON object per line: prompt, right, wrong, and optionally counterfactual (a prompt of as many tokens) and group. "
    "A space before an answer is part of it; for a masked model write [MASK] where the answer "
    "belongs; for a text classifier name classes."
)


@dataclass(frozen=True)
class TaskChoice:
    """What is asked, on how many prompts, ablated where (as it is typed)."""

    ref: str
    prompts: int
    positions: str


def choose_task() -> TaskChoice:
    """Draw the boxes."""
    built_in = [f"task:{name}" for name in TASKS]
    own = (
        {}
        if access.ACCESS.shared
        else {uploads.reference(one): one for one in uploads.list_uploads() if one.kind == "pairs"}
    )
    task_column, prompts_column, positions_column = st.columns([3, 2, 2], gap="large")
    with task_column:
        options = [*built_in, *own]
        ref = st.selectbox(
            "Task",
            options,
            index=options.index(USUAL),
            key="task",
            bind="query-params",
            help="  \n".join(f"**task:{name}**: {as_markdown(task.description)}" for name, task in TASKS.items()),
        )
    with prompts_column:
        prompts = st.select_slider(
            "Prompts", PROMPTS, value=100, key="prompts", bind="query-params",
            help="How many are asked, with and without each ablation. More give narrower intervals and take longer.",
        )  # fmt: skip
    with positions_column:
        text = st.text_input("Positions", value="all", key="positions", bind="query-params", help=_HELP_POSITIONS)
    name = (ref or USUAL).removeprefix("task:")
    if name in TASKS:
        st.caption(as_markdown(f"{TASKS[name].label}: {TASKS[name].description}"))
    elif ref in own:
        st.caption(f"Your prompts: {as_markdown(own[ref].name)}")
    return TaskChoice(ref or USUAL, prompts, text or "all")


def upload_pairs() -> None:
    """A box for prompts of one's own; not on a shared server."""
    if access.ACCESS.shared:
        return
    with st.expander("Your own prompts"):
        file_box(
            "A JSONL file of prompts with a right and a wrong answer", "pairs", _keep, uploads.MAX_BYTES, _HELP_PAIRS
        )


def _keep(file: UploadedFile) -> str:
    kept = uploads.keep_pairs(file.name, file.getvalue())
    st.session_state["task"] = uploads.reference(kept)
    return f"Uploaded {kept.name}. It is chosen in the Task box; half of its prompts are asked, half give means by position."
