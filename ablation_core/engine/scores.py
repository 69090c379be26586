"""Scores of single predictions.

Everything is kept per prediction, so that a change is always the mean of differences on the same predictions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ablation_core.engine.metrics import METRICS, Metric, ScoredLogits

_BLOCK_VALUES = 1 << 19  # logits scored at once: 2 MiB, and as much again in each buffer


class Figure(Protocol):
    """A number per prediction with a name: a row of `METRICS`, or one of `answers.ANSWER_TOKENS`."""

    @property
    def name(self) -> str: ...
    @property
    def values(self) -> Callable[[Any], np.ndarray]: ...


@dataclass(frozen=True, eq=False)
class Scores:
    """One number per prediction for each metric: `scores["top1"]`, float64 (predictions,)."""

    values: Mapping[str, np.ndarray]

    def __getitem__(self, metric: str) -> np.ndarray:
        return self.values[metric]

    @property
    def loss(self) -> np.ndarray:
        """Nats."""
        return self.values["loss"]

    def change(self, metric: Metric, baseline: "Scores") -> np.ndarray:
        """What a metric has changed by against the baseline, prediction by prediction."""
        return self[metric.name] - (0 if metric.divergence else baseline[metric.name])

    @classmethod
    def joined(cls, parts: Sequence["Scores"], metrics: Sequence["Figure"]) -> "Scores":
        """The parts' predictions one after another; without any where there are no parts."""
        nothing = np.zeros(0)
        names = [metric.name for metric in metrics]
        return cls({name: np.concatenate([nothing, *(part[name] for part in parts)]) for name in names})


@dataclass(frozen=True, eq=False)
class CleanPredictions:
    """A baseline, as far as comparing a run with it needs.

    Attributes:
        probabilities: float32 (predictions, classes).
        level: Σ p·log p, nats; float64 (predictions,).
        scores: its own; its divergence from itself is 0.
    """

    probabilities: Tensor
    level: Tensor
    scores: Scores


def score(logits: Tensor, targets: Tensor, clean: CleanPredictions, metrics: Sequence[Figure] | None = None) -> Scores:
    """Score predictions: logits and targets as `ScoredLogits` has them.

    Args:
        metrics: by default all.
    """
    return _scores(_scored(logits, targets, clean.probabilities, clean.level)[0], metrics)


def score_clean(logits: Tensor, targets: Tensor, metrics: Sequence[Figure] | None = None) -> CleanPredictions:
    """Score a baseline's predictions, and keep what `score` compares with."""
    probabilities = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    run, level = _scored(logits, targets, probabilities, None)
    return CleanPredictions(probabilities, level, _scores(run, metrics))


def _scores(run: ScoredLogits, metrics: Sequence[Figure] | None) -> Scores:
    usual = [metric for metric in METRICS.values() if not metric.answers]
    return Scores({metric.name: metric.values(run) for metric in (usual if metrics is None else metrics)})


@torch.inference_mode()
def _scored(
    logits: Tensor, targets: Tensor, probabilities: Tensor, level: Tensor | None
) -> tuple[ScoredLogits, Tensor]:
    """What most metrics are made of, in one pass, and Σ p·log q: p the baseline's probabilities, q the run's. Without a level p is filled with q.

    With y the logits less the row's largest and S = Σ exp(y), log q is y − log S. Some rows at a time go through two
    buffers that stay in the processor's cache. y is 0 where q is largest, so that what is summed over classes is small,
    and what follows is float64: the error of a KL is below 1e-6 nats.
    """
    first_targets = targets if targets.ndim == 1 else targets[:, 0]
    right = logits.gather(1, first_targets.to(logits.device)[:, None]).float()
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
    columns = (column.numpy() for column in (loss, *tops, (level - mean).clamp(min=0)))
    return ScoredLogits(logits, targets, *columns), mean


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
    return torch.empty(min(rows, len(logits)) or 1, logits.shape[1], dtype=torch.float32, device=logits.device)
