"""A head's attention over a text as a chart. Knows neither Streamlit nor torch."""

import json
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from ablation_core.report.charts.looks import CURVE
from ablation_core.report.white_space import legible

LEAST = 0.005  # weights below are not drawn: they are not seen, and a long text has thousands of them
NAMED = 48  # tokens up to which the axes show them; beyond, their places
_TALLEST = 460  # pixels
_BETWEEN = "\x1f"  # tokens


def pattern_frame(weights: np.ndarray, texts: Sequence[str]) -> pd.DataFrame:
    """One row per weight that is drawn: columns row, column, weight, and both tokens as from and to.

    Args:
        weights: (positions, positions), from row to column.
        texts: each position's token.
    """
    rows, columns = np.nonzero(weights >= LEAST)
    shown = [legible(text) for text in texts]
    return pd.DataFrame(
        {
            "row": rows,
            "column": columns,
            "weight": weights[rows, columns].astype(float),
            "from": [f"{shown[row]} ({row})" for row in rows],
            "to": [f"{shown[column]} ({column})" for column in columns],
        }
    )


def pattern_chart(frame: pd.DataFrame, texts: Sequence[str]) -> alt.Chart:
    """Rows look, columns are looked at; opacity is the weight, so that it shows on a light and on a dark page."""
    count = len(texts)
    places = list(range(count))
    named = count <= NAMED
    # One literal: Vega takes a literal that is a function's name ("if") for a signal, and draws nothing.
    labels = json.dumps("".join(legible(text).strip().replace(_BETWEEN, "") + _BETWEEN for text in texts))
    axis: dict[str, Any] = {"ticks": False, "domain": False, "labelOverlap": not named, "labelLimit": 90}
    if named:
        axis["labelExpr"] = f"split({labels}, {json.dumps(_BETWEEN)})[datum.value]"
    side = int(min(_TALLEST, max(200, count * (22 if named else 4))))
    return (
        alt.Chart(frame)
        .mark_rect(color=CURVE)
        .encode(
            x=alt.X(
                "column:O",
                title="looked at",
                scale=alt.Scale(domain=places),
                axis=alt.Axis(orient="top", labelAngle=-60, **axis),
            ),
            y=alt.Y("row:O", title="looks", scale=alt.Scale(domain=places), axis=alt.Axis(**axis)),
            opacity=alt.Opacity("weight:Q", scale=alt.Scale(domain=[0, 1], range=[0.02, 1]), legend=None),
            tooltip=[alt.Tooltip("from:N"), alt.Tooltip("to:N"), alt.Tooltip("weight:Q", format=".1%")],
        )
        .properties(height=side + 60)
    )
