"""Frames about neurons for the Distributions page: a density, two data sets, positions, every neuron of the model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ablation_core.activations.statistics import Statistics
from ablation_core.report.numbers import number
from ablation_core.selection import ModelShape

if TYPE_CHECKING:
    from ablation_core.activations.all_neurons import AllNeurons
    from ablation_core.activations.by_position import ByPosition

ODDITIES = {
    "peak from mean": ("peak_mean", "peak − mean, std"),
    "peak from zero": ("peak_zero", "peak − zero, std"),
    "mean from zero": ("mean_zero", "mean − zero, std"),
    "skew": ("skew", "skew"),
    "second hump": ("second_mode", "second hump − peak, std"),
    "uncertain peak": ("peak_width", "peak interval, std"),
}
_CURVE_POINTS = 240


def density_frame(statistics: Statistics, layer: int, head: int, neuron: int, bins: int, kind: str) -> pd.DataFrame:
    """A density over a neuron's histogram, in positions per bin: columns x, count.

    Args:
        kind: `smoothed`, a Gaussian kernel of Silverman's width (1986, equation 3.31) over the fine bins; or `normal`,
            that with the neuron's mean and standard deviation.
    """
    edges, counts = statistics.histogram(layer, head, neuron, statistics.bins)
    x = (edges[1:] + edges[:-1]) / 2
    mean, std = float(statistics.mean[layer, head, neuron]), float(statistics.std[layer, head, neuron])
    total, fine = counts.sum(), edges[1] - edges[0]
    per_bin = (edges[-1] - edges[0]) / bins
    if not std > 0 or total == 0:
        return pd.DataFrame({"x": [], "count": []})
    if kind == "normal":
        bell = np.exp(-(((x - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))
        height = bell * float(statistics.count[layer, head, neuron])
    else:
        from scipy.ndimage import gaussian_filter1d

        quarter, three = (np.searchsorted(np.cumsum(counts), share * total) for share in (0.25, 0.75))
        spread = min(std, (x[three] - x[quarter]) / 1.34) or std
        width = 0.9 * spread * total**-0.2
        height = gaussian_filter1d(counts / fine, sigma=max(width / fine, 0.5), mode="constant")
    chosen = np.linspace(0, len(x) - 1, min(_CURVE_POINTS, len(x))).round().astype(int)
    return pd.DataFrame({"x": x[chosen], "count": (height * per_bin)[chosen]})


MOVING = ("mean", "peak")  # how far these lie apart on two data sets is drawn and said


def two_sets_frames(
    one: Statistics, other: Statistics, layer: int, head: int, neuron: int, bins: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A neuron on two data sets: bars (left, right, share, data) and moves (kind, first, second, distance, height).

    Bars are shares of positions per unit of activation, so that other bin widths and counts stay comparable. A move is
    that of the mean or the peak from the first data set to the second, with its distance in standard deviations of the
    first, and the height above all bars at which it is drawn.
    """
    bars, values = [], []
    at = (layer, head, neuron)
    for statistics in (one, other):
        edges, counts = statistics.histogram(layer, head, neuron, bins)
        share = counts / np.diff(edges) / max(float(statistics.count[at]), 1)
        name = statistics.provenance["data"]
        bars.append(pd.DataFrame({"left": edges[:-1], "right": edges[1:], "share": share, "data": name}))
        values.append({"mean": float(statistics.mean[at]), "peak": float(statistics.peak(bins)[at])})
    found, std = pd.concat(bars, ignore_index=True), float(one.std[at])
    most = float(found["share"].max()) if len(found) else 0.0
    moves = [
        {
            "kind": kind,
            "first": values[0][kind],
            "second": values[1][kind],
            "distance": (values[1][kind] - values[0][kind]) / std if std > 0 else math.nan,
            "height": most * (1.08 + 0.08 * place),
        }
        for place, kind in enumerate(MOVING)
    ]
    return found, pd.DataFrame(moves)


def moves_sentence(moves: pd.DataFrame, one: str, other: str) -> str:
    """How far mean and peak move.

    >>> row = {"kind": "mean", "first": 0.5, "second": 0.75, "distance": 0.5}
    >>> moves_sentence(pd.DataFrame([row]), "prose", "code")
    'From prose to code the mean moves by +0.25 (+0.50 std).'
    """
    parts = [
        f"the {row.kind} moves by {number(row.second - row.first, '+.3g')} ({number(row.distance, '+.2f')} std)"
        for row in moves.itertuples()
    ]
    return f"From {one} to {other} {', '.join(parts)}."


def position_frame(found: ByPosition, head: int, neuron: int) -> pd.DataFrame:
    """One row per position: its mean, median and the range from the 10% to the 90% quantile."""
    low, median, high = found.quantiles[:, :, head, neuron]
    mean = found.mean[:, head, neuron]
    return pd.DataFrame({"position": np.arange(len(mean)), "low": low, "median": median, "high": high, "mean": mean})


def patch_frame(positions: pd.DataFrame) -> pd.DataFrame:
    """The positions of an image's patches with their row and column; what stands before them (CLS, registers) is left out.

    Args:
        positions: as `position_frame` makes them.
    """
    side = math.isqrt(len(positions))
    patches = positions.iloc[len(positions) - side**2 :]
    numbers = np.arange(side**2)
    return patches.assign(row=numbers // side, column=numbers % side)


def all_neurons_frame(
    statistics: Statistics, shapes: AllNeurons, shape: ModelShape, bins: int, by: str
) -> pd.DataFrame:
    """One row per neuron of the model, the most unusual by one of `ODDITIES` first; those without a figure last."""
    exists = np.zeros(statistics.mean.shape, dtype=bool)
    for layer, count in enumerate(shape.heads):
        exists[layer, :count, : shape.size(layer)] = True
    layers, heads, neurons = np.nonzero(exists)
    at = (layers, heads, neurons)
    names = [f"{layer}.{head}:{neuron}" for layer, head, neuron in zip(*(a.tolist() for a in at), strict=True)]
    frame = pd.DataFrame({"neuron": names} | {title: getattr(shapes, field)[at] for field, title in ODDITIES.values()})
    frame["mean"], frame["peak"] = statistics.mean[at], statistics.peak(bins)[at]
    frame["std"] = statistics.std[at]
    first = [ODDITIES[by][1]]
    rest = [column for column in frame if column not in ("neuron", *first)]
    return frame[["neuron", *first, *rest]].sort_values(
        first[0], key=np.abs, ascending=False, ignore_index=True, na_position="last"
    )
