"""Charts of sweeps and curves: the map of changes, the rank agreement of methods, the pruning curves.

Knows neither Streamlit nor torch. Colours, dashes and shapes of methods are those of `charts.mark_of`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd

from ablation_core.engine.metrics import Metric
from ablation_core.report.charts import (
    CURVE,
    GREY,
    HARM,
    HELP,
    ON_TOP,
    OUTLIER,
    cell_ink,
    ink,
    mark_of,
    span_of,
    spanned,
)
from ablation_core.report.numbers import is_points
from ablation_core.report.picks import ONE, one_pick
from ablation_core.report.run_frames import STATES


def faded(colour: str) -> str:
    """The colour to nothing, on white as on black."""
    return f"rgba({', '.join(str(int(colour[place : place + 2], 16)) for place in (1, 3, 5))}, 0.03)"


MOST_LABELLED = 200  # cells with their values written in them
AGREE, DISAGREE = CURVE, "#b08a00"


def _in_points(base: alt.Chart, form: str, *columns: str) -> tuple[alt.Chart, str, float]:
    """Differences of shares in percentage points, with their format and factor; everything else as it is."""
    if not is_points(form):
        return base, form, 1.0
    points = {name: f"isValid(datum['{name}']) ? 100 * datum['{name}'] : null" for name in columns}
    return base.transform_calculate(**points), form[:-1] + "f", 100.0


def deepest(frame: pd.DataFrame, factor: float = 1.0) -> float:
    """The change that gets the deepest colour of `effect_map`: the largest but for outliers, which get it too."""
    sizes = factor * frame["value"].abs()
    return max(min(sizes.max(), OUTLIER * sizes.quantile(0.75)), 1e-12) if len(frame) else 1.0


def effect_map(
    frame: pd.DataFrame,
    title: str,
    metric: Metric,
    layers: int,
    heads: int,
    dark: bool = False,
) -> alt.LayerChart:
    """Every head's change, layer on the x axis and head on the y axis, clickable as the selection `pick`.

    Args:
        frame: as `run_frames.map_frame` makes it.
        metric: what is drawn; changes for the worse are red.
        dark: whether it is drawn on a dark page.
    """
    axes = (Axis("layer", range(layers)), Axis("head", range(heads)[::-1]))
    return effect_cells(frame, title, metric, *axes, {"label": "head"}, layers * heads <= MOST_LABELLED, dark)


@dataclass(frozen=True)
class Axis:
    """An axis of a map: the column that it shows, which is also its title, and the column's values in their order."""

    column: str
    values: Sequence[int | str]


def effect_cells(
    frame: pd.DataFrame,
    title: str,
    metric: Metric,
    x: Axis,
    y: Axis,
    named: Mapping[str, str],
    labelled: bool,
    dark: bool = False,
) -> alt.LayerChart:
    """A map of changes, each a cell, clickable as the selection `pick`.

    The colour is the value, always, on a square-root scale, so that small changes show beside large ones. Significant
    ones are bold or, on a map too large for numbers, have a dot; estimates are italic or have a ring. (Vega drops dashes
    and, on discrete fields, opacity from rectangles.)

    Args:
        frame: the axes' columns, value, low, high, q, state, picked, estimate.
        named: columns that say what a cell is, with the words for them.
        labelled: whether there is room for numbers.
    """
    base, form, factor = _in_points(alt.Chart(frame), metric.cell_format, "value", "low", "high", "estimate")
    most = deepest(frame, factor)
    below, above = (HELP, HARM) if metric.worse > 0 else (HARM, HELP)
    domain = [0, most] if metric.divergence else [-most, -1e-9 * most, 1e-9 * most, most]
    colours = [faded(above), above] if metric.divergence else [below, faded(below), faded(above), above]
    base = base.encode(
        x=alt.X(
            f"{x.column}:O",
            title=x.column,
            scale=alt.Scale(domain=list(x.values)),
            axis=alt.Axis(labelAngle=0, domain=False, ticks=False, labelOverlap=True),
        ),
        y=alt.Y(
            f"{y.column}:O",
            title=y.column,
            scale=alt.Scale(domain=list(y.values)),
            axis=alt.Axis(domain=False, ticks=False, labelOverlap=True),
        ),
    )
    pick = one_pick([x.column, y.column])
    cells = (
        base.mark_rect(cornerRadius=3, cursor="pointer", stroke="#80808090", strokeWidth=1)
        .encode(
            color=alt.Color(
                "value:Q",
                scale=alt.Scale(type="sqrt", domain=domain, range=colours, clamp=True),
                legend=alt.Legend(
                    title=title,
                    orient="top",
                    gradientLength=220,
                    titleLimit=300,
                    labelExpr=f"datum.value == 0 ? '0' : format(datum.value, '{form}')",
                    tickCount=3,
                ),
            ),
            tooltip=[
                *(alt.Tooltip(f"{column}:N", title=words) for column, words in named.items()),
                alt.Tooltip("value:Q", title=title, format=form),
                alt.Tooltip("low:Q", title="95 % interval from", format=form),
                alt.Tooltip("high:Q", title="to", format=form),
                alt.Tooltip("q:Q", title="q over the map", format=".3f"),
                alt.Tooltip("state:N", title="is"),
                *(
                    [alt.Tooltip("estimate:Q", title="instant estimate", format=form)]
                    if frame["estimate"].notna().any()
                    else []
                ),
            ],
        )
        .add_params(pick)
    )
    outline = base.transform_filter(ONE).mark_rect(
        fill=None, stroke=ink(dark), strokeWidth=3, cornerRadius=3, tooltip=None
    )
    share = f"sqrt(min(abs(datum.value) / {most}, 1))"
    written = alt.expr(f"datum.value > 0 ? {cell_ink(share, above, dark)} : {cell_ink(share, below, dark)}")
    if labelled:
        shown = base.transform_calculate(
            shown=f"format(datum.value, '{form}')"
        ).transform_calculate(
            shown="test(/[1-9]/, datum.shown) ? datum.shown : replace(datum.shown, /[+−-]/, '')"  # no sign before a zero
        )
        marks = shown.mark_text(
            fontSize=11,
            fontWeight=alt.expr(f"datum.state === '{STATES[0]}' ? 'bold' : 'normal'"),
            fontStyle=alt.expr(f"datum.state === '{STATES[2]}' ? 'italic' : 'normal'"),
            cursor="pointer",
            tooltip=None,
            color=written,
        ).encode(text=alt.Text("shown:N"))
    else:
        marks = base.transform_filter(f"datum.state !== '{STATES[1]}'").mark_point(
            size=12,
            strokeWidth=1,
            fillOpacity=alt.expr(f"datum.state === '{STATES[0]}' ? 1 : 0"),
            filled=True,
            strokeOpacity=1,
            cursor="pointer",
            tooltip=None,
            fill=written,
            stroke=written,
        )
    chart = alt.LayerChart(layer=[cells, outline, marks])
    return chart.properties(height=110 + max(150, min(34 * len(y.values), 480)))


def agreement_matrix(frame: pd.DataFrame, methods: Sequence[str], dark: bool = False) -> alt.LayerChart:
    """The rank correlation of every two methods, clickable as the selection `pick`.

    Args:
        frame: columns one, other, rho, low, high, heads, picked.
    """
    methods = list(methods)
    axis = alt.Axis(labelAngle=-35, labelOverlap=False, domain=False, ticks=False, title=None)
    base = alt.Chart(frame).encode(
        x=alt.X("one:N", scale=alt.Scale(domain=methods), axis=axis),
        y=alt.Y("other:N", scale=alt.Scale(domain=methods), axis=alt.Axis(domain=False, ticks=False), title=None),
    )
    pick = one_pick(["one", "other"])
    cells = (
        base.mark_rect(cornerRadius=3, stroke="#80808090", strokeWidth=1, cursor="pointer")
        .encode(
            color=alt.Color(
                "rho:Q",
                scale=alt.Scale(domain=[-1, -1e-9, 1e-9, 1], range=[DISAGREE, faded(DISAGREE), faded(AGREE), AGREE]),
                legend=None,
            ),
            tooltip=[
                alt.Tooltip("one:N", title="method"),
                alt.Tooltip("other:N", title="and"),
                alt.Tooltip("rho:Q", title="Spearman's ρ", format=".3f"),
                alt.Tooltip("low:Q", title="95 % interval from", format=".3f"),
                alt.Tooltip("high:Q", title="to", format=".3f"),
                alt.Tooltip("heads:Q", title="heads"),
            ],
        )
        .add_params(pick)
    )
    written = f"datum.rho > 0 ? {cell_ink('datum.rho', AGREE, dark)} : {cell_ink('-datum.rho', DISAGREE, dark)}"
    texts = base.mark_text(fontSize=12, cursor="pointer", tooltip=None, color=alt.expr(written)).encode(
        text=alt.Text("rho:Q", format=".2f")
    )
    outline = base.transform_filter(ONE).mark_rect(
        fill=None, stroke=ink(dark), strokeWidth=3, cornerRadius=3, tooltip=None
    )
    return (cells + outline + texts).properties(height=40 * len(methods) + 90)


def neuron_bars(frame: pd.DataFrame, title: str, form: str) -> alt.LayerChart:
    """One bar per neuron of a head: its estimated change, with one standard error to each side; clickable as `pick`.

    Args:
        frame: columns label, neuron, estimate, error, picked.
    """
    base, form, factor = _in_points(alt.Chart(frame), form, "estimate", "error")
    base = base.transform_calculate(low="datum.estimate - datum.error", high="datum.estimate + datum.error")
    span = span_of(frame["estimate"], factor=factor)
    y = alt.Y("estimate:Q", **spanned(span, title, alt.Scale(zero=True)))
    x = alt.X("neuron:O", title="neuron", axis=alt.Axis(labelAngle=0, labelOverlap=True, ticks=False))
    pick = one_pick(["neuron"])
    tooltip = [
        alt.Tooltip("label:N", title="neuron"),
        alt.Tooltip("estimate:Q", title="instant estimate", format=form),
        alt.Tooltip("error:Q", title="standard error", format=form.lstrip("+")),
    ]
    bars = (
        base.mark_bar(cursor="pointer", cornerRadius=2)
        .encode(
            x=x,
            y=y,
            color=alt.condition("datum.estimate > 0", alt.value(HARM), alt.value(HELP)),
            opacity=alt.condition(ONE, alt.value(1), alt.value(0.55)),
            tooltip=tooltip,
        )
        .add_params(pick)
    )
    errors = base.mark_rule(color=GREY, strokeWidth=1.5, tooltip=None).encode(x=x, y="low:Q", y2="high:Q")
    return (bars + errors).properties(height=260)


def pair_scatter(frame: pd.DataFrame, one: str, other: str, unit: str, form: str) -> alt.LayerChart:
    """A point per head: its change by one method against that by another, and the line where both are equal.

    Args:
        frame: columns label, x, y.
    """
    base, form, factor = _in_points(alt.Chart(frame), form, "x", "y")
    ends = list(pair_ends(frame, factor))
    line = alt.Chart(pd.DataFrame({"x": ends, "y": ends})).mark_line(
        color=GREY, strokeDash=[4, 4], strokeWidth=1, tooltip=None
    )
    # Where a diagonal means equality, both axes are the same.
    same, span = alt.Scale(domain=ends, nice=False, zero=False), span_of(frame["x"], frame["y"], factor=factor)
    x = alt.X("x:Q", **spanned(span, f"{one}: {unit}", same))
    y = alt.Y("y:Q", **spanned(span, f"{other}: {unit}", same, **ON_TOP))
    points = base.mark_point(filled=True, size=60, opacity=0.75, color=GREY).encode(
        x=x,
        y=y,
        tooltip=[
            alt.Tooltip("label:N", title="head"),
            alt.Tooltip("x:Q", title=one, format=form),
            alt.Tooltip("y:Q", title=other, format=form),
        ],
    )
    return (line.encode(x=x, y=y) + points).properties(height=300)


def pair_ends(frame: pd.DataFrame, factor: float = 1.0) -> tuple[float, float]:
    """Where both axes of `pair_scatter` end: a little beyond the least and the greatest value."""
    low, high = (factor * float(frame[["x", "y"]].agg(end).agg(end)) for end in ("min", "max"))
    room = 0.04 * ((high - low) or 1.0)
    return low - room, high + room


def pruning_curves(
    bands: pd.DataFrame,
    points: pd.DataFrame,
    title: str,
    form: str,
    levels: Mapping[str, float] | Sequence[tuple[str, float]],
    dark: bool = False,
) -> alt.LayerChart:
    """One line per method with its band over seeds, every seed's points behind it, and levels as labelled rules.

    Args:
        bands: columns kind, percent, mean, low, high.
        points: columns kind, seed, percent, value.
        levels: words → height, such as the baseline's; or such pairs.
    """
    kinds = list(dict.fromkeys(points["kind"]))
    marks = [mark_of(kind) for kind in kinds]
    legend = alt.Legend(
        title=None, orient="top", labelFontSize=13, symbolSize=90, symbolStrokeWidth=0, symbolOpacity=1, columns=3
    )
    colour = alt.Color("kind:N", scale=alt.Scale(domain=kinds, range=[m.color for m in marks]), legend=legend)
    dash = alt.StrokeDash("kind:N", scale=alt.Scale(domain=kinds, range=[list(m.dash) for m in marks]), legend=legend)
    shape = alt.Shape("kind:N", scale=alt.Scale(domain=kinds, range=[m.shape for m in marks]), legend=legend)
    x = alt.X("percent:Q", title="removed, % of each layer", scale=alt.Scale(domain=[0, 100], nice=False))

    def y(column: str) -> alt.Y:
        return alt.Y(f"{column}:Q", title=title, scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(format=form))

    rules = pd.DataFrame([{"words": words, "value": value} for words, value in dict(levels).items()])
    level = alt.Chart(rules).encode(y=y("value"))
    lines = level.mark_rule(color=GREY, strokeWidth=1.2, strokeDash=[6, 3], tooltip=None)
    words = level.mark_text(
        align="right", baseline="bottom", dx=-4, dy=-3, color=ink(dark), fontSize=12, tooltip=None
    ).encode(x=alt.value("width"), text="words:N")
    single = (
        alt.Chart(points)
        .mark_point(filled=True, size=26, opacity=0.45)
        .encode(
            x=x,
            y=y("value"),
            color=colour,
            shape=shape,
            tooltip=[
                alt.Tooltip("kind:N", title="method"),
                alt.Tooltip("seed:N"),
                alt.Tooltip("percent:Q", title="removed, %"),
                alt.Tooltip("value:Q", title=title, format=form),
            ],
        )
    )
    layers = [lines, words, single]
    if len(bands):
        base = alt.Chart(bands).encode(x=x, color=colour)
        tooltip = [
            alt.Tooltip("kind:N", title="method"),
            alt.Tooltip("percent:Q", title="removed, %"),
            alt.Tooltip("mean:Q", title="mean over seeds", format=form),
            alt.Tooltip("low:Q", title="minimum", format=form),
            alt.Tooltip("high:Q", title="maximum", format=form),
        ]
        layers += [
            base.mark_area(opacity=0.16, tooltip=None).encode(y=y("low"), y2="high:Q"),
            base.mark_line(strokeWidth=2.2, tooltip=None).encode(y=y("mean"), strokeDash=dash),
            base.mark_point(filled=True, size=70, opacity=1).encode(y=y("mean"), shape=shape, tooltip=tooltip),
        ]
    return alt.LayerChart(layer=layers).properties(height=460)
