"""A choice of one among a few, bound to the address: what a link says is shown, and there is always a choice."""

from collections.abc import Callable, Sequence
from typing import Any


def single_choice(
    widget: Callable[..., Any], label: str, options: Sequence[str], *, default: str, key: str, help: str, **looks: Any
) -> str:
    """What is chosen in a row of pills or segments.

    Streamlit takes an empty value in the address (`?metric=`) for "none chosen", required or not; here it is the default.

    Args:
        widget: `st.pills`, `st.segmented_control` or a column's own.
        key: the widget's and the address's name for the choice.
    """
    chosen = widget(label, options, default=default, key=key, help=help, bind="query-params", required=True, **looks)
    return chosen or default
