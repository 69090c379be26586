"""How a comparison of two data sets, or two models, shows itself: tables, a map of differences, a scatter, sentences."""

from __future__ import annotations

import math
from typing import Any

import altair as alt
import pandas as pd

from ablation_core.engine.metrics import METRICS, Metric, main_metric
from ablation_core.errors import ReportError
from ablation_core.report.charts import effect_maps, looks
from ablation_core.report.charts.axes import ON_TOP
from ablation_core.report.charts.looks import GREY, ink
from ablation_core.report.numbers import amount, interval_text, is_points, number, sample_of
from ablation_core.report.run_frames import STATES
from ablation_core.runs.comparison_result import ComparisonResult, HeadComparison
from ablation_core.stats.intervals import Interval

KINDS = ("map", "scatter")
MOST_NAMED = 8  # heads whose names stand beside their points


def comparison_frame(result: ComparisonResult) -> pd.DataFrame:
    """One row per head: each metric's change on both sides and the difference, with intervals, p and q."""
    rows = []
    for head in result.heads:
        row: dict[str, Any] = {"head": head.head}
        for metric in result.metrics:
            parts = {"first": head.changes[0], "second": head.changes[1], "difference": head.difference}
            for name, part in parts.items():
                row |= _bounds(f"{metric} {name}", part[metric])
            if METRICS[metric].tested:
                row |= {f"{metric} p": head.p[metric], f"{metric} q": head.q[metric]}
        rows.append(row | {"significant": head.significant()})
    return pd.DataFrame(rows)


def _bounds(name: str, interval: Interval) -> dict[str, float | None]:
    return {f"{name} ({bound})": getattr(interval, bound) for bound in ("mean", "low", "high")}


def differing_frame(result: ComparisonResult) -> pd.DataFrame:
    """One row per head, as people read it: the change on both sides and the difference, the largest first.

    Of the loss; of two tasks, of the logit difference.
    """
    one, other = result.names
    metric = main_metric(result.metrics)
    name, form = metric.name, metric.change_format
    rows = [
        {
            "head": head.head,
            one: _text(head.changes[0][name], form),
            other: _text(head.changes[1][name], form),
            "difference": _text(head.difference[name], form),
            "q": head.q[name],
            "significant": head.significant(name),
        }
        for head in _largest(result, name)
    ]
    return pd.DataFrame(rows)


def _text(interval: Interval, form: str) -> str:
    return interval_text(interval.mean, interval.low, interval.high, form)


def _largest(result: ComparisonResult, metric: str) -> list[HeadComparison]:
    """The heads by the size of their difference, those without a number last."""

    def size(head: HeadComparison) -> float:
        mean = head.difference[metric].mean
        return abs(mean) if math.isfinite(mean) else -1.0

    return sorted(result.heads, key=size, reverse=True)


def is_selective(head: HeadComparison, metric: str) -> bool:
    """Whether a head's difference is significant; of a divergence, which is not tested, whether its interval excludes 0."""
    return head.significant(metric) if METRICS[metric].tested else head.difference[metric].shows_effect


def difference_frame(result: ComparisonResult, metric: str, picked: str | None = None) -> pd.DataFrame:
    """One row per head with a difference, as `effect_maps.effect_map` draws it, the largest first."""
    rows = []
    for head in _largest(result, metric):
        layer, number_ = map(int, head.head.split("."))
        difference = head.difference[metric]
        if not math.isfinite(difference.mean):
            continue
        rows.append(
            {
                "layer": layer,
                "head": number_,
                "label": head.head,
                "picked": head.head == picked,
                "value": difference.mean,
                "low": difference.low,
                "high": difference.high,
                "q": head.q.get(metric),
                "state": STATES[not is_selective(head, metric)],
                "estimate": math.nan,
            }
        )
    columns = ["layer", "head", "label", "picked", "value", "low", "high", "q", "state", "estimate"]
    return pd.DataFrame(rows, columns=columns)


def scatter_frame(result: ComparisonResult, metric: str) -> pd.DataFrame:
    """One row per head with a number on both sides: x on the first, y on the second, each with its interval."""
    rows = []
    left = MOST_NAMED
    for head in _largest(result, metric):
        one, other = (side[metric] for side in head.changes)
        if math.isfinite(one.mean) and math.isfinite(other.mean):
            ends = {
                f"{axis} {bound}": interval.mean if getattr(interval, bound) is None else getattr(interval, bound)
                for axis, interval in (("x", one), ("y", other))
                for bound in ("low", "high")
            }
            selective = is_selective(head, metric)
            named = head.head if selective and left else ""
            left -= bool(named)
            rows.append(
                {"label": head.head, "x": one.mean, "y": other.mean, **ends, "selective": selective, "named": named}
            )
    columns = ["label", "x", "y", "x low", "x high", "y low", "y high", "selective", "named"]
    return pd.DataFrame(rows, columns=columns)


def comparison_chart(
    result: ComparisonResult, kind: str = "map", metric: str = "loss", picked: str | None = None, dark: bool = False
) -> alt.LayerChart:
    """The map of every head's difference, or the scatter of its change on one side against the other.

    Raises:
        ReportError: there is no such picture or metric, or no head has a number.
    """
    if kind not in KINDS:
        raise ReportError(f"A comparison has no picture {kind!r}; choose from {', '.join(KINDS)}.")
    if metric not in result.metrics:
        raise ReportError(f"The result has no metric {metric!r}; choose from {', '.join(result.metrics)}.")
    row, (one, other) = METRICS[metric], result.names
    if kind == "scatter":
        frame = scatter_frame(result, metric)
        _check_any(frame)
        return _scatter(frame, one, other, row, dark)
    frame = difference_frame(result, metric, picked)
    _check_any(frame)
    layers, heads = map_size(result)
    signed = row if not row.divergence else METRICS["loss"]  # a difference of divergences has two signs
    return effect_maps.effect_map(frame, f"{row.change_heading}: {other} − {one}", signed, layers, heads, dark)


def map_size(result: ComparisonResult) -> tuple[int, int]:
    """Layers, and the most heads of one."""
    model = result.sides[0]["model"]
    return model["layers"], model["heads"] if isinstance(model["heads"], int) else max(model["heads"])


def _check_any(frame: pd.DataFrame) -> None:
    if frame.empty:
        raise ReportError("No head has a number on both sides.")


def _scatter(frame: pd.DataFrame, one: str, other: str, metric: Metric, dark: bool) -> alt.LayerChart:
    """A point per head with both intervals; the axes are equal, and on the dashed line both changes are."""
    form = metric.change_format
    numbers = [name for name in frame if name[0] in "xy"]
    if is_points(form):
        frame, form = frame.assign(**{name: 100 * frame[name] for name in numbers}), form[:-1] + "f"
    ends = [float(frame[numbers].min().min()), float(frame[numbers].max().max())]
    room = 0.04 * (ends[1] - ends[0]) or 1.0
    same = alt.Scale(domain=[ends[0] - room, ends[1] + room], nice=False, zero=False)
    x_title, y_title = f"{one}: {metric.change_heading}", f"{other}: {metric.change_heading}"
    x, y = alt.X("x:Q", title=x_title, scale=same), alt.Y("y:Q", title=y_title, scale=same, axis=alt.Axis(**ON_TOP))
    line = (
        alt.Chart(pd.DataFrame({"x": ends, "y": ends}))
        .mark_line(color=GREY, strokeDash=[4, 4], strokeWidth=1, tooltip=None)
        .encode(x=x, y=y)
    )
    base = alt.Chart(frame)
    rules = base.mark_rule(color=GREY, opacity=0.45, strokeWidth=1, tooltip=None)
    across = rules.encode(x=alt.X("x low:Q", title=x_title, scale=same), x2="x high:Q", y=y)
    up = rules.encode(y=alt.Y("y low:Q", title=y_title, scale=same, axis=alt.Axis(**ON_TOP)), y2="y high:Q", x=x)
    points = base.mark_point(filled=True, size=70, opacity=0.9).encode(
        x=x,
        y=y,
        color=alt.condition("datum.selective", alt.value(looks.HARM), alt.value(GREY)),
        shape=alt.condition("datum.selective", alt.value("diamond"), alt.value("circle")),
        tooltip=[
            alt.Tooltip("label:N", title="head"),
            alt.Tooltip("x:Q", title=one, format=form),
            alt.Tooltip("y:Q", title=other, format=form),
        ],
    )
    names = base.mark_text(align="left", dx=7, dy=-7, fontSize=11, color=ink(dark), tooltip=None).encode(
        x=x, y=y, text="named:N"
    )
    return alt.LayerChart(layer=[line, across, up, points, names]).properties(height=400)


def comparison_sentence(result: ComparisonResult, metric: str = "loss") -> str:
    """How many heads differ, and which one most."""
    row, (one, other) = METRICS[metric], result.names
    found = [head for head in _largest(result, metric) if is_selective(head, metric)]
    if row.tested and all(head.q[metric] is None for head in result.heads):
        return "There are too few sequences for a test; raise Predictions."
    if not found:
        return f"No head's change of {row.label} differs significantly between {one} and {other} (FDR 5%, {result.method})."
    first = found[0]
    changes = " against ".join(number(side[metric].mean, row.change_format) for side in first.changes)
    unit = " nats per prediction" if row.unit else ""
    return (
        f"**{len(found)} of {len(result.heads)} heads** change the {row.label} on {one} and {other} by significantly different "
        f"amounts (FDR 5%, {result.method}). Largest: head {first.head}, {changes}{unit}, a difference of "
        f"{amount(first.difference[metric].mean, row.change_format)}."
    )


def comparison_sentences(result: ComparisonResult) -> list[str]:
    sides = [
        f"{side['model']['ref']} on {sample_of(side['model'], side['data'])} of {side['data']['ref']}"
        + (f" (statistics {side['statistics']['digest'][:8]})" if side["statistics"] else "")
        for side in result.sides
    ]
    kind = "paired by prediction" if result.paired else "two samples"
    return [comparison_sentence(result), f"First: {sides[0]}; second: {sides[1]}; intervals of 95%, {kind}."]
