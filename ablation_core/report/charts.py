"""Tidy frames → Altair charts. Knows neither Streamlit nor torch.

Each kind of replacement value has one colour, dash and shape on every page. The colours are those of Okabe and Ito
(2008), which colour-blind readers can distinguish, shifted to a lightness that shows on white and on black.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from ablation_core.report.picks import ONE, SEVERAL, one_pick, several_picks


@dataclass(frozen=True)
class Mark:
    """How a replacement value is drawn."""

    color: str
    dash: tuple[int, ...]
    shape: str


# Shapes with an area: marks are filled, and Vega's own stroke, arrow and wedge then hardly show. Within -1 to 1.
_X = "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z"
_HEXAGON = "M-1,0L-.5,-.87L.5,-.87L1,0L.5,.87L-.5,.87Z"
_STAR = "M0,-1.2L.3,-.3L1.2,0L.3,.3L0,1.2L-.3,.3L-1.2,0L-.3,-.3Z"
_HOURGLASS = "M-.9,-.9L.9,-.9L-.9,.9L.9,.9Z"
_BAR = "M-1,-.35L1,-.35L1,.35L-1,.35Z"
MARKS = {
    "zero": Mark("#808792", (2, 3), "square"),
    "mean": Mark("#2f86c9", (7, 4), "circle"),
    "median": Mark("#12a07c", (10, 3, 2, 3), "diamond"),
    "peak": Mark("#dd6315", (1, 0), "triangle-up"),
    "peak-own-range": Mark("#dd6315", (8, 2), "triangle-down"),
    "peak-whole-range": Mark("#dd6315", (2, 2), "triangle-left"),
    "peak-density": Mark("#dd6315", (6, 2, 2, 2), "triangle-right"),
    "peak-half-sample": Mark("#dd6315", (4, 4), "triangle"),
    "resample-dataset": Mark("#c56aa0", (4, 2, 1, 2), "cross"),
    "resample-characters": Mark("#c56aa0", (1, 2), _X),
    "resample-tokens": Mark("#c56aa0", (5, 2), _HEXAGON),
    "resample-generated": Mark("#c56aa0", (8, 3, 1, 3), _STAR),
    "resample-pixels": Mark("#c56aa0", (3, 3), _HOURGLASS),
    "optimal": Mark("#b08a00", (12, 2), _BAR),
}
# For kinds without a row of their own:
_OTHER_COLORS = ("#8a6fd1", "#a08a1c", "#3d8f3d", "#b0506a")
_OTHER_DASHES = ((6, 2), (3, 1), (9, 3), (1, 1))
_OTHER_SHAPES = (_BAR, _HEXAGON, _STAR, _X, _HOURGLASS)
BARS = "#8fa3b8"
CURVE = "#7048b6"
GREY = "#808792"  # rules and bands
HARM, HELP = "#e34f45", "#5b7ce6"  # of no method, and light enough for black numbers on them (WCAG 2.1, 4.5 to 1)
DARK_INK, LIGHT_INK = "#10151b", "#e6ebf0"
PAGES = {False: "#ffffff", True: "#11161c"}  # what a chart stands on, by whether it is dark
_BLUES_TURN = 0.74  # from here on, Vega's blues are dark enough for white numbers
OUTLIER = 20  # times the size of three quarters of the values: a value that would flatten all others on a linear axis


def mark_of(kind: str) -> Mark:
    """How a kind is drawn; one without a row of its own gets one of a few looks, the same every time."""
    number = zlib.crc32(kind.encode())
    color, dash, shape = _OTHER_COLORS[number % 4], _OTHER_DASHES[number // 4 % 4], _OTHER_SHAPES[number // 16 % 5]
    return MARKS.get(kind) or Mark(color, dash, shape)


def mark_scales(names: Sequence[str]) -> dict:
    """Colour, dash and shape scales for these kinds of values."""
    marks = [mark_of(name) for name in names]
    return {
        "color": alt.Color("kind:N", scale=alt.Scale(domain=names, range=[m.color for m in marks]), legend=None),
        "strokeDash": alt.StrokeDash(
            "kind:N", scale=alt.Scale(domain=names, range=[list(m.dash) for m in marks]), legend=None
        ),
        "shape": alt.Shape("kind:N", scale=alt.Scale(domain=names, range=[m.shape for m in marks]), legend=None),
    }


def ink(dark: bool) -> str:
    """The text's colour, on a light or a dark page."""
    return LIGHT_INK if dark else DARK_INK


@dataclass(frozen=True)
class Span:
    """An axis on which an outlier flattens nothing: linear up to `bend`, logarithmic beyond, on both sides of 0."""

    low: float
    high: float
    bend: float


def span_of(*values: Sequence[float], factor: float = 1.0, least: float = 0.0) -> Span | None:
    """The axis that these values need; None where a linear one shows them all.

    Args:
        factor: what the values are multiplied by before they are drawn.
        least: what is not small, however small the others are.
    """
    drawn = factor * np.concatenate([np.asarray(one, dtype=float) for one in values] or [np.empty(0)])
    drawn = drawn[np.isfinite(drawn)]
    sizes = np.abs(drawn[drawn != 0])
    usual = max(np.quantile(sizes, 0.75, method="lower"), least) if len(sizes) else 0.0
    if not len(sizes) or sizes.max() <= OUTLIER * usual:
        return None
    return Span(min(1.1 * drawn.min(), 0.0), max(1.1 * drawn.max(), 0.0), float(f"{usual:.0e}"))


def spanned(span: Span | None, title: str, linear: alt.Scale, **axis: Any) -> dict[str, Any]:
    """Title, scale and axis of a channel whose values need this span."""
    if span is None:
        return {"title": title, "scale": linear, "axis": alt.Axis(**axis)}
    scale = alt.Scale(type="symlog", constant=span.bend, domain=[span.low, span.high], nice=False)
    powers = [10.0**k for k in range(math.floor(math.log10(span.bend)) + 1, 20)]
    ticks = sorted({0.0, *powers, *(-power for power in powers)})
    ticks = [tick for tick in ticks if span.low <= tick <= span.high]
    return {
        "title": [title, f"(logarithmic beyond ±{span.bend:g})"],
        "scale": scale,
        "axis": alt.Axis(values=ticks, **axis),
    }


# Of a y axis whose title is longer than the axis: above it, in reading direction.
ON_TOP = {
    "titleAngle": 0,
    "titleAlign": "left",
    "titleAnchor": "end",
    "titleBaseline": "bottom",
    "titleX": -32,
    "titleY": -8,
}


def luminance(colour: str) -> float:
    """The relative luminance of `#rrggbb` (WCAG 2.1), from 0 to 1."""
    shades = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    light = [shade / 12.92 if shade <= 0.04045 else ((shade + 0.055) / 1.055) ** 2.4 for shade in shades]
    return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]


def blend(colour: str, share: float, dark: bool) -> str:
    """A colour over the page that it is drawn on, that much of it."""
    pairs = ((int(one[place : place + 2], 16) for one in (PAGES[dark], colour)) for place in (1, 3, 5))
    return "#" + "".join(f"{round(below + share * (above - below)):02x}" for below, above in pairs)


def cell_ink(share: str, colour: str, dark: bool) -> str:
    """An expression: the ink, black or white, that is read best on cells of a share of a colour.

    Args:
        share: an expression, from 0 to 1.
    """
    inks = ["black" if luminance(blend(colour, k / 100, dark)) > 0.179 else "white" for k in range(101)]
    turn = next((k for k in range(101) if inks[k] != inks[0]), None)
    return f"'{inks[0]}'" if turn is None else f"({share}) < {turn / 100} ? '{inks[0]}' : '{inks[-1]}'"


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


def changes(frame: pd.DataFrame, title: str, points: bool = False) -> alt.LayerChart:
    """One row per method: its change as a shape with its interval, its own noise floor as a band, and the zero line.

    Args:
        frame: columns kind, mean, low, high, chosen (bool), and, where it is known, floor_low, floor_high (the range
            of changes that random neurons make by the same method).
        points: whether the changes are of shares, shown in percentage points.
    """
    kinds = list(frame["kind"])
    scales = mark_scales(kinds)
    scale, form = (100, "+.3f") if points else (1, "+.5f")
    names = ("mean", "low", "high", "floor_low", "floor_high")
    y = alt.Y("kind:N", sort=kinds, title=None, axis=alt.Axis(domain=False, ticks=False, labelFontSize=13))
    base = alt.Chart(frame)
    for name in names:
        base = base.transform_calculate(**{f"{name}_shown": f"isValid(datum.{name}) ? {scale} * datum.{name} : null"})
    axis = spanned(change_span(frame, points), title, alt.Scale(zero=True), format="~g")
    x = alt.X("mean_shown:Q", **axis)
    tooltip = [
        alt.Tooltip("kind:N", title="method"),
        *(alt.Tooltip(f"{name}_shown:Q", title=name, format=form) for name in ("mean", "low", "high")),
    ]
    zero = alt.Chart(pd.DataFrame({"mean_shown": [0.0]})).mark_rule(color=GREY, strokeWidth=1.5).encode(x=x)
    bands = (
        base.transform_filter("isValid(datum.floor_low)")
        .mark_rect(color=GREY, opacity=0.22)
        .encode(
            y=y,
            x=alt.X("floor_low_shown:Q", **axis),
            x2="floor_high_shown:Q",
            tooltip=[
                alt.Tooltip("kind:N", title="method"),
                alt.Tooltip("floor_low_shown:Q", title="noise floor from", format=form),
                alt.Tooltip("floor_high_shown:Q", title="to", format=form),
            ],
        )
    )
    spans = base.mark_rule(strokeWidth=3, opacity=0.75).encode(
        y=y, x=alt.X("low_shown:Q", **axis), x2="high_shown:Q", color=scales["color"], tooltip=tooltip
    )
    marks = base.mark_point(filled=True, opacity=1, strokeWidth=1).encode(
        y=y,
        x=x,
        color=scales["color"],
        shape=scales["shape"],
        size=alt.condition("datum.chosen", alt.value(220), alt.value(110)),
        tooltip=tooltip,
    )
    known = (
        "floor_low" in frame and frame["floor_low"].notna().any()
    )  # a layer without data makes Vega warn of an infinite extent
    layers = [*([bands] if known else []), zero, spans, marks]
    return alt.LayerChart(layer=layers).properties(height=40 * len(kinds) + 60)


def change_span(frame: pd.DataFrame, points: bool = False) -> Span | None:
    """The axis of `changes`, where an outlier would flatten the others."""
    bounds = ("mean", "low", "high", "floor_low", "floor_high")
    return span_of(*(frame[name] for name in bounds if name in frame), factor=100 if points else 1)


def replaced_span(frame: pd.DataFrame) -> Span | None:
    """The axis of `replaced_values`."""
    return span_of(frame["value"], least=1.0)


def replaced_values(frame: pd.DataFrame) -> alt.Chart:
    """Where each method's values lie in the neurons' distributions: a tick per neuron.

    Args:
        frame: columns kind, name, value (standard deviations from the neuron's mean).
    """
    kinds = list(dict.fromkeys(frame["kind"]))
    scales = mark_scales(kinds)
    return (
        alt.Chart(frame)
        .mark_tick(thickness=1.5, size=26, opacity=0.55)
        .encode(
            x=alt.X("value:Q", **spanned(replaced_span(frame), "std from the neuron's mean", alt.Scale(zero=True))),
            y=alt.Y("kind:N", sort=kinds, title=None, axis=alt.Axis(domain=False, ticks=False, labelFontSize=13)),
            color=scales["color"],
            tooltip=["name:N", alt.Tooltip("value:Q", format="+.3f")],
        )
        .properties(height=40 * len(kinds) + 60)
    )


def loss_parts(frame: pd.DataFrame, parts: tuple[str, str]) -> alt.Chart:
    """Each constant's increase in loss as a bar of two parts: what even the best one costs, and what it costs beyond.

    Args:
        frame: as `frames.split_frame` makes it.
        parts: the names of both.
    """
    return _parts(frame, parts, [GREY, HARM]).encode(
        x=alt.X("start:Q", title="change of loss, nats per prediction"),
        x2="end:Q",
        tooltip=["kind:N", "part:N", alt.Tooltip("start:Q", format="+.4f"), alt.Tooltip("end:Q", format="+.4f")],
    )


def harm_parts(frame: pd.DataFrame, title: str, parts: Sequence[str]) -> alt.Chart:
    """Each constant's harm on a task as one stacked bar; parts for the better stand left of 0.

    Args:
        frame: as `tasks.harm.harm_frame` makes it.
        parts: the names of the parts, in order.
    """
    return _parts(frame, parts, [HELP, "#4aa3a2", GREY, HARM], columns=2).encode(
        x=alt.X("value:Q", title=title, stack="zero"),
        order=alt.Order("order:Q"),
        tooltip=["kind:N", "part:N", alt.Tooltip("value:Q", format="+.4f")],
    )


def _parts(frame: pd.DataFrame, parts: Sequence[str], colours: Sequence[str], **legend: Any) -> alt.Chart:
    """A bar for each kind, coloured by its parts; where these lie is left to the caller."""
    kinds = list(dict.fromkeys(frame["kind"]))
    return (
        alt.Chart(frame)
        .mark_bar(height={"band": 0.6})
        .encode(
            y=alt.Y("kind:N", sort=kinds, title=None, axis=alt.Axis(domain=False, ticks=False, labelFontSize=13)),
            color=alt.Color(
                "part:N",
                scale=alt.Scale(domain=list(parts), range=list(colours)),
                legend=alt.Legend(title=None, orient="top", labelLimit=300, **legend),
            ),
        )
        .properties(height=32 * len(kinds) + 90)
    )
