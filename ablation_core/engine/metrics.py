"""Scores of single predictions, and intervals for their means.

Everything is kept per prediction, so that a change is always the mean of differences on the same predictions.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy.stats import norm, t
from torch import Tensor

CONFIDENCE = 0.95
RESAMPLES = 2000
FEWEST_SEQUENCES = 5
_DRAWS_AT_ONCE = 250
_BLOCK_VALUES = 1 << 19  # logits scored at once: 2 MiB, and as much again in each buffer
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
        """The parts' predictions one after another; without any where there are no parts."""
        nothing = np.zeros(0)
        return cls(
            *(np.concatenate([nothing, *(getattr(part, field.name) for part in parts)]) for field in fields(cls))
        )


@dataclass(frozen=True, eq=False)
class Clean:
    """A baseline, as far as comparing a run with it needs.

    Attributes:
        probabilities: float32 (predictions, classes).
        level: Σ p·log p, nats; float64 (predictions,).
        scores: its own; its divergence from itself is 0.
    """

    probabilities: Tensor
    level: Tensor
    scores: Scores


def score(logits: Tensor, targets: Tensor, clean: Clean) -> Scores:
    """Score predictions: logits (predictions, classes) of any precision, targets long (predictions,)."""
    return _scored(logits, targets, clean.probabilities, clean.level)[0]


def score_clean(logits: Tensor, targets: Tensor) -> Clean:
    """Score a baseline's predictions, and keep what `score` compares with."""
    probabilities = torch.empty(logits.shape, device=logits.device)
    scores, level = _scored(logits, targets, probabilities, None)
    return Clean(probabilities, level, scores)


@torch.inference_mode()
def _scored(logits: Tensor, targets: Tensor, probabilities: Tensor, level: Tensor | None) -> tuple[Scores, Tensor]:
    """The scores, and Σ p·log q: p the baseline's probabilities, q the run's. Without a level p is filled with q.

    With y the logits less the row's largest and S = Σ exp(y), log q is y − log S. Some rows at a time go through two
    buffers that stay in the processor's cache. y is 0 where q is largest, so that what is summed over classes is small,
    and what follows is float64: the error of a KL is below 1e-6 nats.
    """
    right = logits.gather(1, targets.to(logits.device)[:, None]).float()
    most, total, mean, as_probable = (torch.empty_like(right) for _ in range(4))
    one, other = (_buffer(logits) for _ in range(2))
    for first in range(0, len(logits), len(one)):
        rows = slice(first, first + len(one))
        block, p = logits[rows].float(), probabilities[rows]
        y, buffer = one[: len(block)], other[: len(block)]
        most[rows] = block.amax(1, keepdim=True)
        torch.sub(block, most[rows], out=y)
        as_probable[rows] = torch.ge(block, right[rows], out=buffer).sum(1, keepdim=True)
        total[rows] = torch.exp(y, out=buffer).sum(1, keepdim=True)
        if level is None:
            torch.div(buffer, total[rows], out=p)
        mean[rows] = torch.mul(p, y, out=buffer).sum(1, keepdim=True)
        if mean[rows].isnan().any():  # 0 · log 0 is 0
            mean[rows] = buffer.where(p != 0, 0.0).sum(1, keepdim=True)
    tops = [top.where(~total.isnan(), 0.0) for top in _tops(logits, right, most, as_probable)]
    right, most, total, mean, *tops = (column[:, 0].cpu().double() for column in (right, most, total, mean, *tops))
    loss, mean = total.log() - (right - most), mean - total.log()
    level = mean if level is None else level
    return Scores(*(column.numpy() for column in (loss, *tops, (level - mean).clamp(min=0)))), mean


def _tops(logits: Tensor, right: Tensor, most: Tensor, as_probable: Tensor) -> list[Tensor]:
    """Shares of the first place and of the first ten, each (predictions, 1), from how many classes are as probable.

    Ties, common in half precision, count as if broken at random. They are told from what lies above only in the rows
    where that matters: not where the target is a most probable class, nor where all that are as probable are ten or less.
    """
    first = right == most
    above, ties = (as_probable - 1).where(~first, 0.0), as_probable.where(first, 1.0)
    buffer = _buffer(logits)
    for rows in (~first & (as_probable > 10)).nonzero()[:, 0].split(len(buffer)):
        above[rows] = torch.gt(logits[rows].float(), right[rows], out=buffer[: len(rows)]).sum(1, keepdim=True)
        ties[rows] = as_probable[rows] - above[rows]
    return [((k - above) / ties).clamp(0, 1) for k in (1, 10)]


def _buffer(logits: Tensor) -> Tensor:
    """Room for as many rows as are scored at once: on a processor, what its cache holds."""
    rows = max(1, _BLOCK_VALUES // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    return torch.empty(min(rows, len(logits)) or 1, logits.shape[1], device=logits.device)


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
    left_out = (sums.sum() - sums) / (counts.sum() - counts)
    skew = left_out.mean() - left_out
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
