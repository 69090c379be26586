"""Statistics of many variables at once: moments and a fine histogram of each. Knows no model, and needs no torch, so that
a page can show them before the model is there. `accumulate` fills them.

Any coarser binning is a sum of fine bins, hence exact.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ablation_core.errors import StatisticsError
from ablation_core.presentation import Presented


@dataclass(frozen=True, eq=False)
class Statistics(Presented):
    """Statistics of every neuron. Arrays are (layers, heads, head_dim); where a layer has fewer heads than the widest,
    the missing ones are NaN (counts: 0).

    Attributes:
        count, mean, std, minimum, maximum: float32; `std` is that of the population (divided by the count).
        not_finite: how many values were NaN or infinite; these are in nothing else.
        low, high: float64, the histogram's range.
        counts: int64 (layers, heads, head_dim, bins + 2), the first and the last for what fell outside.
        provenance: what the statistics were made from, as the cache file keeps it.
    """

    count: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    not_finite: np.ndarray
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    provenance: dict

    @property
    def bins(self) -> int:
        """The number of fine bins."""
        return self.counts.shape[-1] - 2

    @cached_property
    def digest(self) -> str:
        """A digest of every number and of the provenance."""
        digest = hashlib.sha256(json.dumps(self.provenance, sort_keys=True).encode())
        for array in (
            self.count,
            self.mean,
            self.std,
            self.minimum,
            self.maximum,
            self.not_finite,
            self.low,
            self.high,
        ):
            digest.update(array.ravel().data)
        digest.update(self.counts.ravel().data)
        return digest.hexdigest()[:16]

    def peak(self, bins: int = 100) -> np.ndarray:
        """The centre of each neuron's fullest bin, its mode; float32 (layers, heads, head_dim).

        The lowest of equally full bins counts. A constant neuron's peak is its value; NaN where nothing was counted
        within the histogram's range.
        """
        if bins not in self._peaks:  # every view of a page asks for it again
            self._peaks[bins] = self._find_peak(bins)
        return self._peaks[bins]

    @cached_property
    def _peaks(self) -> dict[int, np.ndarray]:
        return {}

    def _find_peak(self, bins: int) -> np.ndarray:
        steps = _steps(bins, self.bins)
        summed = np.add.reduceat(self.counts[..., 1:-1], steps[:-1], axis=-1)
        fullest = (summed / np.diff(steps)).argmax(axis=-1)  # a density: bins may differ by one fine bin in width
        centre = (steps[fullest] + steps[fullest + 1]) / 2
        value = self.low + (self.high - self.low) * centre / self.bins
        value = np.where(summed.sum(axis=-1) > 0, value, np.nan)
        return np.where(self.minimum == self.maximum, self.minimum, value).astype(np.float32)

    def median(self) -> np.ndarray:
        """The median of each neuron; float32 (layers, heads, head_dim)."""
        return self._median

    @cached_property
    def _median(self) -> np.ndarray:
        return self.quantile(0.5)

    def quantile(self, share: float) -> np.ndarray:
        """Each neuron's quantile, interpolated within a fine bin; float32 (layers, heads, head_dim)."""
        inner = np.linspace(0, 1, self.bins + 1)
        edges = np.concatenate(
            [
                np.minimum(self.minimum, self.low)[..., None],
                self.low[..., None] + (self.high - self.low)[..., None] * inner,
                np.maximum(self.maximum, self.high)[..., None],
            ],
            axis=-1,
        )
        total = np.cumsum(self.counts, axis=-1)
        wanted = share * total[..., -1]
        place = (total < wanted[..., None]).sum(axis=-1)[..., None]
        here = np.take_along_axis(self.counts, place, -1)[..., 0]
        before = np.take_along_axis(total, place, -1)[..., 0] - here
        left, right = (np.take_along_axis(edges, place + step, -1)[..., 0] for step in (0, 1))
        value = left + (right - left) * (wanted - before) / np.maximum(here, 1)
        # Where nothing was counted the extremes are NaN, and so is the quantile.
        return np.clip(value, self.minimum, self.maximum).astype(np.float32)

    def histogram(self, layer: int, head: int, neuron: int, bins: int = 100) -> tuple[np.ndarray, np.ndarray]:
        """One neuron's histogram: edges, float64 (bins + 1,), and counts, int64 (bins,). Without what fell outside.

        Where `bins` does not divide the number of fine bins, bins differ in width by one fine bin.
        """
        steps = _steps(bins, self.bins)
        low, high = self.low[layer, head, neuron], self.high[layer, head, neuron]
        counts = np.add.reduceat(self.counts[layer, head, neuron, 1:-1], steps[:-1])
        return low + (high - low) * steps / self.bins, counts

    def outside(self) -> np.ndarray:
        """The share of each neuron's values beyond the histogram's range; float32 (layers, heads, head_dim)."""
        beyond = self.counts[..., 0] + self.counts[..., -1]
        return (beyond / np.maximum(self.count, 1)).astype(np.float32)


def _steps(bins: int, fine: int) -> np.ndarray:
    """The fine edges at which `bins` coarser bins begin and end; int (bins + 1,)."""
    if not 1 <= bins <= fine:
        raise StatisticsError(f"A histogram has between 1 and {fine} bins here, not {bins}.")
    return np.round(np.linspace(0, fine, bins + 1)).astype(int)


def not_finite_first(statistics: Statistics) -> int | None:
    """The first layer in which a counted value was NaN or infinite; None where there is none."""
    layers = np.flatnonzero(statistics.not_finite.sum(axis=(1, 2)))
    return int(layers[0]) if len(layers) else None


def not_finite_sentence(statistics: Statistics) -> str:
    """What was NaN or infinite while statistics were computed, and where it began; or nothing."""
    layer = not_finite_first(statistics)
    if layer is None:
        return ""
    broken = statistics.not_finite
    return (
        f"{int(broken.sum()):,} values of {int((broken > 0).sum()):,} neurons were NaN or infinite, the first in layer "
        f"{layer}; they are excluded from means, medians and peaks. Try --dtype float32, or another model."
    )
