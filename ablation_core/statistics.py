"""Streaming statistics of many variables at once: moments and a fine histogram of each. Knows no model.

A histogram's range is fixed by the first `CALIBRATION` rows: from their 0.5 % to their 99.5 % quantile, widened on both
sides by `MARGIN` of that distance. Outliers therefore do not stretch the bins; what falls outside is counted on each
side, and the exact least and greatest value are kept. Any coarser binning is a sum of fine bins, hence exact.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ablation_core.errors import StatisticsError

FINE_BINS = 600  # divisible by 100, 50, 200, 60, …: those coarser bins are equally wide
CALIBRATION = 1024
ROWS_AT_ONCE = 512  # what these need stays in a processor's cache
MARGIN = 0.35
BINNINGS = ("robust", "min-max")


class Accumulator:
    """Collects rows of `width` variables; memory does not grow with their number.

    Args:
        limits: the histogram's range (low, high), each (width,) float64, `high` itself included; by default it is set
            from the first rows.
    """

    def __init__(self, width: int, bins: int = FINE_BINS, limits: tuple[Tensor, Tensor] | None = None) -> None:
        self.bins = bins
        self.count = torch.zeros(width, dtype=torch.int64)
        self.not_finite = torch.zeros(width, dtype=torch.int64)
        self.mean = torch.zeros(width, dtype=torch.float64)
        self.squares = torch.zeros(width, dtype=torch.float64)  # sum of squared distances from the mean
        self.minimum = torch.full((width,), torch.inf)
        self.maximum = torch.full((width,), -torch.inf)
        self.counts = torch.zeros(width, bins + 2, dtype=torch.int64)  # first and last: outside
        self.limits = limits
        self._waiting: list[Tensor] = []

    def update(self, rows: Tensor) -> None:
        """Add rows, (rows, width), of any float type; they are taken as float32."""
        rows = rows.float().cpu()
        for part in rows.split(ROWS_AT_ONCE):
            self._add_moments(part)
        if self.limits is not None:
            self._add_histogram(rows)
        elif len(rows):
            self._waiting.append(rows.clone())
            if sum(map(len, self._waiting)) >= CALIBRATION:
                self.calibrate()

    def calibrate(self) -> None:
        """Fix the histogram's range with the rows seen so far, if it is not fixed yet."""
        if self.limits is None and self._waiting:
            waiting = torch.cat(self._waiting)
            self.limits = _robust_limits(waiting[:CALIBRATION])
            self._waiting = []
            self._add_histogram(waiting)

    def _add_moments(self, rows: Tensor) -> None:
        """Merge the rows' moments into the totals (Chan, Golub, LeVeque 1979)."""
        if len(rows) == 0:
            return
        low, high, finite = rows.amin(0), rows.amax(0), None
        values, count = rows.double(), torch.full_like(self.count, len(rows))  # no square overflows in float64
        if not _all_finite(low, high):
            finite = torch.isfinite(rows)
            count = finite.sum(0)
            low = rows.where(finite, torch.inf).amin(0)
            high = rows.where(finite, -torch.inf).amax(0)
            values = values.where(finite, 0.0)
        self.not_finite += len(rows) - count
        self.minimum = torch.minimum(self.minimum, low)
        self.maximum = torch.maximum(self.maximum, high)
        mean = values.sum(0) / count.clamp(min=1)
        squares = values.sub_(mean).square_()
        if finite is not None:
            squares = squares.where(finite, 0.0)
        merged = (self.count + count).clamp(min=1)
        shift = mean - self.mean
        self.squares += squares.sum(0) + shift.square() * self.count * count / merged
        self.mean += shift * count / merged
        self.count += count

    def _add_histogram(self, rows: Tensor) -> None:
        ones = torch.ones(len(self.count), min(len(rows), ROWS_AT_ONCE), dtype=torch.int64)
        index = torch.empty_like(ones)
        for part in rows.split(ROWS_AT_ONCE):
            places, weights = index[:, : len(part)], ones[:, : len(part)]
            # Each neuron's places lie side by side: adding them up then stays within one histogram at a time.
            places.copy_(_fine_bins(part, *self.limits, self.bins).add_(1).T)
            if not _all_finite(part.amin(0), part.amax(0)):
                weights = torch.isfinite(part).T.long()
            self.counts.scatter_add_(1, places, weights)


def _all_finite(low: Tensor, high: Tensor) -> bool:
    """Whether rows with these extremes, (width,), hold neither NaN nor infinity: both would show in them."""
    return bool((low.isfinite() & high.isfinite()).all())


def _fine_bins(rows: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """The bin of every value by the edges `low + (high - low) * k / bins`, float64 (rows, width): -1 below the range,
    `bins` above it, 0 for NaN.

    Rounding can put a value that lies on an edge, or next to it, into the bin beside its own. Only neurons with such a
    value are compared with the edges themselves; for all others the quotient has decided.
    """
    span = high - low
    scale = bins / span
    # four roundings of the quotient, and those of the edges: units in the last place of the larger end
    doubt = 8 * torch.finfo(torch.float64).eps * (bins + 1 + torch.maximum(low.abs(), high.abs()) * scale.abs())
    position = (rows - low).mul_(scale)
    place = position.floor()
    from_middle = position.sub_(place).sub_(0.5).abs_().amax(0)
    near = (~(from_middle < 0.5 - doubt)).nonzero()[:, 0]  # NaN counts as near
    if len(near):
        place[:, near] = _compared(rows[:, near], place[:, near], low[near], high[near], bins)
    return place.clamp_(-1, bins)


def _compared(rows: Tensor, place: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """The places, which are at most one bin wrong, put right against the edges; `high` itself is in the last bin."""
    rows, span = rows.double(), high - low
    below = rows < low + span * place / bins
    above = rows >= low + span * (place + 1) / bins
    place = place - below.double() + above.double()
    return place.masked_fill(rows == high, bins - 1).nan_to_num(0)


def _robust_limits(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The histogram's range (low, high), each (width,) float64, from the first rows."""
    low, high = _quantiles(rows, (0.005, 0.995))
    span = high - low
    # A neuron that has not moved yet still needs a range of its own size.
    span = span.where(span > 0, low.abs().clamp(min=1e-6) * 0.1)
    return low - MARGIN * span, high + MARGIN * span


def _quantiles(rows: Tensor, shares: tuple[float, ...]) -> list[Tensor]:
    """Each neuron's quantiles over its finite values, interpolated; float64 (width,), 0 where it has none."""
    finite = torch.isfinite(rows)
    columns = rows.where(finite, torch.nan).T.contiguous()
    # numpy sorts float32 some fifty times as fast as torch.nanquantile sorts float64; NaN comes last
    ordered = torch.from_numpy(np.sort(columns.numpy(), axis=1)).double()
    last = finite.sum(0).sub(1).clamp(min=0).double()
    quantiles = []
    for share in shares:
        rank = last * share
        below, above = (ordered.gather(1, place.long()[:, None])[:, 0] for place in (rank.floor(), rank.ceil()))
        quantiles.append(below.lerp(above, rank - rank.floor()).nan_to_num(0))
    return quantiles


@dataclass(frozen=True, eq=False)
class Statistics:
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

    @classmethod
    def of(cls, layers: list[Accumulator], heads: tuple[int, ...], provenance: dict) -> "Statistics":
        """Statistics from one accumulator a layer."""
        for layer in layers:
            layer.calibrate()

        def gather(values: list[Tensor], missing: float) -> np.ndarray:
            head_dim = len(values[0]) // heads[0]
            shape = (len(heads), max(heads), head_dim, *values[0].shape[1:])
            array = np.full(shape, missing, dtype=values[0].numpy().dtype)
            for layer, value in enumerate(values):
                array[layer, : heads[layer]] = value.numpy().reshape(heads[layer], *shape[2:])
            return array

        def gather_float(values: list[Tensor], missing: float) -> np.ndarray:
            return gather([value.float() for value in values], missing)

        nothing = [torch.zeros(len(layer.count), dtype=torch.float64) for layer in layers]
        return cls(
            count=gather_float([layer.count for layer in layers], 0),
            mean=gather_float([layer.mean.where(layer.count > 0, torch.nan) for layer in layers], np.nan),
            std=gather_float([(layer.squares / layer.count).sqrt() for layer in layers], np.nan),
            minimum=gather_float([layer.minimum.where(layer.count > 0, torch.nan) for layer in layers], np.nan),
            maximum=gather_float([layer.maximum.where(layer.count > 0, torch.nan) for layer in layers], np.nan),
            not_finite=gather_float([layer.not_finite for layer in layers], 0),
            low=gather([layer.limits[0] if layer.limits else nothing[i] for i, layer in enumerate(layers)], np.nan),
            high=gather([layer.limits[1] if layer.limits else nothing[i] for i, layer in enumerate(layers)], np.nan),
            counts=gather([layer.counts for layer in layers], 0),
            provenance=provenance,
        )

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
            digest.update(np.ascontiguousarray(array))
        digest.update(np.ascontiguousarray(self.counts))
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
        place = (total < wanted[..., None]).sum(axis=-1)
        place = np.minimum(place, self.bins + 1)[..., None]
        here = np.take_along_axis(self.counts, place, -1)[..., 0]
        before = np.take_along_axis(total, place, -1)[..., 0] - here
        left, right = (np.take_along_axis(edges, place + step, -1)[..., 0] for step in (0, 1))
        value = left + (right - left) * (wanted - before) / np.maximum(here, 1)
        value = np.clip(value, self.minimum, self.maximum)
        return np.where(self.count > 0, value, np.nan).astype(np.float32)

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
