"""One head's effects and values as tidy frames."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ablation_core.activations.statistics import Statistics
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.selection import Head

MARKED = ("zero", "mean", "peak")


def known_frame(sweep: SweepResult, head: Head, metric: str, chosen: str) -> pd.DataFrame:
    """One row per method: its effect on a head in a saved sweep, beside the random sets of the head's own layer.

    The columns are those of `frames.change_frame`.
    """
    name, rows = f"{head[0]}.{head[1]}", []
    for method in sweep.methods:
        span = sweep.rows.get(name, {}).get(method, {}).get("change", {}).get(metric)
        if not span or span["mean"] is None:
            continue
        floor_low, floor_high, _ = sweep.floor(method, metric, layer=head[0]) or (math.nan, math.nan, 0)
        ends = (span["mean"], span["mean"]) if span["low"] is None else (span["low"], span["high"])
        row = {"kind": method, "mean": span["mean"], "low": ends[0], "high": ends[1], "chosen": method == chosen}
        rows.append(row | {"floor_low": floor_low, "floor_high": floor_high})
    return pd.DataFrame(rows, columns=["kind", "mean", "low", "high", "chosen", "floor_low", "floor_high"])


def value_frame(statistics: Statistics, layer: int, head: int, neuron: int, bins: int) -> pd.DataFrame:
    """A neuron's zero, mean and peak: columns kind, value."""
    at = (layer, head, neuron)
    values = (0.0, float(statistics.mean[at]), float(statistics.peak(bins)[at]))
    return pd.DataFrame({"kind": MARKED, "value": values})


def neurons_by_oddness(statistics: Statistics, layer: int, head: int, bins: int) -> list[int]:
    """A head's neurons, the one whose peak lies farthest from its mean, in standard deviations, first."""
    from ablation_core.activations.neuron_summary import peak_distance

    return np.argsort(-np.abs(peak_distance(statistics, bins)[layer, head]), kind="stable").tolist()


def head_scatter_frame(values: np.ndarray, effects: Mapping[str, float], shown: str) -> pd.DataFrame:
    """One row per head with a value and an effect: columns label, across, up, and whether it is the one on show.

    Args:
        values: (layers, heads), NaN where there is no head.
        effects: head → change.
    """
    rows = []
    for label, effect in effects.items():
        layer, head = map(int, label.split("."))
        if math.isfinite(effect) and math.isfinite(values[layer, head]):
            row = {"label": label, "across": float(values[layer, head]), "up": effect, "picked": label == shown}
            rows.append(row)
    return pd.DataFrame(rows, columns=["label", "across", "up", "picked"])
