"""A head's neurons: all of them as small histograms, one as a large one."""

import altair as alt
import numpy as np
import pandas as pd

from ablation_core.report.charts.looks import BARS, CURVE, ink, mark_scales
from ablation_core.report.picks import ONE, one_pick


def neuron_grid(
    outlines: pd.DataFrame, marks: pd.DataFrame, cells: pd.DataFrame, columns: int, dark: bool = False
) -> alt.LayerChart:
    """All neurons of a head as small histograms in a grid, clickable as the selection `pick`.

    One drawing in its own coordinates, a unit square per neuron: many times faster than a chart for each.

    Args:
        outlines: columns neuron, x, y (grid coordinates of the histogram's outline), base.
        marks: columns neuron, kind, x, y, y2.
        cells: columns neuron, x, x2, y, y2, picked, name, and what the tooltip shows: mean, std, peak, distance_in_std.
    """
    rows = int(np.ceil(len(cells) / columns))
    x_scale = alt.Scale(domain=[0, columns], nice=False)
    y_scale = alt.Scale(domain=[-rows, 0], nice=False)
    x, y = alt.X("x:Q", axis=None, scale=x_scale), alt.Y("y:Q", axis=None, scale=y_scale)
    pick = one_pick(["neuron"])
    frame = alt.Chart(cells).encode(x=x, x2="x2:Q", y=y, y2="y2:Q")
    background = (
        frame.mark_rect(cornerRadius=4, cursor="pointer", fill="#80808014")
        .encode(
            stroke=alt.condition(ONE, alt.value(ink(dark)), alt.value("#80808030")),
            strokeWidth=alt.condition(ONE, alt.value(2.5), alt.value(1)),
            tooltip=[
                alt.Tooltip("name:N", title="neuron"),
                *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("mean", "std", "peak")),
                alt.Tooltip("distance_in_std:Q", title="peak − mean, std", format="+.2f"),
            ],
        )
        .add_params(pick)
    )
    names = (
        alt.Chart(cells)
        .mark_text(align="left", baseline="top", dx=4, dy=3, fontSize=10, color=ink(dark), opacity=0.75, tooltip=None)
        .encode(x=x, y=alt.Y("y2:Q", scale=y_scale, axis=None), text="neuron:N")
    )
    shapes = (
        alt.Chart(outlines)
        .mark_area(interpolate="step-after", color=BARS, opacity=0.9, tooltip=None)
        .encode(x=x, y=y, y2="base:Q", detail="neuron:N")
    )
    kinds = list(dict.fromkeys(marks["kind"]))
    scales = mark_scales(kinds)
    rules = (
        alt.Chart(marks)
        .mark_rule(strokeWidth=1.6, tooltip=None)
        .encode(x=x, y=y, y2="y2:Q", color=scales["color"], strokeDash=scales["strokeDash"])
    )
    chart = alt.layer(background, shapes, rules, names).properties(height=max(120, 78 * rows))
    return chart.configure_view(strokeWidth=0)


def neuron_histogram(
    bars: pd.DataFrame,
    marks: pd.DataFrame,
    unit: str,
    log: bool,
    curve: pd.DataFrame | None = None,
    span: tuple[float, float] | None = None,
    dark: bool = False,
) -> alt.LayerChart:
    """One neuron's histogram with its values marked and printed.

    Args:
        bars: columns left, right, count.
        marks: columns kind, value, text, and the text's lane and side, as `frames.mark_frame` makes them.
        unit: the horizontal axis' title.
        curve: columns x, count: a density over the bars.
        span: what the horizontal axis shows, where it is to stay; by default where there are bars.
    """
    scale = alt.Scale(type="log", domainMin=0.5) if log else alt.Scale(zero=True)
    x_scale = alt.Scale(domain=span, nice=False) if span else alt.Scale(zero=False, nice=False, padding=12)
    y = alt.Y("count:Q", title="positions per bin" + (", log scale" if log else ""), scale=scale)
    columns = (
        alt.Chart(bars)
        .transform_filter("datum.count > 0")
        .mark_rect(color=BARS, stroke=BARS, strokeWidth=0.3)
        .encode(
            x=alt.X("left:Q", title=unit, scale=x_scale),
            x2="right:Q",
            y=y,
            y2=alt.datum(0.5 if log else 0.0),
            tooltip=[
                alt.Tooltip("left:Q", title="from", format=".4f"),
                alt.Tooltip("right:Q", title="to", format=".4f"),
                alt.Tooltip("count:Q", title="positions", format=","),
            ],
        )
    )
    if curve is not None:
        line = alt.Chart(curve).transform_filter("datum.count >= 0.5" if log else "isValid(datum.count)")
        line = line.mark_line(color=CURVE, strokeWidth=2, tooltip=None)
        columns = alt.layer(columns, line.encode(x=alt.X("x:Q", scale=x_scale, title=unit), y=y))
    kinds = list(marks["kind"])
    scales = mark_scales(kinds)
    values = alt.Chart(marks).encode(x=alt.X("value:Q", scale=x_scale, title=unit), color=scales["color"])
    rules = values.mark_rule(strokeWidth=2.2).encode(
        strokeDash=scales["strokeDash"],
        y=alt.value(0),
        y2=alt.value("height"),
        tooltip=[alt.Tooltip("kind:N", title="value"), alt.Tooltip("value:Q", format=".5f")],
    )
    # Labels lie in lanes above the bars: values that nearly coincide stay readable.
    lanes = values.transform_calculate(above="-8 - 16 * datum.lane")
    lane = alt.Y("above:Q", scale=None)
    stems = lanes.mark_rule(strokeWidth=1, opacity=0.6, tooltip=None).encode(y=lane, y2=alt.value(0))
    texts = lanes.mark_text(
        align=alt.expr("datum.rightward ? 'left' : 'right'"),
        dx=alt.expr("datum.rightward ? 5 : -5"),
        fontSize=12,
        fontWeight=600,
        baseline="middle",
        color=ink(dark),
        tooltip=None,
    ).encode(y=lane, text="text:N", color=alt.value(ink(dark)))
    chart = alt.layer(columns, rules, stems, texts).resolve_scale(y="independent")
    padding = {"top": 14 + 16 * len(kinds), "left": 5, "right": 5, "bottom": 5}
    return chart.properties(height=420, padding=padding)
