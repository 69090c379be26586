"""What a comparison of two data sets, or of two models, has found, head by head."""

from dataclasses import dataclass, field

from ablation_core.engine.metrics import METRICS
from ablation_core.presentation import Presented
from ablation_core.stats.correlation import rank_agreement
from ablation_core.stats.intervals import Interval
from ablation_core.stats.sequential import FALSE_DISCOVERIES
from ablation_core.storage import as_number


@dataclass(frozen=True)
class HeadComparison:
    """One head on both sides; each mapping is by metric.

    Attributes:
        changes: the change on each side.
        difference: the second side's change minus the first's.
        p, q: of the difference being 0, and after Benjamini and Hochberg over all heads; None where there is no test, and of
            divergences.
    """

    head: str
    changes: tuple[dict[str, Interval], dict[str, Interval]]
    difference: dict[str, Interval]
    p: dict[str, float | None]
    q: dict[str, float | None]

    def significant(self, metric: str = "loss") -> bool:
        q = self.q.get(metric)
        return q is not None and q <= FALSE_DISCOVERIES


@dataclass(frozen=True)
class ComparisonResult(Presented):
    """What a comparison found; losses in nats per prediction, with 95% intervals.

    Attributes:
        sides: of each the parts `model`, `data` and `statistics` of its document.
        baselines: the clean model's figures on each side.
        paired: whether both sides are the same predictions.
        provenance: when, where and by which versions it was made.
    """

    sides: tuple[dict, dict]
    method: str
    bins: int
    seed: int
    positions: str
    paired: bool
    baselines: tuple[dict, dict]
    heads: tuple[HeadComparison, ...]
    provenance: dict = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, str]:
        """What tells the two sides apart: their models or, of one model, their data."""
        part = "data" if self.sides[0]["model"] == self.sides[1]["model"] else "model"
        one, other = (side[part]["ref"] for side in self.sides)
        return (one, other) if one != other else (f"{one} (first)", f"{other} (second)")

    @property
    def metrics(self) -> list[str]:
        """Those that both sides have."""
        return [name for name in METRICS if all(name in head.difference for head in self.heads)]

    def agreement(self, metric: str = "loss") -> Interval:
        """Spearman's rank correlation of the heads' changes on the two sides."""
        one, other = ([head.changes[side][metric].mean for head in self.heads] for side in (0, 1))
        return rank_agreement(one, other)

    def to_dict(self) -> dict:
        """The JSON document of `python -m ablation_core compare --json`; null stands for what is not a number.

        `data`, `statistics`, `baseline` and each head's `changes` have two entries, the first side's and the second's;
        `with` is the second model, or null where there is one model. `p`, `q` and `significant` are of the loss;
        `p_values` and `q_values` have every metric's.
        """
        models = [side["model"] for side in self.sides]
        return {
            "model": models[0],
            "with": None if models[0] == models[1] else models[1],
            "data": [side["data"] for side in self.sides],
            "statistics": [side["statistics"] for side in self.sides],
            "method": self.method,
            "bins": self.bins,
            "seed": self.seed,
            "positions": self.positions,
            "paired": self.paired,
            "provenance": self.provenance,
            "baseline": list(self.baselines),
            "heads": [_row(head) for head in self.heads],
            "agreement": {metric: _span(self.agreement(metric)) for metric in self.metrics if len(self.heads) > 1},
        }


def _row(head: HeadComparison) -> dict:
    return {
        "head": head.head,
        "changes": [{metric: _span(change) for metric, change in side.items()} for side in head.changes],
        "difference": {metric: _span(change) for metric, change in head.difference.items()},
        "p": head.p.get("loss"),
        "q": head.q.get("loss"),
        "significant": head.significant(),
        "p_values": dict(head.p),
        "q_values": dict(head.q),
    }


def _span(interval: Interval) -> dict[str, float | None]:
    bounds = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {name: as_number(value) for name, value in bounds.items()}
