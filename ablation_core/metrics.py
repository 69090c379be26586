"""Scores of single predictions, and intervals for their means.

Everything is kept per prediction, so that a change is always the mean of differences on the same predictions.
"""

from dataclasses import dataclass, fields

import numpy as np
from scipy.stats import norm, t
from torch import Tensor

CONFIDENCE = 0.95
RESAMPLES = 2000
FEWEST_SEQUENCES = 5
_DRAWS_AT_ONCE = 250
METRICS = ("loss", "top1", "top10", "kl")


@dataclass(frozen=True, eq=False)
class Scores:
    """One number a prediction, float64 (predictions,).

    Attributes:
        loss: cross-entropy, nats.
        top1, top10: 1 where the target was among the most probable one or ten, else 0; a share where that is a tie.
        kl: divergence of the scored run's distribution from the baseline's, nats: KL(baseline ‖ run).
    """

    loss: np.ndarray
    top1: np.ndarray
    top10: np.ndarray
    kl: np.ndarray

    @classmethod
    def joined(cls, parts: list["Scores"]) -> "Scores":
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def score(log_probs: Tensor, targets: Tensor, clean: Tensor) -> Scores:
    """Score predictions.

    Args:
        log_probs, clean: of the run and of the baseline; float32 (predictions, classes).
        targets: long (predictions,).
    """
    right = log_probs.gather(1, targets[:, None])
    above, ties = (log_probs > right).sum(1), (log_probs == right).sum(1)
    # Ties, common in half precision, count as if broken at random; NaN is equal to nothing and never right.
    top1, top10 = (((k - above) / ties.clamp(min=1)).clamp(0, 1) * (ties > 0) for k in (1, 10))
    share = clean.exp()
    kl = (share * (clean - log_probs)).where(share != 0, 0.0).sum(1)  # 0 · log 0 is 0
    return Scores(*(column.cpu().double().numpy() for column in (-right[:, 0], top1, top10, kl.clamp(min=0))))


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; `low` and `high` are None where there are too few sequences for one."""

    mean: float
    low: float | None
    high: float | None

    @property
    def shows_effect(self) -> bool:
        """Whether zero lies outside; a mean that is not a number shows nothing."""
        return self.low is not None and (self.low > 0 or self.high < 0)


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
    size, spread = len(counts), 1e-12 * abs(mean)
    if not np.isfinite(mean) or np.ptp(draws) <= spread:
        return float(mean), float(mean)
    left_out = (sums.sum() - sums) / (counts.sum() - counts)
    skew = left_out.mean() - left_out
    skew /= abs(skew).max() or 1.0  # so that no power underflows
    acceleration = (skew**3).sum() / (6 * max((skew**2).sum(), 1e-300) ** 1.5)
    below = (np.sum(draws < mean) + 0.5 * np.sum(draws == mean)) / len(draws)
    bias = norm.ppf(np.clip(below, 1 / len(draws), 1 - 1 / len(draws)))
    wide = t.ppf((1 + CONFIDENCE) / 2, size - 1) * np.sqrt(size / (size - 1))
    z = bias + np.array([-wide, wide])
    levels = norm.cdf(bias + z / np.maximum(1 - acceleration * z, 1e-3))
    low, high = np.quantile(draws, levels)
    return float(low), float(high)
