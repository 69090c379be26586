"""Scores of single predictions, and intervals for their means.

Everything is kept per prediction, so that a change is always the mean of differences on the same predictions.
"""

import warnings
from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy.stats import DegenerateDataWarning, bootstrap
from torch import Tensor

CONFIDENCE = 0.95
RESAMPLES = 2000
METRICS = ("loss", "top1", "top10", "kl")


@dataclass(frozen=True, eq=False)
class Scores:
    """One number a prediction, float64 (predictions,).

    Attributes:
        loss: cross-entropy, nats.
        top1, top10: 1 where the target was among the most probable one or ten, else 0.
        kl: divergence of the scored run's distribution from the baseline's, nats: KL(baseline ‖ run).
    """

    loss: np.ndarray
    top1: np.ndarray
    top10: np.ndarray
    kl: np.ndarray

    @classmethod
    def joined(cls, parts: list["Scores"]) -> "Scores":
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def score(logits: Tensor, targets: Tensor, baseline: Tensor) -> Scores:
    """Score predictions.

    Args:
        logits, baseline: (predictions, classes), any float type.
        targets: long (predictions,).
    """
    log_probs = logits.float().log_softmax(-1)
    clean = baseline.float().log_softmax(-1)
    right = log_probs.gather(1, targets[:, None])
    # The target's rank; ties go against the model, so that a run of equal logits is not called right. NaN is not either.
    rank = (log_probs >= right).sum(1).double().where(right[:, 0].isfinite(), torch.inf)
    share = clean.exp()
    kl = (share * (clean - log_probs)).where(share != 0, 0.0).sum(1)  # 0 · log 0 is 0
    columns = (-right[:, 0], rank <= 1, rank <= 10, kl.clamp(min=0))
    return Scores(*(column.double().cpu().numpy() for column in columns))


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; `low` and `high` are None where one sequence alone gives none."""

    mean: float
    low: float | None
    high: float | None

    @property
    def shows_effect(self) -> bool:
        """Whether zero lies outside; a mean that is not a number shows nothing."""
        return self.low is not None and (self.low > 0 or self.high < 0)


def mean_intervals(values: np.ndarray, sequences: np.ndarray, seed: int) -> list[Interval]:
    """The mean of each row with a 95 % interval, resampling whole sequences.

    Predictions of one text window are not independent, windows nearly are: the BCa bootstrap (Efron 1987, as scipy
    has it) therefore draws sequences, with the same draws for every row.

    Args:
        values: (rows, predictions).
        sequences: the number of each prediction's sequence, ascending from 0; (predictions,).
    """
    counts = np.bincount(sequences)
    counts, present = counts[counts > 0], np.unique(sequences, return_inverse=True)[1]
    sums = np.stack([np.bincount(present, weights=row) for row in values])
    means = sums.sum(1) / counts.sum()
    varying = [i for i, row in enumerate(sums / counts) if np.ptp(row) > 0]
    bounds: dict[int, tuple[float | None, float | None]] = {i: (mean, mean) for i, mean in enumerate(means)}
    if len(counts) < 2:
        bounds = dict.fromkeys(bounds, (None, None))
    elif varying:
        bounds.update(zip(varying, _bootstrap_bounds(sums[varying], counts, seed), strict=True))
    return [Interval(float(mean), *map(_as_float, bounds[i])) for i, mean in enumerate(means)]


def _bootstrap_bounds(sums: np.ndarray, counts: np.ndarray, seed: int) -> list[tuple[float, float]]:
    columns = np.vstack([sums, counts]).T

    def resampled_means(draw: np.ndarray, axis: int) -> np.ndarray:
        """Means of drawn sequences: indices (…, drawn) → (rows, …). How often each is drawn, times its sum."""
        flat = draw.reshape(-1, draw.shape[-1]).astype(int)
        flat += np.arange(len(flat))[:, None] * len(counts)
        times = np.bincount(flat.ravel(), minlength=len(flat) * len(counts)).reshape(len(flat), len(counts))
        totals = times @ columns
        means = totals[:, :-1] / totals[:, -1:]
        return means.T.reshape(len(sums), *draw.shape[:-1])

    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        result = bootstrap(
            (np.arange(len(counts)),),
            resampled_means,
            vectorized=True,
            axis=-1,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    low, high = np.atleast_1d(result.confidence_interval.low), np.atleast_1d(result.confidence_interval.high)
    # Where few sequences vary BCa can be undefined: the percentiles of the same draws then serve.
    spread = np.atleast_2d(result.bootstrap_distribution)
    fallback = np.quantile(spread, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=-1)
    low, high = np.where(np.isfinite(low), low, fallback[0]), np.where(np.isfinite(high), high, fallback[1])
    return list(zip(low, high, strict=True))


def _as_float(value: float | None) -> float | None:
    return None if value is None else float(value)
