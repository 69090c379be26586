"""Methods beside each other: what each changes, what it puts in the neurons' place, what its harm is made of."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from ablation_core.report.charts.axes import Span, span_of, spanned
from ablation_core.report.charts.looks import GREY, HARM, HELP, mark_scales


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
    return _parts(frame, parts, [HELP, "#4aa3a2", GREY, HARM], columns=1).encode(
        x=alt.X("value:Q", title=title, stack="zero"),
        order=alt.Order("order:Q"),
        tooltip=["kind:N", "part:N", alt.Tooltip("value:Q", format="+.4f")],
    )


def _parts(frame: pd.DataFrame, parts: Sequence[str], colours: Sequence[str], **legend: Any) -> alt.Chart:
    """A bar for each kind, coloured by its parts; where these lie is left to the caller."""
    kinds, lines = list(dict.fromkeys(frame["kind"])), len(parts) if legend.get("columns") == 1 else 1
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
        .properties(height=32 * len(kinds) + 60 + 30 * lines)  # with the legend
    )
