"""What an experiment on several heads found: each head's change, every pair's, and all heads' together."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ablation_core.presentation import Presented
from ablation_core.stats.intervals import Interval
from ablation_core.storage import as_number


@dataclass(frozen=True)
class PairInteraction:
    """Two heads, ablated together.

    Attributes:
        pair: their names.
        joint: the change of ablating both.
        interaction: that minus both single changes.
        p, q: of the interaction against 0, and after Benjamini and Hochberg over all pairs; None where there is no test.
        verdict: redundant, synergistic, independent, or undecided.
    """

    pair: tuple[str, str]
    joint: Interval
    interaction: Interval
    p: float | None
    q: float | None
    verdict: str


@dataclass(frozen=True)
class InteractionResult(Presented):
    """What an experiment on several heads found; changes per prediction in the metric's unit, paired, with 95% intervals.

    Attributes:
        description: model, data and statistics.
        baseline: the metric's mean with all heads.
        singles: head → the change of ablating it alone.
        joint: the change of ablating all of them.
        excess: that minus the sum of the single changes.
        changes: every set's change on each prediction, float64 (predictions,), and the number of each
            prediction's `sequence`; in no document, and None where a result was not measured here.
        metric: the name of what changes.
    """

    description: dict
    method: str
    bins: int
    seed: int
    positions: str
    baseline: float
    singles: dict[str, Interval]
    pairs: tuple[PairInteraction, ...]
    joint: Interval
    excess: Interval
    changes: Mapping[str, np.ndarray] | None = field(default=None, compare=False, repr=False)
    metric: str = field(
        default="loss", metadata={"later": True}
    )  # saved results from before there was a choice lack it

    def to_dict(self) -> dict:
        """The JSON document of `python -m ablation_core interact --json`; null stands for what is not a number."""
        return self.description | {
            "method": self.method,
            "bins": self.bins,
            "seed": self.seed,
            "positions": self.positions,
            "metric": self.metric,
            "select": " ".join(self.singles),
            "baseline": {self.metric: as_number(self.baseline)},
            "singles": [
                {"head": head, "change": {self.metric: _span(change)}} for head, change in self.singles.items()
            ],
            "joint": {"change": {self.metric: _span(self.joint)}},
            "interaction": _span(self.excess),
            "pairs": [
                {
                    "pair": list(pair.pair),
                    "joint": {"change": {self.metric: _span(pair.joint)}},
                    "interaction": _span(pair.interaction),
                    "p": pair.p,
                    "q": pair.q,
                    "verdict": pair.verdict,
                }
                for pair in self.pairs
            ],
        }


def _span(interval: Interval) -> dict[str, Any]:
    bounds = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {name: as_number(value) for name, value in bounds.items()}
