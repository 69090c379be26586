"""Charts that are clicked.

The browser keeps what was clicked in a chart, outlines it at once, and reports all of it with every click. So a chart is
never drawn again by a click on it, and quick clicks are not lost: each report holds those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from ablation_core.errors import AblationError
from ablation_core.selection import Head, Selection
from ablation_core.ui.boxes import put, text_in
from ablation_core.ui.widgets import draw

if TYPE_CHECKING:
    import altair


def draw_choice(
    make: Callable[..., altair.TopLevelMixin],
    *frames: pd.DataFrame,
    key: str,
    shown: Mapping[str, Hashable] | None,
    choose: Callable[[Mapping[str, Any]], None],
    picked_in: int = 0,
    **drawing: Any,
) -> None:
    """A chart of which a click picks one mark. It is drawn again only where something else was picked outside of it.

    Args:
        make, frames, drawing: as `widgets.draw` takes them. The chart outlines by `report.picks.ONE`. Another alternative
            text would draw it again: it does not say which mark is on show.
        shown: the mark on show, by the fields of the chart's selection; None where it is none of them.
        choose: called with a clicked mark, by these fields.
        picked_in: which frame holds the marks; it gets the column `picked`.
    """
    state, now = st.session_state, dict(shown or {})
    number, start = state.get(f"choice on {key}", (0, now))
    clicked = _clicked(f"{key} {number}")
    if clicked and clicked[-1] != now:
        number, start = number + 1, now
    elif not clicked:
        start = now
    state[f"choice on {key}"] = (
        number,
        start,
    )  # while it is the clicked one, the browser outlines it: the data stay, too
    widget = f"{key} {number}"

    def picked() -> None:
        if clicked := _clicked(widget):
            choose(clicked[-1])

    drawn = list(frames)
    drawn[picked_in] = _marked(frames[picked_in], start)
    draw(make, *drawn, key=widget, on_pick=picked, **drawing)


def draw_selection(
    make: Callable[..., altair.TopLevelMixin],
    frame: pd.DataFrame,
    *,
    key: str,
    selection: Selection,
    box: str,
    **drawing: Any,
) -> None:
    """A map of heads of which a click adds one to the selection, or removes it. It is never drawn again by that.

    The browser outlines what the frame says, turned round by every click since the map appeared, and reports all heads
    clicked an odd number of times.

    Args:
        frame: columns layer, head; it gets the column `picked`.
        selection: what is selected now.
        box: the text box of the selection.
    """
    state, known = st.session_state, f"clicks on {key}"
    clicked = _clicked_heads(key)
    state[known] = clicked, selection
    text = text_in(box)

    def toggle() -> None:
        before, selected = state[known]
        if (typed := text_in(box)) != text:  # just before the click
            with suppress(AblationError):
                selected = Selection.parse(typed or "", selection.shape)
        now = _clicked_heads(key)
        for head in now ^ before:
            selected = selected.toggled(Selection.of_heads([head], selection.shape))
        state[known] = now, selected
        put(box, str(selected))

    outlined = clicked.symmetric_difference(selection.heads)
    heads = zip(frame["layer"], frame["head"], strict=True)
    frame = frame.assign(picked=[(int(layer), int(head)) in outlined for layer, head in heads])
    draw(make, frame, key=key, on_pick=toggle, several=True, **drawing)


def _marked(frame: pd.DataFrame, mark: Mapping[str, Hashable]) -> pd.DataFrame:
    found = pd.Series(bool(mark), index=frame.index)
    for column, value in mark.items():
        found &= frame[column] == value
    return frame.assign(picked=found)


def _clicked(widget: str) -> list[dict[str, Any]]:
    """What a chart's selection holds, oldest first."""
    event = st.session_state.get(widget)
    return [dict(one) for one in event.selection.get("pick", [])] if event else []


def _clicked_heads(widget: str) -> set[Head]:
    return {(int(one["layer"]), int(one["head"])) for one in _clicked(widget)}
