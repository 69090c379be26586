"""Statistics and results as tidy frames, the form that the charts draw and the tables show."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ablation_core.activations.neuron_summary import NeuronSummary, peak_distance
from ablation_core.activations.statistics import Statistics
from ablation_core.engine.metrics import metrics_in
from ablation_core.experiments.results import AblationResult
from ablation_core.methods.registry import constant_values, usual_constants
from ablation_core.report.numbers import number
from ablation_core.report.sentences import is_constant
from ablation_core.selection import Head, ModelShape, Selection

if TYPE_CHECKING:
    from ablation_core.experiments.noise_floor import NoiseFloor

GRID_BINS = 40
SPLIT = ("unavoidable loss", "extra loss from an unusual value")


def head_frame(values: np.ndarray, shape: ModelShape, picked: Collection[Head] = ()) -> pd.DataFrame:
    """One row per head; `values` is (layers, heads)."""
    rows = [
        {"layer": layer, "head": head, "value": float(values[layer, head]), "picked": (layer, head) in picked}
        for layer, count in enumerate(shape.heads)
        for head in range(count)
    ]
    return pd.DataFrame(rows).assign(label=lambda frame: frame["layer"].astype(str) + "." + frame["head"].astype(str))


def head_distances(statistics: Statistics, bins: int) -> np.ndarray:
    """Per head the mean over its neurons of the distance between peak and mean, in std; (layers, heads)."""
    return np.nanmean(np.abs(peak_distance(statistics, bins)), axis=-1)


def neuron_frame(statistics: Statistics, layer: int, head: int, bins: int) -> pd.DataFrame:
    """One row per neuron of a head, those with the peak farthest from the mean first."""
    distance = peak_distance(statistics, bins)[layer, head]
    frame = pd.DataFrame(
        {
            "neuron": np.arange(len(distance)),
            "mean": statistics.mean[layer, head],
            "median": statistics.median()[layer, head],
            "peak": statistics.peak(bins)[layer, head],
            "std": statistics.std[layer, head],
            "distance_in_std": distance,
        }
    )
    return frame.sort_values("distance_in_std", key=np.abs, ascending=False, ignore_index=True)


def grid_frames(
    statistics: Statistics, layer: int, head: int, neurons: pd.DataFrame, picked: int, columns: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Outlines, marks and cells of `charts.neuron_grid`, in the order of `neurons`."""
    outlines, marks, cells = [], [], []
    for place, row in enumerate(neurons.itertuples()):
        x0, y0 = place % columns, -(place // columns) - 1
        neuron = int(row.neuron)
        edges, counts = statistics.histogram(layer, head, neuron, GRID_BINS)
        left, span = edges[0], edges[-1] - edges[0]
        heights = np.append(counts / max(counts.max(), 1), 0) * 0.72
        outlines.append(
            pd.DataFrame(
                {
                    "neuron": neuron,
                    "x": x0 + 0.05 + 0.88 * (edges - left) / span,
                    "y": y0 + 0.08 + heights,
                    "base": y0 + 0.08,
                }
            )
        )
        for kind, value in (("zero", 0.0), ("mean", row.mean), ("median", row.median), ("peak", row.peak)):
            if left <= value <= edges[-1]:
                x = x0 + 0.05 + 0.88 * (value - left) / span
                marks.append({"neuron": neuron, "kind": kind, "x": x, "y": y0 + 0.08, "y2": y0 + 0.84})
        cells.append(
            {
                "neuron": neuron,
                "name": f"{layer}.{head}:{neuron}",
                "picked": neuron == picked,
                "x": x0 + 0.02,
                "x2": x0 + 0.96,
                "y": y0 + 0.03,
                "y2": y0 + 0.97,
                "mean": row.mean,
                "std": row.std,
                "peak": row.peak,
                "distance_in_std": row.distance_in_std,
            }
        )
    named = ["neuron", "kind", "x", "y", "y2"]  # also where no value lies within any range
    return pd.concat(outlines, ignore_index=True), pd.DataFrame(marks, columns=named), pd.DataFrame(cells)


def histogram_frame(statistics: Statistics, layer: int, head: int, neuron: int, bins: int) -> pd.DataFrame:
    edges, counts = statistics.histogram(layer, head, neuron, bins)
    return pd.DataFrame({"left": edges[:-1], "right": edges[1:], "count": counts})


def mark_frame(reading: NeuronSummary, bars: pd.DataFrame, span: tuple[float, float] | None = None) -> pd.DataFrame:
    """A neuron's four values with the text printed beside each, and where it is printed (see `text_places`).

    Args:
        bars: as `histogram_frame` makes them; they and the values decide what the axis shows.
        span: what it shows, where that is fixed.
    """
    shown, values = bars[bars["count"] > 0], np.array(list(reading.values.values()))
    ends = [*shown["left"], *shown["right"], *values]
    low, high = span or (min(ends), max(ends))
    lanes, rightward = text_places(np.nan_to_num((values - low) / ((high - low) or 1)))
    rows = [
        {
            "kind": kind,
            "value": value,
            "text": f"{kind} {number(value, '.4g')}"
            + ("" if kind == "mean" else f"  ({number(reading.distance_in_std(kind, 'mean'), '+.2f')} std)"),
        }
        for kind, value in reading.values.items()
    ]
    return pd.DataFrame(rows).assign(lane=lanes, rightward=rightward)


def text_places(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where texts stand above a chart, so that no stem, which goes down from a text, crosses another text.

    Those on the left have their text to the right of the stem, and the rightmost of them is the lowest; the others have
    it to the left, and the leftmost is the lowest.

    Args:
        shares: where the stems stand on the axis, from 0 to 1.

    Returns:
        Each one's lane, 0 the lowest, and whether its text goes to the right.
    """
    order = np.argsort(shares, kind="stable")
    places, count = shares[order], len(shares)

    def trouble(left: int) -> float:
        """How far texts reach beyond the axis, or into each other, where so many are on the left."""
        beyond = np.clip(places[:left] + _TEXT - 1, 0, None).sum() + np.clip(_TEXT - places[left:], 0, None).sum()
        return beyond + (max(_TEXT - places[left] + places[left - 1], 0) if 0 < left < count else 0)

    left = min(range(count, -1, -1), key=trouble)
    lanes = np.empty(count, dtype=int)
    lanes[[*order[:left][::-1], *order[left:]]] = np.arange(count)
    return lanes, np.isin(np.arange(count), order[:left])


_TEXT = 0.3  # of the axis: the room of a text, on a screen that is not wide


def change_frame(result: AblationResult, metric: str, chosen: str, floor: NoiseFloor | None = None) -> pd.DataFrame:
    """One row per method: the change of a metric with its interval and the method's noise floor."""
    rows = []
    for row in result.results:
        floor_low, floor_high = (floor and floor.band(row.method, metric)) or (math.nan, math.nan)
        interval = row.change[metric]
        low, high = (interval.mean, interval.mean) if interval.low is None else (interval.low, interval.high)
        rows.append(
            {
                "kind": row.method,
                "mean": interval.mean,
                "low": low,
                "high": high,
                "chosen": row.method == chosen,
                "floor_low": floor_low,
                "floor_high": floor_high,
            }
        )
    return pd.DataFrame(rows)


def replaced_frame(statistics: Statistics, selection: Selection, bins: int) -> pd.DataFrame:
    """One row per constant method and selected neuron: the value, in standard deviations from the neuron's mean."""
    rows = []
    for method in usual_constants():
        values = constant_values(method, statistics, selection, bins)
        distance = np.divide(
            values - statistics.mean, statistics.std, out=np.zeros_like(values), where=statistics.std > 0
        )
        for (layer, head), neurons in selection.chosen:
            rows += [
                {"kind": method.name, "name": f"{layer}.{head}:{n}", "value": float(distance[layer, head, n])}
                for n in neurons
            ]
    return pd.DataFrame(rows, columns=["kind", "name", "value"])


def result_frame(result: AblationResult) -> pd.DataFrame:
    """One row per method, the baseline first: every metric, and the changes with their intervals."""
    rows = [{"method": "baseline", **result.baseline.figures()}]
    for row in result.results:
        changes = {
            f"change of {metric.name} ({bound})": getattr(row.change[metric.name], bound)
            for metric in metrics_in(row.change)
            if metric.tested
            for bound in ("mean", "low", "high")
        }
        moved = {"moved": row.displacement.moved, "residual": row.displacement.norm_change}
        rows.append({"method": row.method, **row.performance.figures(), **moved, **changes})
    return pd.DataFrame(rows)


def split_frame(result: AblationResult) -> pd.DataFrame:
    """A row per constant method and part of its increase in loss: what even the optimal constants cost, and what it costs
    beyond them; empty where these were not learned. Columns kind, part, start, end (nats per prediction)."""
    rows = {row.method: row for row in result.results}
    parts: list[dict[str, object]] = []
    if "optimal" in rows and result.neurons:
        least = rows["optimal"].change["loss"].mean
        for row in result.results:
            if row.method == "optimal" or (is_constant(row.method) and row.excess is not None):
                parts.append({"kind": row.method, "part": SPLIT[0], "start": 0.0, "end": least})
            if is_constant(row.method) and row.excess is not None:
                parts.append({"kind": row.method, "part": SPLIT[1], "start": least, "end": least + row.excess.mean})
    frame = pd.DataFrame(parts, columns=["kind", "part", "start", "end"])
    return frame[np.isfinite(frame["end"].astype(float))]
