"""Charts of one neuron on two data sets and by position. Knows neither Streamlit nor torch."""

import altair as alt
import pandas as pd

from ablation_core.report.charts.looks import BARS, ink, mark_of, mark_scales
from ablation_core.report.charts.neuron_charts import neuron_histogram
from ablation_core.report.distribution_frames import MOVING

OTHER_BARS = "#b7a3c9"


def histogram_with_density(
    bars: pd.DataFrame, marks: pd.DataFrame, curve: pd.DataFrame, unit: str, log: bool, dark: bool = False
) -> alt.LayerChart:
    """`charts.neuron_histogram` with a curve over it: columns x, count."""
    return neuron_histogram(bars, marks, unit, log, curve, dark=dark)


def two_sets(
    bars: pd.DataFrame, moves: pd.DataFrame, unit: str, first: str, second: str, dark: bool = False
) -> alt.LayerChart:
    """A neuron's histograms on two data sets, one over the other; above them how far mean and peak move.

    Args:
        bars: columns left, right, share, data.
        moves: columns kind, first, second, distance, height, as `distribution_frames.two_sets_frames` makes them.
        first, second: the data sets' names.
    """
    x_scale = alt.Scale(zero=False, nice=False, padding=12)
    y = alt.Y("share:Q", title="share of positions per unit of activation", axis=alt.Axis(format="~g"))
    shown = alt.Scale(domain=[first, second], range=[BARS, OTHER_BARS])
    columns = (
        alt.Chart(bars)
        .transform_filter("datum.share > 0")
        .mark_rect(strokeWidth=0, opacity=0.6)
        .encode(
            x=alt.X("left:Q", title=unit, scale=x_scale),
            x2="right:Q",
            y=y,
            y2=alt.datum(0),
            color=alt.Color("data:N", scale=shown, legend=alt.Legend(title=None, orient="top", symbolOpacity=1)),
            tooltip=[
                "data:N",
                alt.Tooltip("left:Q", title="from", format=".4f"),
                alt.Tooltip("right:Q", title="to", format=".4f"),
                alt.Tooltip("share:Q", title="share per unit", format=".4g"),
            ],
        )
    )
    scales = mark_scales(list(MOVING))
    tooltip = [
        alt.Tooltip("kind:N", title="value"),
        alt.Tooltip("first:Q", title=first, format=".5f"),
        alt.Tooltip("second:Q", title=second, format=".5f"),
        alt.Tooltip("distance:Q", title="moves by, std", format="+.3f"),
    ]
    base = alt.Chart(moves).encode(y=alt.Y("height:Q"), tooltip=tooltip)
    ways = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("first:Q", scale=x_scale, title=unit), x2="second:Q", color=scales["color"],
        strokeDash=scales["strokeDash"],
    )  # fmt: skip
    starts = base.mark_tick(orient="vertical", thickness=2, size=12).encode(x="first:Q", color=scales["color"])
    ends = base.mark_point(filled=True, size=70, opacity=1).encode(x="second:Q", color=scales["color"])
    names = base.mark_text(align="left", dx=9, fontSize=11, tooltip=None, color=ink(dark)).encode(
        x=alt.X("right:Q"), text="kind:N"
    )  # fmt: skip
    names = names.transform_calculate(right="max(datum.first, datum.second)")
    return alt.layer(columns, ways, starts, ends, names).resolve_scale(color="independent").properties(height=380)


def positions(frame: pd.DataFrame, unit: str) -> alt.LayerChart:
    """A neuron by position: mean and median as lines, the range of the middle 80% as a band.

    Args:
        frame: columns position, low, median, high, mean.
    """
    base = alt.Chart(frame).encode(x=alt.X("position:Q", title="position in the sequence", scale=alt.Scale(nice=False)))
    tooltip = [
        alt.Tooltip("position:Q"),
        *(alt.Tooltip(f"{n}:Q", format=".4f") for n in ("mean", "median", "low", "high")),
    ]
    band = base.mark_area(color=BARS, opacity=0.35, tooltip=None).encode(
        y=alt.Y("low:Q", title=unit, scale=alt.Scale(zero=False)), y2="high:Q"
    )
    lines = [
        base.mark_line(
            color=mark_of(kind).color, strokeDash=list(mark_of(kind).dash), strokeWidth=2, tooltip=None
        ).encode(y=alt.Y(f"{kind}:Q", title=unit))
        for kind in ("median", "mean")
    ]
    points = base.mark_point(opacity=0, size=90).encode(y=alt.Y("mean:Q", title=unit), tooltip=tooltip)
    return alt.LayerChart(layer=[band, *lines, points]).properties(height=260)


def patches(frame: pd.DataFrame, unit: str, dark: bool = False) -> alt.Chart:
    """A neuron's mean at each patch of the image, as a picture.

    Args:
        frame: columns row, column, mean, low, median, high.
        dark: whether the page is dark; the greatest value is then the lightest.
    """
    return (
        alt.Chart(frame)
        .mark_rect()
        .encode(
            x=alt.X("column:O", title="patch, from the left", axis=alt.Axis(labelAngle=0, domain=False, ticks=False)),
            y=alt.Y("row:O", title="patch, from the top", axis=alt.Axis(domain=False, ticks=False)),
            color=alt.Color(
                "mean:Q",
                scale=alt.Scale(scheme="blues", reverse=dark, zero=False),
                legend=alt.Legend(title=f"mean {unit}", orient="top", gradientLength=180, titleLimit=300),
            ),
            tooltip=[alt.Tooltip(f"{name}:Q", format=".4f") for name in ("mean", "median", "low", "high")],
        )
        .properties(height=380)
    )
