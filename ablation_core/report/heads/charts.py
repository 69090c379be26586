"""Charts of one head, small enough to stand beside others. Knows neither Streamlit nor torch."""

import altair as alt
import pandas as pd

from ablation_core.report.charts.looks import BARS, mark_scales
from ablation_core.report.heads.frames import MARKED


def values(bars: pd.DataFrame, marks: pd.DataFrame, unit: str) -> alt.LayerChart:
    """A neuron's histogram with zero, mean and peak as rules.

    Args:
        bars: columns left, right, count.
        marks: columns kind, value.
        unit: the horizontal axis' title.
    """
    x_scale = alt.Scale(zero=False, nice=False, padding=8)
    columns = (
        alt.Chart(bars)
        .transform_filter("datum.count > 0")
        .mark_rect(color=BARS, stroke=BARS, strokeWidth=0.3)
        .encode(
            x=alt.X("left:Q", title=unit, scale=x_scale, axis=alt.Axis(tickCount=5, grid=False)),
            x2="right:Q",
            y=alt.Y("count:Q", title=None, axis=None),
            y2=alt.datum(0),
            tooltip=[
                alt.Tooltip("left:Q", title="from", format=".4f"),
                alt.Tooltip("right:Q", title="to", format=".4f"),
                alt.Tooltip("count:Q", title="positions", format=","),
            ],
        )
    )
    scales = mark_scales(list(MARKED))
    rules = (
        alt.Chart(marks)
        .mark_rule(strokeWidth=2.4)
        .encode(
            x=alt.X("value:Q", scale=x_scale, title=unit),
            color=scales["color"],
            strokeDash=scales["strokeDash"],
            tooltip=[alt.Tooltip("kind:N", title="value"), alt.Tooltip("value:Q", format=".4f")],
        )
    )
    return alt.LayerChart(layer=[columns, rules]).properties(height=180)
