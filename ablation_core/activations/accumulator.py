"""Filling statistics of many variables at once, batch by batch: moments and a fine histogram of each. Knows no model.

A histogram's range is fixed by the first `CALIBRATION` rows: from their 0.5% to their 99.5% quantile, widened on both
sides by `MARGIN` of that distance. Outliers therefore do not stretch the bins; what falls outside is counted on each
side, and the exact least and greatest value are kept.
"""

import copy

import numpy as np
import torch
from torch import Tensor

from ablation_core.activations.made_from import FINE_BINS

CALIBRATION = 1024
ROWS_AT_ONCE = 512  # what these need stays in a processor's cache
MARGIN = 0.35


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
            self._add_histogram(rows, *self.limits)
        elif len(rows):
            self._waiting.append(rows.clone())
            if sum(map(len, self._waiting)) >= CALIBRATION:
                self.validate_estimate()

    def validate_estimate(self) -> None:
        """Fix the histogram's range with the rows seen so far, if it is not fixed yet."""
        if self.limits is None and self._waiting:
            waiting = torch.cat(self._waiting)
            self.limits = _robust_limits(waiting[:CALIBRATION])
            self._waiting = []
            self._add_histogram(waiting, *self.limits)

    def settled(self) -> "Accumulator":
        """Itself where its range is fixed; else a copy whose range the rows seen so far fix: a look changes nothing."""
        if self.limits is not None:
            return self
        twin = copy.deepcopy(self)
        twin.validate_estimate()
        return twin

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

    def _add_histogram(self, rows: Tensor, low: Tensor, high: Tensor) -> None:
        ones = torch.ones(len(self.count), min(len(rows), ROWS_AT_ONCE), dtype=torch.int64)
        index = torch.empty_like(ones)
        for part in rows.split(ROWS_AT_ONCE):
            places, weights = index[:, : len(part)], ones[:, : len(part)]
            # Each neuron's places lie side by side: adding them up then stays within one histogram at a time.
            places.copy_(_fine_bins(part, low, high, self.bins).add_(1).T)
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
