"""Charts of one input's answers. Knows neither Streamlit nor torch."""

import altair as alt
import pandas as pd

from ablation_core.report.charts.looks import BARS, mark_scales


def probabilities(clean: pd.DataFrame, ablated: pd.DataFrame, kinds: tuple[str, ...]) -> alt.LayerChart:
    """A row an answer: the clean model's probability as a bar, each method's as its mark.

    Args:
        clean, ablated: columns kind, name, order, share.
        kinds: the methods, in order.
    """
    y = alt.Y(
        "name:N",
        sort=alt.EncodingSortField("order", op="min"),
        title=None,
        axis=alt.Axis(domain=False, ticks=False, labelFontSize=13, labelLimit=220, labelOverlap=False),
    )
    x = alt.X("share:Q", title="probability", axis=alt.Axis(format="~%"), scale=alt.Scale(domainMin=0))
    tooltip = [
        "kind:N",
        alt.Tooltip("name:N", title="answer"),
        alt.Tooltip("share:Q", title="probability", format=".2%"),
    ]
    bars = alt.Chart(clean).mark_bar(color=BARS, opacity=0.55, height={"band": 0.7}).encode(x=x, y=y, tooltip=tooltip)
    scales = mark_scales(kinds)
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1, columns=3)
    color, shape = scales["color"], scales["shape"]
    color.legend, shape.legend = legend, legend
    marks = (
        alt.Chart(ablated)
        .mark_point(filled=True, size=95, opacity=1)
        .encode(x=x, y=y, color=color, shape=shape, tooltip=tooltip)
    )
    # Not a step per row: Streamlit fits charts to their place, and Vega warns where the height is discrete.
    return alt.LayerChart(layer=[bars, marks]).properties(height=34 * clean["name"].nunique() + 70)
