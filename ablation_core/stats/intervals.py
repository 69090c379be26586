"""Intervals and p-values of mean changes: the one place that has them."""

from dataclasses import dataclass

import numpy as np

from ablation_core.stats.distributions import norm, t

CONFIDENCE = 0.95
RESAMPLES = 2000
FEWEST_SEQUENCES = 5
_DRAWS_AT_ONCE = 250


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; `low` and `high` are None where there are too few sequences for one."""

    mean: float
    low: float | None
    high: float | None

    @property
    def shows_effect(self) -> bool:
        """Whether zero lies outside; a mean that is not a number shows nothing."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def mean_intervals(values: np.ndarray, sequences: np.ndarray, seed: int) -> list[Interval]:
    """The mean of each row with a 95 % interval, resampling whole sequences.

    Predictions of one text window are not independent, windows nearly are: the BCa bootstrap (Efron 1987) therefore
    draws sequences, with the same draws for every row. For few sequences its levels are widened as a t interval is
    against a normal one (Hesterberg 2015, section 3.2); below `FEWEST_SEQUENCES` no interval is given. Written here
    because scipy's takes memory with the square of the number of sequences.

    Args:
        values: (rows, predictions).
        sequences: the number of each prediction's sequence; (predictions,).
    """
    sums, counts = sequence_sums(values, sequences)
    means = sums.sum(1) / counts.sum()
    if len(counts) < FEWEST_SEQUENCES:
        return [Interval(float(mean), None, None) for mean in means]
    draws = _resampled_means(sums, counts, seed)
    return [
        Interval(float(mean), *_bca_bounds(mean, row, one, counts))
        for mean, row, one in zip(means, draws, sums, strict=True)
    ]


def sequence_sums(values: np.ndarray, sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each sequence's sums (rows, sequences) and number of predictions (sequences,), sequences without any left out."""
    counts = np.bincount(sequences)
    sums = np.stack([np.bincount(sequences, weights=row) for row in values])
    return sums[:, counts > 0], counts[counts > 0]


def _resampled_means(sums: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Means over `RESAMPLES` draws of as many sequences as there are; (rows, draws)."""
    generator, size = np.random.default_rng(seed), len(counts)
    columns, means = np.vstack([sums, counts]).T, []
    for first in range(0, RESAMPLES, _DRAWS_AT_ONCE):
        drawn = generator.integers(0, size, (min(_DRAWS_AT_ONCE, RESAMPLES - first), size))
        drawn += np.arange(len(drawn))[:, None] * size
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        totals = times.astype(float) @ columns
        means.append(totals[:, :-1] / totals[:, -1:])
    return np.concatenate(means).T


def _bca_bounds(mean: float, draws: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """The bias-corrected and accelerated bounds of a ratio of sums."""
    size, rounding = len(counts), 1e-12 * abs(sums).sum() / counts.sum()
    if not np.isfinite(mean) or np.ptp(draws) <= rounding:
        return float(mean), float(mean)
    excluded_positions = (sums.sum() - sums) / (counts.sum() - counts)
    skew = excluded_positions.mean() - excluded_positions
    skew /= abs(skew).max()  # so that no power underflows; not 0, or all draws would be alike
    acceleration = (skew**3).sum() / (6 * (skew**2).sum() ** 1.5)
    # Draws of the same value as the mean may have been added up in another order.
    below = np.where(abs(draws - mean) <= rounding, 0.5, draws < mean).mean()
    bias = norm.ppf(np.clip(below, 1 / len(draws), 1 - 1 / len(draws)))
    wide = t.ppf((1 + CONFIDENCE) / 2, size - 1) * np.sqrt(size / (size - 1))
    z = bias + np.array([-wide, wide])
    # The divisor stays above 0.1: at most (size - 2) / (6 √(size (size - 1))) times |z|, bounded by the clipped bias.
    levels = norm.cdf(bias + z / (1 - acceleration * z))
    low, high = np.quantile(draws, levels)
    return float(low), float(high)


def p_value(differences: np.ndarray, sequences: np.ndarray) -> float | None:
    """Whether the mean change is 0: a t-test of the ratio of sums, linearised, so that a last window scored in part
    counts as its part (Cochran 1977, section 6.3). None where there are fewer than two sequences or no numbers.
    """
    (sums,), counts = sequence_sums(differences[None], sequences)
    mean, size = sums.sum() / counts.sum(), len(counts)
    if size < 2 or not np.isfinite(mean):
        return None
    error = np.sqrt(((sums - mean * counts) ** 2).sum() * size / (size - 1)) / counts.sum()
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * t.sf(abs(mean) / error, size - 1))
