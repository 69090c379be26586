"""Draws charts on a page: the structure from `templates`, so that a click costs only the data."""

from collections.abc import Callable, Hashable
from typing import Any

import altair
import pandas as pd
import streamlit as st

from ablation_core.report.chart_cache import chart_spec


def draw(
    make: Callable[..., altair.TopLevelMixin],
    *frames: pd.DataFrame | None,
    alt: str,
    key: str | None = None,
    on_pick: Callable[[], Any] | None = None,
    variant: Hashable = (),
    **fixed: Hashable,
) -> None:
    """Draw `make(*frames, **fixed)`.

    Args:
        alt: the alternative text.
        on_pick: called when a mark is clicked; the chart has a selection called `pick`, kept under `key`.
        variant: see `templates.chart_spec`.
    """
    spec = chart_spec(make, *frames, variant=variant, **fixed)
    if on_pick is None:
        st.vega_lite_chart(spec=spec, alt=alt, key=key)
    else:
        st.vega_lite_chart(spec=spec, alt=alt, key=key, on_select=on_pick, selection_mode="pick")


def as_tables(tables: dict[str, pd.DataFrame], key: str) -> None:
    """What a page's pictures show, as tables behind one line, for those who cannot see them or want the numbers."""
    with st.expander("The pictures as tables", key=key):
        for tab, frame in zip(st.tabs(list(tables)), tables.values(), strict=True):
            tab.dataframe(frame, hide_index=True, width="stretch", height=240, row_height=28)
