"""The map of heads or layers by position: its frame and its chart."""

import math

import altair as alt
import pandas as pd

from ablation_core.engine.metrics import METRICS, Metric, main_metric
from ablation_core.errors import ReportError
from ablation_core.report.charts.effect_maps import Axis, effect_cells
from ablation_core.report.numbers import sample_of
from ablation_core.report.run_frames import STATES
from ablation_core.runs.maps.position_map import Cell, PositionMapResult

_MOST_LABELLED = 16  # positions beside each other whose numbers can be read


def position_frame(result: PositionMapResult, method: str, metric: str, picked: Cell | None = None) -> pd.DataFrame:
    """One row per measured cell: its change, interval, q and state; row by row, in the order of positions."""
    significant = result.significant(method, metric) if METRICS[metric].tested else set()
    adjusted = result.adjusted(method, metric) if METRICS[metric].tested else {}
    having, rows = dict(zip(result.positions, result.sequences, strict=True)), []
    for cell, value in result.changes(method, metric).items():
        span = result.row_of(cell, method)["change"][metric]
        rows.append(
            {
                "row": cell[0],
                "position": cell[1],
                "sequences": having[cell[1]],
                "picked": cell == picked,
                "value": value,
            }
            | {name: math.nan if span[name] is None else span[name] for name in ("low", "high")}
            | {"q": adjusted.get(cell), "state": STATES[cell not in significant], "estimate": math.nan}
        )
    columns = ["row", "position", "sequences", "picked", "value", "low", "high", "q", "state", "estimate"]
    return pd.DataFrame(rows, columns=columns).dropna(subset="value")


def position_map_chart(
    frame: pd.DataFrame, title: str, metric: Metric, result: PositionMapResult, dark: bool = False
) -> alt.LayerChart:
    """Every cell's change, position on the x axis and head or layer on the y axis, clickable as the selection `pick`.

    Args:
        frame: as `position_frame` makes it.
    """
    what = "layer" if all(row.endswith("*") for row in result.rows) else "head"
    frame = frame.rename(columns={"row": what})
    named = {what: what, "position": "position", "sequences": "prompts that have it"}
    labelled = len(result.positions) <= _MOST_LABELLED
    axes = (Axis("position", result.positions), Axis(what, result.rows[::-1]))
    return effect_cells(frame, title, metric, *axes, named, labelled, dark)


def picked_chart(result: PositionMapResult, metric: str | None = None, method: str | None = None) -> alt.LayerChart:
    """The map of a metric by one method; by default the main metric, by the first method.

    Raises:
        ReportError: the result has no such metric or method, or nothing is measured yet.
    """
    name, method = metric or main_metric(result.metrics).name, method or result.methods[0]
    if name not in result.metrics or method not in result.methods:
        known = ", ".join([*result.metrics, *result.methods])
        raise ReportError(f"The result has no {name!r} by {method!r}; choose from {known}.")
    frame = position_frame(result, method, name)
    if frame.empty:
        raise ReportError(f"No cell has been measured with {method} yet.")
    return position_map_chart(frame, f"{METRICS[name].change_title}, {method}", METRICS[name], result)


def position_table(result: PositionMapResult) -> pd.DataFrame:
    """One row per measured cell, method and metric, with its interval and q; what `to_frame()` gives."""
    parts = [
        position_frame(result, method, metric).drop(columns=["picked", "estimate"]).assign(method=method, metric=metric)
        for method in result.methods
        for metric in result.metrics
    ]
    return pd.concat(parts, ignore_index=True)


def position_sentence(result: PositionMapResult, method: str, metric: str) -> str:
    """How many cells are significant with a method, and which is the largest."""
    row, changes = METRICS[metric], result.changes(method, metric)
    finite = {cell: value for cell, value in changes.items() if math.isfinite(value)}
    if not finite:
        return f"No position has been measured with {method} yet."
    found = result.significant(method, metric) if row.tested else set()
    head, position = max(finite, key=lambda cell: abs(finite[cell]))
    total = len(result.rows) * len(result.positions)
    so_far = "" if len(finite) == total else f" ({len(finite)} measured so far)"
    data = result.description["data"]
    return (
        f"With {method}, **{len(found)} of {total} cells**{so_far} have a significant effect on {row.noun} (FDR 5%), on "
        f"{sample_of(result.description['model'], data)} of {data['ref']}. Largest change: {head} at position {position}, "
        f"{row.shown_change(finite[head, position])}."
    )
