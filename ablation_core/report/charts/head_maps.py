"""The map of all heads of a model by one value each."""

import altair as alt
import pandas as pd

from ablation_core.report.charts.looks import ink
from ablation_core.report.picks import ONE, SEVERAL, one_pick, several_picks

_BLUES_TURN = 0.74  # from here on, Vega's blues are dark enough for white numbers


def head_map(
    frame: pd.DataFrame, title: str, form: str = ".2f", dark: bool = False, several: bool = False
) -> alt.LayerChart:
    """All heads of a model, layer on the x axis and head on the y axis, clickable as the selection `pick`.

    Args:
        frame: columns layer, head, value, picked (bool), label (the tooltip's sentence).
        dark: whether the page is dark; the greatest value is then the lightest.
        several: whether a click adds a head or removes it, rather than picking one in place of another.
    """
    layers, heads = int(frame["layer"].max()) + 1, int(frame["head"].max()) + 1
    base = alt.Chart(frame).encode(
        x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0, domain=False, ticks=False)),
        y=alt.Y("head:O", title="head", sort="descending", axis=alt.Axis(domain=False, ticks=False)),
    )
    pick = (several_picks if several else one_pick)(["layer", "head"])
    cells = (
        base.mark_rect(cornerRadius=3, cursor="pointer", stroke="#80808040", strokeWidth=1)
        .encode(
            color=alt.Color(
                "value:Q",
                scale=alt.Scale(scheme="blues", zero=True, reverse=dark),
                legend=alt.Legend(title=title, orient="top", gradientLength=180, titleLimit=260, format=form),
            ),
            tooltip=[alt.Tooltip("label:N", title="head"), alt.Tooltip("value:Q", title=title, format=form)],
        )
        .add_params(pick)
    )
    outline = base.transform_filter(SEVERAL if several else ONE).mark_rect(
        fill=None, stroke=ink(dark), strokeWidth=3, cornerRadius=3, tooltip=None
    )
    chart = alt.LayerChart(layer=[cells, outline])
    if layers * heads <= 200:
        share = f"{'1 - ' if dark else ''}datum.value / datum.most"  # of the way from the palest blue to the deepest
        texts = base.transform_joinaggregate(most="max(value)").mark_text(
            fontSize=11,
            cursor="pointer",
            tooltip=None,
            color=alt.expr(f"{share} > {_BLUES_TURN} ? 'white' : 'black'"),
        )
        chart += texts.encode(text=alt.Text("value:Q", format=form))
    return chart.properties(height=110 + max(150, min(34 * heads, 480)))  # with legend and axis
