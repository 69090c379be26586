"""Saved results beside each other as one table and one chart, and the differences of two."""

from __future__ import annotations

import math
from collections.abc import Mapping

import altair as alt
import pandas as pd

from ablation_core.errors import ReportError
from ablation_core.report.charts.looks import GREY
from ablation_core.report.numbers import interval_text, number
from ablation_core.saved.figures import Figures
from ablation_core.saved.side_by_side import CHANGE, Difference, SavedComparison
from ablation_core.stats.intervals import Interval

MOST_ROWS = 24
COLOURS = ("#2f86c9", "#dd6315", "#12a07c", "#c56aa0", "#8a6fd1", "#a08a1c", "#808792", "#b0506a")
SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "triangle-left", "triangle-right")
MOST_RESULTS = len(COLOURS)
FORM = "+.4f"


def figures_frame(results: Mapping[str, Figures]) -> pd.DataFrame:
    """One row per result and figure, those of the largest change first: result, what, mean, low, high."""
    rows = [
        {"result": name, "what": what, "mean": one.mean, "low": one.low, "high": one.high}
        for name, figures in results.items()
        for what, one in figures.items()
    ]
    frame = pd.DataFrame(rows, columns=["result", "what", "mean", "low", "high"])
    size = frame.assign(size=frame["mean"].abs()).groupby("what")["size"].max()
    order = frame["what"].map(size).fillna(-1.0)
    return frame.iloc[(-order).argsort(kind="stable")].reset_index(drop=True)


def figures_table(results: Mapping[str, Figures], form: str = FORM) -> pd.DataFrame:
    """One row per figure, one column per result, to read; figures that several results have first."""
    whats = dict.fromkeys(what for figures in results.values() for what in figures)
    ordered = sorted(whats, key=lambda what: -sum(what in figures for figures in results.values()))

    def text(figures: Figures, what: str) -> str:
        one = figures.get(what)
        return "" if one is None else interval_text(one.mean, one.low, one.high, form)

    return pd.DataFrame([{"of": what, **{n: text(f, what) for n, f in results.items()}} for what in ordered])


def figures_chart(frame: pd.DataFrame, unit: str = CHANGE) -> alt.LayerChart:
    """Each figure on a line of its own: a mark per result with its 95% interval, and the zero line.

    Args:
        frame: as `figures_frame` makes it; the first `MOST_ROWS` figures are drawn.
    """
    whats = list(dict.fromkeys(frame["what"]))[:MOST_ROWS]
    names = list(dict.fromkeys(frame["result"]))
    if frame.empty or len(names) > MOST_RESULTS:
        raise ReportError(f"One chart holds 1 to {MOST_RESULTS} results with figures.")
    frame = frame[frame["what"].isin(whats)]
    frame = frame.assign(low=frame["low"].fillna(frame["mean"]), high=frame["high"].fillna(frame["mean"]))
    legend = alt.Legend(title=None, orient="top", columns=1, labelLimit=520, symbolOpacity=1, symbolSize=90)
    places = alt.Y("what:N", sort=whats, title=None, axis=alt.Axis(labelLimit=260, domain=False, ticks=False))
    offset = alt.YOffset("result:N", scale=alt.Scale(domain=names))
    colour = alt.Color("result:N", scale=alt.Scale(domain=names, range=list(COLOURS[: len(names)])), legend=legend)
    shape = alt.Shape("result:N", scale=alt.Scale(domain=names, range=list(SHAPES[: len(names)])), legend=legend)
    base = alt.Chart(frame)
    across = alt.X("mean:Q", title=unit)
    rules = base.mark_rule(strokeWidth=2, tooltip=None).encode(
        x=alt.X("low:Q", title=unit), x2="high:Q", y=places, yOffset=offset, color=colour
    )
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        x=across,
        y=places,
        yOffset=offset,
        color=colour,
        shape=shape,
        tooltip=[
            alt.Tooltip("result:N"),
            alt.Tooltip("what:N", title="of"),
            alt.Tooltip("mean:Q", title=unit, format=FORM),
            alt.Tooltip("low:Q", title="from", format=FORM),
            alt.Tooltip("high:Q", title="to", format=FORM),
        ],
    )
    zero = (
        alt.Chart(pd.DataFrame({"mean": [0.0]})).mark_rule(color=GREY, strokeWidth=1.5, tooltip=None).encode(x=across)
    )
    height = 90 + 24 * len(names) + len(whats) * max(32, 20 * len(names))  # with the legend and the axis
    return alt.LayerChart(layer=[zero, rules, points]).properties(height=height)


def differences_frame(result: SavedComparison) -> pd.DataFrame:
    """One row per figure: its value in both results and the difference, with intervals, p, and whether it is paired."""
    rows = []
    for row in result.rows:
        parts = {"first": row.first, "second": row.second, "difference": row.difference}
        bounds = {
            f"{name} ({bound})": getattr(part, bound)
            for name, part in parts.items()
            for bound in ("mean", "low", "high")
        }
        rows.append({"what": row.what, **bounds, "p": row.p, "paired": row.paired})
    return pd.DataFrame(rows)


def differences_table(result: SavedComparison) -> pd.DataFrame:
    """The same as people read it, the largest difference first."""
    one, other = result.names if result.names[0] != result.names[1] else ("first", "second")

    def text(part: Interval) -> str:
        return interval_text(part.mean, part.low, part.high, FORM)

    rows = sorted(result.rows, key=lambda row: -abs(row.difference.mean))
    return pd.DataFrame(
        [
            {
                "of": row.what,
                one: text(row.first),
                other: text(row.second),
                "difference": text(row.difference),
                "p": row.p,
                "paired": row.paired,
            }
            for row in rows
        ]
    )


def differences_chart(result: SavedComparison) -> alt.LayerChart:
    """Both results' figures, the largest first."""
    one, other = result.names
    names = (one, other) if one != other else (f"{one} (first)", f"{other} (second)")
    figures = {
        names[0]: {row.what: row.first for row in result.rows},
        names[1]: {row.what: row.second for row in result.rows},
    }
    return figures_chart(figures_frame(figures), result.unit)


def differences_sentences(result: SavedComparison) -> list[str]:
    """The figure that differs most, and what could not be compared."""
    rows = [row for row in result.rows if math.isfinite(row.difference.mean)]
    if not rows:
        return ["No figure has a number in both.", *result.notes]

    def size(row: Difference) -> tuple[bool, float]:
        return row.difference.shows_effect, abs(row.difference.mean)

    most = max(rows, key=size)
    span = interval_text(most.difference.mean, most.difference.low, most.difference.high, FORM)
    values = " and ".join(number(part.mean, FORM) for part in (most.first, most.second))
    found = sum(row.difference.shows_effect for row in rows)
    return [
        f"{result.names[1]} minus {result.names[0]}: {found} of {len(rows)} differences exclude 0. Largest: **{most.what}**, "
        f"{values}, a difference of {span} nats per prediction{' (paired)' if most.paired else ''}.",
        *result.notes,
    ]
