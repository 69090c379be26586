"""What an ablation experiment found, and its JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ablation_core.engine.metrics import figures
from ablation_core.presentation import Presented
from ablation_core.storage import as_number

if TYPE_CHECKING:
    from ablation_core.experiments.displacement import Displacement
    from ablation_core.experiments.harm_split import HarmSplit
    from ablation_core.experiments.predictions.prediction_scores import PredictionScores
    from ablation_core.methods.optimal import Learning
    from ablation_core.stats.intervals import Interval


@dataclass(frozen=True)
class Performance:
    """Means over the predictions by metric: `performance["top1"]`; loss and KL in nats per prediction, others as shares."""

    means: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        """A metric's mean, or a figure derived from one, such as `perplexity`."""
        return self.figures()[name]

    @property
    def loss(self) -> float:
        return self.means["loss"]

    def figures(self, divergences: bool = True) -> dict[str, float]:
        """The means with what is derived from them, as documents have them (`metrics.figures`)."""
        return figures(self.means, divergences)


@dataclass(frozen=True)
class MethodResult:
    """A method's performance and its change: ablated minus baseline on the same predictions, with 95% intervals.

    Attributes:
        displacement: how far the method moved what it replaced.
        excess: its loss minus that of the best constants, paired: the part of its harm that is not lost information.
            None where `optimal` was not among the methods.
        learning: how the constants were learned, where they were.
        p_values: of each tested metric's change being 0; None where there are too few sequences for a test.
        split: what its harm is made of, where `mean-positional` and `counterfactual` were measured beside it.
    """

    method: str
    performance: Performance
    change: dict[str, Interval]
    displacement: Displacement
    excess: Interval | None = None
    learning: Learning | None = None
    p_values: dict[str, float | None] = field(default_factory=dict)
    split: HarmSplit | None = None


@dataclass(frozen=True)
class AblationResult(Presented):
    """What an experiment measured, with what is needed to measure it again.

    Attributes:
        positions: where the ablation acted, in text form.
        seed: of what resampling takes values from, and of intervals.
        provenance: when, where and by which versions it was made, and what was done to the data (`provenance.py`).
        least_to_most: the loss of the most harmful method minus that of the least harmful one, paired; None for a
            single method.
        predictions: the scores behind the means; in no document, and None where a result was not measured here.
    """

    model: dict
    data: dict
    statistics: dict | None
    select: str
    neurons: int
    bins: int
    positions: str
    baseline: Performance
    results: tuple[MethodResult, ...]
    least_to_most: Interval | None
    seed: int = 0
    provenance: dict = field(default_factory=dict)
    predictions: PredictionScores | None = field(default=None, compare=False, repr=False)

    @property
    def positions_spared(self) -> int:
        """How many positions at the start were left as they are, where that is all that `positions` says; else 0."""
        from ablation_core.data.positions import Positions  # with torch: the first page draws results without it

        return Positions.parse(self.positions).skipped

    def to_dict(self) -> dict:
        """The JSON document of `python -m ablation_core ablate --json`; null stands for what is not a finite number."""
        names = ("model", "data", "statistics", "select", "neurons", "bins", "positions", "positions_spared")
        document = {name: getattr(self, name) for name in names}
        document |= {"seed": self.seed, "provenance": self.provenance}
        document["baseline"] = _finite(self.baseline.figures(divergences=False))
        document["results"] = [self._row(result) for result in self.results]
        document["least_to_most"] = _numbers(self.least_to_most)
        return document

    def _row(self, result: MethodResult) -> dict:
        row: dict[str, Any] = {"method": result.method}
        row |= _finite(result.performance.figures())
        row["change"] = {metric: _numbers(interval) for metric, interval in result.change.items()}
        row["displacement"] = _numbers(result.displacement)
        if result.excess is not None:
            removal = next(other for other in self.results if other.method == "optimal").change["loss"]
            row["harm"] = {"removal": _numbers(removal), "displacement": _numbers(result.excess)}
        if result.split is not None:
            parts = zip(("counterfactual", "information", "position", "displacement"), result.split.parts, strict=True)
            row["split"] = {"metric": result.split.metric, "reference": result.split.reference}
            row["split"] |= {name: _numbers(part) for name, part in parts}
        if result.learning is not None:
            row["learning"] = asdict(result.learning) | {"passes": list(map(as_number, result.learning.passes))}
        return row


def _numbers(values: Interval | Displacement | None) -> dict[str, float | None] | None:
    return None if values is None else _finite(asdict(values))


def _finite(numbers: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: as_number(value) for name, value in numbers.items()}
