"""A sweep that stops asking what it already knows: every head, on no more predictions than its verdict needs.

First one pass forwards and one back over all sequences estimate what every head does in each. Then heads are run: all
of them on a sixteenth of the sequences, those still open on an eighth, and so on; the estimates carry what was measured
over to the other sequences (`stats/regression_estimator.py`). `stats/sequential.py` has the rule, and why it stays valid. Sequences come in a random
order, drawn once by the seed; those in which much happens, by the estimates, tend to come first, and count for less.

A model that cannot be differentiated has no estimates; its heads take as many more predictions.
"""

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ablation_core.activations.made_from import check_made_from
from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data
from ablation_core.data.positions import EVERYWHERE, Positions
from ablation_core.engine.metrics import METRICS, Metric, figures, main_metric
from ablation_core.errors import DataError, MethodError
from ablation_core.experiments.provenance import describe_made
from ablation_core.experiments.spec import DEFAULT_BINS
from ablation_core.methods.registry import Method
from ablation_core.models.loaded import LoadedModel
from ablation_core.presentation import Presented
from ablation_core.runs.adaptive_batches import HeadMeasurements, Wanted
from ablation_core.runs.ledger import open_ledger
from ablation_core.runs.sweep_result import SweepResult, every_head
from ablation_core.runs.units import describe_work
from ablation_core.selection import Head
from ablation_core.stats.intervals import Interval, MeanTest
from ablation_core.stats.regression_estimator import RegressionEstimator
from ablation_core.stats.sequential import GroupSequentialTest, adjusted, at_once, plan_interim_looks
from ablation_core.storage import as_number


@dataclass(frozen=True)
class AdaptiveSpec:
    """What is decided before an adaptive sweep runs.

    Attributes:
        heads: these only; by default all.
        precision: in nats: a head whose change is surely smaller takes no more predictions; None for no such bound.
        positions: where in each sequence heads are ablated.
    """

    methods: tuple[Method, ...]
    bins: int = DEFAULT_BINS
    heads: tuple[Head, ...] | None = None
    precision: float | None = None
    positions: Positions = EVERYWHERE


@dataclass(frozen=True)
class AdaptiveResult(Presented):
    """The map after any number of looks.

    Verdicts, p and q are of the change of loss; of a task, of the change of its logit difference (`metric`).

    Attributes:
        description: what was run, and `first_order_estimates`: whether these carried what was measured over to all
            sequences.
        heads: a record a head, as in the document of `sweep`: for each method its changes with intervals, `p` (valid
            however often was looked), `q` (after Benjamini and Hochberg over the map), `told_from_no_effect`, the
            `verdict`, and the `sequences` and `predictions` it took.
        looks: how many are done, of `looks_planned`.
        taken: the share of a whole sweep's ablated predictions that were computed.
    """

    description: dict
    baseline: dict | None
    heads: tuple[dict, ...]
    looks: int
    looks_planned: int
    taken: float
    provenance: dict = field(default_factory=dict)

    @property
    def metric(self) -> Metric:
        """What the verdicts are about."""
        return main_metric({} if self.baseline is None else self.baseline)

    @property
    def share(self) -> float:
        """How far it is at least: as much as was taken of what a whole sweep takes."""
        return min(self.taken, 1.0)

    @property
    def open(self) -> int:
        """How many heads have a method that is not decided yet."""
        return sum(any(row["verdict"] == "open" for row in head["results"]) for head in self.heads)

    def to_dict(self) -> dict:
        """The JSON document of `python -m ablation_core sweep --adaptive --json`."""
        looks = {"looks": self.looks, "looks_planned": self.looks_planned, "predictions_taken": self.taken}
        described = {"positions": "all"} | self.description | {"provenance": self.provenance, "baseline": self.baseline}
        return described | looks | {"heads": list(self.heads)}

    def as_sweep(self) -> SweepResult:
        """The map as a sweep's: the p-values are those that looking often leaves valid, for `metric` alone; each row has
        its `verdict` and `predictions` too. There are no random sets.
        """
        untested = {name: None for name, metric in METRICS.items() if metric.tested}
        rows = {
            head["head"]: {
                row["method"]: row | {"p_values": untested | {self.metric.name: row["p"]}}
                for row in head["results"]
                if row["change"] is not None
            }
            for head in self.heads
        }
        wanted = tuple(head["head"] for head in self.heads)
        kept = {head: methods for head, methods in rows.items() if methods}
        return SweepResult(self.description, self.baseline, kept, wanted, share=self.taken)


def adaptive_steps(
    model: LoadedModel, data: Data, spec: AdaptiveSpec, statistics: Statistics | None, folder: Path
) -> Generator[AdaptiveResult]:
    """Sweep with looks on the way. Yields the map at first, after each layer of each batch (with `taken` grown, all else
    as it was) and after each look.

    Args:
        data: the most that any head may take.
        folder: the cache folder, where what is measured is kept: an interrupted sweep ends with the same numbers.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    if spec.precision is not None and not spec.precision > 0:
        raise DataError(f"The precision must be above 0 nats, not {spec.precision}.")
    spec.positions.check_in(data)
    if data.groups is not None and len(np.unique(data.groups)) < data.sequences:
        raise DataError(
            f"The prompts of {data.ref} form groups, and an adaptive sweep takes single prompts in a random order; sweep "
            f"without --adaptive."
        )
    if learned := [method.name for method in spec.methods if method.learned]:
        raise MethodError(f"The constants of {learned[0]} are learned for each head; sweep without --adaptive for it.")
    if statistics is not None:
        check_made_from(statistics.provenance, model, "These statistics")
    sweeping = _Sweeping(model, data, spec, statistics)
    runs = sweeping.runs
    result = sweeping.result()
    yield result
    with open_ledger(folder, "adaptive", sweeping.kept_as) as ledger:
        runs.attach(ledger)
        if len(sweeping.looks) > 1:
            for _ in runs.estimate(spec.methods):
                yield result
            result = sweeping.result()
        done = 0
        for look in sweeping.looks:
            wanted = sweeping.undecided()
            if not wanted:
                return
            for batch in range(done, look):
                for _ in runs.measure(batch, wanted):
                    yield replace(result, taken=runs.taken / sweeping.most)
            done = look
            sweeping.judge(min(look * runs.data.batch_size, data.sequences))
            result = sweeping.result()
            yield result


class _Sweeping:
    """An adaptive sweep under way: what was measured, and the verdicts so far."""

    def __init__(self, model: LoadedModel, data: Data, spec: AdaptiveSpec, statistics: Statistics | None) -> None:
        self.spec, self.model, self.data = spec, model, data
        self.heads = list(spec.heads or every_head(model))
        size = at_once(data.sequences, data.batch_size)
        self.runs = HeadMeasurements(model, data, size, self.heads, spec.methods, statistics, spec.bins, spec.positions)
        self._metrics = [metric.name for metric in self.runs.metrics]
        self.judged = self._metrics.index(self.runs.judged.name)
        self.looks, self.shares = plan_interim_looks(data.sequences, size)
        self.most = max(1, len(self.heads) * len(spec.methods) * data.predictions)
        self.kept_as = describe_work(model, data, statistics, spec.bins, spec.positions) | {"sequences_at_once": size}
        self.looking = {
            method.name: GroupSequentialTest(len(self.heads), self.shares, spec.precision) for method in spec.methods
        }

    def undecided(self) -> Wanted:
        """The heads that a method has not decided yet, each with those methods."""
        rows = [
            (number, [m for m in self.spec.methods if self.looking[m.name].verdicts[number] == "open"])
            for number in range(len(self.heads))
        ]
        return [(number, methods) for number, methods in rows if methods]

    def judge(self, sequences: int) -> None:
        """Look at what every open head gave in the first `sequences`."""
        for name, looking in self.looking.items():
            ablated = self.runs.sums[name][self.judged, looking.open, :sequences]
            changes = ablated - self.runs.baseline[self.judged, :sequences]
            looking.look(changes, self.runs.counts, self._first_order(name), self.runs.sizes)

    def _first_order(self, method: str) -> np.ndarray | None:
        return None if self.runs.first_order is None else self.runs.first_order[method]

    def result(self) -> AdaptiveResult:
        columns = {name: adjusted(looking.p) for name, looking in self.looking.items()}
        heads = tuple(
            {
                "head": f"{layer}.{head}",
                "results": [self._row(name, number, float(q[number])) for name, q in columns.items()],
            }
            for number, (layer, head) in enumerate(self.heads)
        )
        description = self.kept_as | {
            "methods": list(self.looking),
            "looks_after_sequences": [min(n * self.runs.data.batch_size, self.data.sequences) for n in self.looks],
            "error_shares": [float(share) for share in self.shares],
            "precision": self.spec.precision,
            "first_order_estimates": self.runs.first_order is not None,
        }
        looks = max((looking.looks for looking in self.looking.values()), default=0)
        taken, made = self.runs.taken / self.most, describe_made(self.model, self.data)
        return AdaptiveResult(description, self._baseline(), heads, looks, len(self.looks), taken, made)

    def _baseline(self) -> dict | None:
        """The clean model's performance, from the sequences seen so far."""
        seen = int(np.isfinite(self.runs.baseline[0]).sum())
        if not seen:
            return None
        means = RegressionEstimator.make(self.runs.baseline[:, :seen], self.runs.counts, None, self.runs.sizes).mean
        clean = figures(dict(zip(self._metrics, means.tolist(), strict=True)), divergences=False)
        return {name: as_number(value) for name, value in clean.items()}

    def _row(self, method: str, number: int, q: float) -> dict:
        looking, counts = self.looking[method], self.runs.counts
        verdict, size = looking.verdicts[number], int(looking.seen[number])
        row = {"method": method, "verdict": verdict, "told_from_no_effect": verdict == "told"}
        row |= {"sequences": size, "predictions": int(counts[:size].sum()), "p": None, "q": None, "change": None}
        if size:
            compared = np.array(
                [not metric.divergence for metric in self.runs.metrics]
            )  # the others are changes already
            clean = self.runs.baseline[:, :size] * compared[:, None]
            first_order = self._first_order(method)
            if first_order is not None:  # of what is judged; the other metrics' means are those of what was measured
                first_order = first_order[number] * (np.arange(len(self._metrics)) == self.judged)[:, None]
            estimates = RegressionEstimator.make(
                self.runs.sums[method][:, number, :size] - clean, counts, first_order, self.runs.sizes
            )
            wide = estimates.half_width(looking.share[number])
            change = row["change"] = {
                metric: {"mean": as_number(mean), "low": as_number(mean - half), "high": as_number(mean + half)}
                for metric, mean, half in zip(self._metrics, estimates.mean.tolist(), wide.tolist(), strict=True)
            }
            low, high = looking.intervals()[:, number].tolist()
            change[self.runs.judged.name] |= {"low": as_number(low), "high": as_number(high)}
            if verdict != "no number":
                tested = MeanTest.of(Interval(float(looking.mean[number]), low, high), float(looking.p[number]))
                row |= {"p": min(tested.p or 0.0, 1.0), "q": q}
        return row
