"""A point per head: what it is like against what happens without it. Knows neither Streamlit nor torch."""

import altair as alt
import pandas as pd

from ablation_core.report.charts.axes import ON_TOP
from ablation_core.report.charts.looks import GREY, HARM, HELP
from ablation_core.report.picks import ONE, one_pick


def head_scatter(frame: pd.DataFrame, across: str, up: str, same: bool = False) -> alt.LayerChart:
    """Clickable as the selection `pick`; the head on show is larger.

    Args:
        frame: as `frames.head_scatter_frame` makes it.
        across, up: the axes' titles.
        same: whether both axes are of one unit, so that a dashed diagonal means equality.
    """
    pick = one_pick(["label"])
    x = alt.X("across:Q", title=across, scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=6))
    y = alt.Y(
        "up:Q", title=up, scale=alt.Scale(zero=True, nice=True), axis=alt.Axis(format="~g", tickCount=6, **ON_TOP)
    )
    zero = alt.Chart(pd.DataFrame({"up": [0.0]})).mark_rule(color=GREY, strokeWidth=1.2, tooltip=None).encode(y=y)
    points = (
        alt.Chart(frame)
        .mark_point(filled=True, cursor="pointer", strokeWidth=1.5)
        .encode(
            x=x,
            y=y,
            size=alt.condition(ONE, alt.value(230), alt.value(70)),
            opacity=alt.condition(ONE, alt.value(1), alt.value(0.6)),
            color=alt.condition(ONE, alt.value(HARM), alt.value(HELP)),
            tooltip=[
                alt.Tooltip("label:N", title="head"),
                alt.Tooltip("across:Q", title=across, format=".3f"),
                alt.Tooltip("up:Q", title=up, format="+.4f"),
            ],
        )
        .add_params(pick)
    )
    layers = [zero, points]
    if same:
        ends = [min(frame["across"].min(), frame["up"].min()), max(frame["across"].max(), frame["up"].max())]
        line = alt.Chart(pd.DataFrame({"across": ends, "up": ends}))
        layers.insert(1, line.mark_line(color=GREY, strokeDash=[4, 4], strokeWidth=1, tooltip=None).encode(x=x, y=y))
    return alt.LayerChart(layer=layers).properties(height=330)
