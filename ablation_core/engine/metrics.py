"""The metrics: one row each, and nothing about a metric is written anywhere else.

    METRICS["top1"].label           # "top-1"
    METRICS["loss"].worse           # 1: a loss that grows is worse

A new metric is a row here and a function of what `ScoredLogits` holds (the logits, the targets, and the clean
run's scores) or, in tasks, `answers.ScoredAnswers`. Documents, tables, charts, sentences and exported files take all else from the row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from ablation_core.data.dataset import Data
    from ablation_core.models.loaded import LoadedModel


Slope = Literal["loss", "logit difference"]


@dataclass(frozen=True, eq=False)
class ScoredLogits:
    """What a metric is a function of: a run's predictions.

    Attributes:
        logits: (predictions, classes), of any precision.
        targets: long, (predictions,); or (predictions, targets) where the data has several, the right one first.
        loss: cross-entropy, nats; this and the following float64 (predictions,).
        top1, top10: 1 where the target was among the most probable one or ten, else 0; a share where that is a tie.
        kl: divergence of the run's distribution from the clean one's, nats: KL(clean ‖ run); 0 of the clean run itself.
    """

    logits: Tensor
    targets: Tensor
    loss: np.ndarray
    top1: np.ndarray
    top10: np.ndarray
    kl: np.ndarray


@dataclass(frozen=True)
class Derived:
    """A figure computed from the mean of a metric, such as the perplexity from the loss."""

    name: str
    label: str
    format: str
    function: Callable[[float], float]


@dataclass(frozen=True)
class Metric:
    """A row of `METRICS`.

    Attributes:
        name: its key in documents, and its option on the pages.
        label: what people call it, as it stands within a sentence.
        unit: "nats", or "" for a share, which is shown in per cent.
        format, change_format: of a value and of a change, as `format` takes them.
        cell_format, axis_format: of a change in a map's cell, of a value on an axis.
        worse: the sign of a change for the worse.
        values: of each prediction, float64 (predictions,).
        divergence: whether it compares a run with the clean one. It is then its own change, is never negative, and
            whether it differs from 0 is not tested.
        estimate: (slope, curvature) → its change to second order, both in nats: the gradient's product with the
            displacement, and half of what the Fisher information gives; None where it cannot be estimated.
        slope_of: whose gradient that is: the loss's, or the logit difference's.
        curve: whether pruning curves are drawn of it.
        chance: of so many classes, its value by guessing blindly; None where that is not known.
        derived: figures that follow from its mean.
        applies: to which data.
        answers: whether it compares a right answer with a wrong one, as only tasks have them.
        fewest_classes: from how many classes of images on it says something.
    """

    name: str
    label: str
    unit: str
    format: str
    change_format: str
    cell_format: str
    axis_format: str
    worse: Literal[1, -1]
    values: Callable[[Any], np.ndarray]
    divergence: bool = False
    estimate: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    slope_of: Slope = "loss"
    curve: bool = False
    chance: Callable[[int], float] | None = None
    derived: tuple[Derived, ...] = ()
    applies: Callable[[Data], bool] = lambda data: True
    answers: bool = False
    fewest_classes: int = 0

    @property
    def tested(self) -> bool:
        """Whether its change is tested against 0."""
        return not self.divergence

    @property
    def heading(self) -> str:
        """With its unit, as the heading of a column or the title of an axis: `loss, nats`."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    @property
    def change_heading(self) -> str:
        """The same of a change: `change of loss, nats`; a divergence: `KL from the baseline, nats`."""
        unit = self.unit or "pp"  # percentage points
        return f"{self.label} from the baseline, {unit}" if self.divergence else f"change of {self.label}, {unit}"

    @property
    def change_title(self) -> str:
        """The same with the whole unit: `change of loss, nats per prediction`."""
        return self.change_heading + (" per prediction" if self.unit else "")

    @property
    def title(self) -> str:
        """The heading with what it is per: `loss, nats per prediction`, `top-1`."""
        return self.label + self.per_prediction(", ")

    def per_prediction(self, before: str) -> str:
        """The unit of a mean over predictions behind some words: `, nats per prediction`; nothing where there is no unit."""
        return f"{before}{self.unit} per prediction" if self.unit else ""

    @property
    def noun(self) -> str:
        """As the object of a sentence: `the loss`, `top-1`."""
        return f"the {self.label}" if self.unit else self.label

    def shown(self, value: float) -> str:
        """A value with its unit: `3.1416 nats`, `45.1%`."""
        return f"{value:{self.format}} {self.unit}".rstrip()

    def shown_change(self, change: float) -> str:
        """A change with its sign and unit: `+0.0664 nats`."""
        return f"{change:{self.change_format}} {self.unit}".rstrip()


def _perplexity(loss: float) -> float:
    return float(np.exp(loss))


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "loss", "loss", "nats", ".4f", "+.4f", "+.3f", ".2f",
            worse=1,
            values=lambda run: run.loss,
            estimate=lambda slope, curvature: slope + curvature,
            curve=True,
            chance=math.log,
            derived=(Derived("perplexity", "perplexity", ".2f", _perplexity),),
        ),
        Metric(
            "top1", "top-1", "", ".1%", "+.2%", "+.1%", ".0%",
            worse=-1,
            values=lambda run: run.top1,
            curve=True,
            chance=lambda classes: 1 / classes,
        ),
        Metric("top10", "top-10", "", ".1%", "+.2%", "+.1%", ".0%", worse=-1, values=lambda run: run.top10, fewest_classes=20),
        Metric(
            "kl", "KL", "nats", ".5f", ".5f", ".3f", ".2f",
            worse=1,
            values=lambda run: run.kl,
            divergence=True,
            estimate=lambda slope, curvature: curvature,
        ),
        Metric(
            "logit_difference", "logit difference", "nats", ".3f", "+.3f", "+.2f", ".1f",
            worse=-1,
            values=lambda run: run.wrong_loss - run.loss,
            estimate=lambda slope, curvature: slope,  # linear in the logits, so that these give it no curvature
            slope_of="logit difference",
            curve=True,
            answers=True,
        ),
        Metric(
            "probability", "probability", "", ".1%", "+.2%", "+.1%", ".0%",
            worse=-1,
            values=lambda run: np.exp(-run.loss),
            answers=True,
        ),
        Metric(
            "accuracy", "accuracy", "", ".1%", "+.2%", "+.1%", ".0%",
            worse=-1,
            values=lambda run: (np.sign(run.wrong_loss - run.loss) + 1) / 2,
            curve=True,
            answers=True,
        ),
    )
}  # fmt: skip


def metrics_of(data: Data) -> tuple[Metric, ...]:
    """The metrics that apply to this data."""
    return tuple(metric for metric in METRICS.values() if metric.applies(data) and (data.is_task or not metric.answers))


def telling_metrics(metrics: Iterable[Metric], model: LoadedModel) -> list[str]:
    """The names of those that say something about this model: not how often one of ten classes is among the first ten."""
    classes = model.classes if model.predicts_class else None
    return [metric.name for metric in metrics if classes is None or classes >= metric.fewest_classes]


def estimated_metrics(data: Data | None = None) -> tuple[Metric, ...]:
    """Those that can be estimated, by name: the order in which documents have them.

    Args:
        data: only those that apply to it.
    """
    known = METRICS if data is None else {metric.name for metric in metrics_of(data)}
    return tuple(METRICS[name] for name in sorted(known) if METRICS[name].estimate)


def main_metric(names: Iterable[str]) -> Metric:
    """The metric of these that is looked at first: of a task's the one that compares the answers, else the loss."""
    return next((metric for metric in metrics_in(set(names)) if metric.answers), METRICS["loss"])


def metrics_in(rows: Container[str]) -> tuple[Metric, ...]:
    """The metrics that something by metric names has: a kept run may be older than a metric."""
    return tuple(metric for name, metric in METRICS.items() if name in rows)


def figures(means: Mapping[str, float], divergences: bool = True) -> dict[str, float]:
    """Means by metric with what is derived from each behind it, as documents have them.

    >>> figures({"loss": 0.0, "top1": 0.5})
    {'loss': 0.0, 'perplexity': 1.0, 'top1': 0.5}

    Args:
        divergences: whether those are among them; of the clean run they say nothing.
    """
    found: dict[str, float] = {}
    for metric in metrics_in(means):
        if divergences or not metric.divergence:
            found[metric.name] = means[metric.name]
            found |= {one.name: one.function(means[metric.name]) for one in metric.derived}
    return found
