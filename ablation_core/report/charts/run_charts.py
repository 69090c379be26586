"""Charts of whole runs: how far methods agree, single neurons, pairs of methods, pruning curves."""

from collections.abc import Mapping, Sequence
from typing import Literal

import altair as alt
import pandas as pd

from ablation_core.report.charts.axes import ON_TOP, span_of, spanned
from ablation_core.report.charts.effect_maps import _in_points
from ablation_core.report.charts.looks import AGREE, DISAGREE, GREY, HARM, HELP, cell_ink, faded, ink, mark_of
from ablation_core.report.picks import ONE, one_pick


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
                alt.Tooltip("low:Q", title="95% interval from", format=".3f"),
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

    rules = pd.DataFrame(list(dict(levels).items()), columns=["words", "value"])
    lines = (
        alt.Chart(rules).encode(y=y("value")).mark_rule(color=GREY, strokeWidth=1.2, strokeDash=[6, 3], tooltip=None)
    )

    def words(named: pd.DataFrame, align: Literal["left", "right"]) -> alt.Chart:
        text = alt.Chart(named).mark_text(
            align=align, baseline="bottom", dx=4 if align == "left" else -4, dy=-3, color=ink(dark), fontSize=12, tooltip=None
        )  # fmt: skip
        return text.encode(x=alt.value(0 if align == "left" else "width"), y=y("value"), text="words:N")

    # Curves leave the baseline and may end at chance: each is named at the other end.
    chance = rules["words"].astype(str).str.startswith("chance")
    named = [words(rules[~chance], "right"), words(rules[chance], "left")]
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
    layers = [lines, *named, single]
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
