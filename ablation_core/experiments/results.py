"""What an ablation experiment found, and its JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ablation_core.storage import as_number

if TYPE_CHECKING:
    from ablation_core.experiments.displacement import Displacement
    from ablation_core.methods.optimal import Learning
    from ablation_core.stats.intervals import Interval


@dataclass(frozen=True)
class Performance:
    """Means over the predictions; loss in nats a prediction, top-1 and top-10 as shares, KL in nats."""

    loss: float
    top1: float
    top10: float
    kl: float

    @property
    def perplexity(self) -> float:
        return float(np.exp(self.loss))


@dataclass(frozen=True)
class MethodResult:
    """A method's performance and its change: ablated minus baseline on the same predictions, with 95 % intervals.

    Attributes:
        displacement: how far the method moved what it replaced.
        excess: its loss minus that of the best constants, paired: the part of its harm that is not lost information.
            None where `optimal` was not among the methods.
        learning: how the constants were learned, where they were.
    """

    method: str
    performance: Performance
    change: dict[str, Interval]
    displacement: Displacement
    excess: Interval | None = None
    learning: Learning | None = None


@dataclass(frozen=True)
class AblationResult:
    """What an experiment measured, with what is needed to measure it again.

    Attributes:
        seed: of what resampling takes values from, and of intervals.
        provenance: when, where and by which versions it was made, and what was done to the data (`provenance.py`).
        least_to_most: the loss of the most harmful method minus that of the least harmful one, paired; None for a
            single method.
    """

    model: dict
    data: dict
    statistics: dict | None
    select: str
    neurons: int
    bins: int
    positions_spared: int
    baseline: Performance
    results: tuple[MethodResult, ...]
    least_to_most: Interval | None
    seed: int = 0
    provenance: dict = field(default_factory=dict)

    def to_dict(self) -> dict:
        """The JSON document of `python -m ablation_core ablate --json`; null stands for what is not a finite number."""
        names = ("model", "data", "statistics", "select", "neurons", "bins", "positions_spared")
        document = {name: getattr(self, name) for name in names}
        document |= {"seed": self.seed, "provenance": self.provenance}
        document["baseline"] = _performance(self.baseline, ("loss", "perplexity", "top1", "top10"))
        document["results"] = [self._row(result) for result in self.results]
        document["least_to_most"] = _numbers(self.least_to_most)
        return document

    def _row(self, result: MethodResult) -> dict:
        row: dict[str, Any] = {"method": result.method}
        row |= _performance(result.performance, ("loss", "perplexity", "top1", "top10", "kl"))
        row["change"] = {metric: _numbers(interval) for metric, interval in result.change.items()}
        row["displacement"] = _numbers(result.displacement)
        if result.excess is not None:
            removal = next(other for other in self.results if other.method == "optimal").change["loss"]
            row["harm"] = {"removal": _numbers(removal), "displacement": _numbers(result.excess)}
        if result.learning is not None:
            row["learning"] = asdict(result.learning) | {"passes": list(map(as_number, result.learning.passes))}
        return row


def _performance(performance: Performance, names: Sequence[str]) -> dict[str, float | None]:
    return {name: as_number(getattr(performance, name)) for name in names}


def _numbers(values: Interval | Displacement | None) -> dict[str, float | None] | None:
    return None if values is None else {name: as_number(value) for name, value in asdict(values).items()}
