"""Which heads matter here and not there: every head's change on two data sets, or in two models, and their difference.

    result = compare(model, [prose, code], "mean")            # two data sets: two samples
    result = compare(model, prose, "mean", other=fine_tuned)  # two models: paired by prediction
    result.to_dict()["heads"][0]  # {"head": "0.0", "changes": [{"loss": …}, {"loss": …}], "difference": {"loss": …}, "q": …}

The **difference** of a head is its change in the second minus that in the first. Of two data sets nothing is paired: each is
resampled by itself. Two models see the very same predictions, so that their difference is a mean of paired ones. p-values
are adjusted over all heads, after Benjamini and Hochberg.

What is kept in the cache folder is each side's change by sequence, head by head: an interrupted comparison resumes, and one
with a third data set measures only that.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data
from ablation_core.data.made_for import READ_BY, check_made_for, reader_key
from ablation_core.data.positions import Positions
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.engine.metrics import METRICS, figures, metrics_of
from ablation_core.errors import DataError, ModelError
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.provenance import describe_made, describe_run
from ablation_core.experiments.spec import DEFAULT_BINS, AblationSpec
from ablation_core.methods.registry import Method
from ablation_core.models.loaded import LoadedModel
from ablation_core.runs.comparison_result import ComparisonResult, HeadComparison
from ablation_core.runs.ledger import Ledger, open_ledger
from ablation_core.runs.sweep import every_head
from ablation_core.selection import Head, Selection
from ablation_core.stats.intervals import Interval, MeanTest, difference_tests, sequence_sums, sum_tests
from ablation_core.stats.sequential import adjusted
from ablation_core.storage import NUMBER_OR_NULL, as_number, matches_schema


@dataclass(frozen=True, eq=False)
class Side:
    """A model, the data that it is measured on, and the statistics that replacements come from."""

    model: LoadedModel
    data: Data
    statistics: Statistics | None


@dataclass(frozen=True)
class ComparisonSpec:
    """What is decided before a comparison runs.

    Attributes:
        heads: these only; by default all.
        seed: of resampling and intervals.
    """

    method: Method
    bins: int = DEFAULT_BINS
    heads: tuple[Head, ...] | None = None
    seed: int = 0
    positions: Positions = field(default_factory=Positions)


def check_alike(one: LoadedModel, other: LoadedModel) -> None:
    """Refuse two models whose heads, or whose predictions, are not those of one another.

    Raises:
        ModelError: they have another shape, or another tokenizer or image transform.
    """
    if one.shape != other.shape:
        raise ModelError(
            f"{one.ref} has {one.shape}, {other.ref} has {other.shape}: a head is compared with the same head of a model of "
            f"the same shape."
        )
    if reader_key(one) != reader_key(other):
        what = READ_BY[one.modality]
        raise ModelError(
            f"{one.ref} and {other.ref} do not have the same {what}, so that they do not make the same predictions; compare "
            f"models that share it, such as a model and its fine-tuned version."
        )


@dataclass(frozen=True)
class ComparisonProgress:
    """A comparison under way: how much of it is done, and what it found once that is all."""

    share: float
    result: ComparisonResult | None = None


def comparison_steps(one: Side, other: Side, spec: ComparisonSpec, folder: Path) -> Generator[ComparisonProgress]:
    """Measure both sides, head by head; what is kept already is done at once.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    paired = one.model is not other.model
    if paired:
        check_alike(one.model, other.model)
        check_made_for(other.model, one.data.made_for, one.data.ref)
        if one.model.fingerprint == other.model.fingerprint:
            raise ModelError(
                f"{one.model.ref} and {other.model.ref} have the same weights and settings; there is nothing to compare."
            )
    elif one.data.fingerprint == other.data.fingerprint:
        raise DataError(f"Both data sets are the same {one.data.ref}; a comparison needs two that differ.")
    heads = sorted(spec.heads or every_head(one.model))
    measured = [_Measured(side, spec) for side in (one, other)]
    with (
        open_ledger(folder, "changes", measured[0].described) as first,
        open_ledger(folder, "changes", measured[1].described) as second,
    ):
        todo = [
            (part, ledger, head)
            for part, ledger in zip(measured, (first, second), strict=True)
            for head in heads
            if part.kept(head, ledger) is None
        ]
        for number, (part, ledger, head) in enumerate(todo):
            yield ComparisonProgress(1 - (len(todo) - number) / (2 * len(heads)))
            part.measure(head, ledger)
        records = [
            [part.kept(head, ledger) or {} for head in heads]
            for part, ledger in zip(measured, (first, second), strict=True)
        ]
    yield ComparisonProgress(1.0, _result(measured, records, spec, heads, paired))


_RECORD: dict[str, Any] = {"counts": [int], "sums": dict, "baseline": dict}


class _Measured:
    """One side: its changes by sequence, measured or found in its ledger."""

    def __init__(self, side: Side, spec: ComparisonSpec) -> None:
        self.side, self.spec = side, spec
        self.metrics = metrics_of(side.data)
        self.clean_cache = CleanPassCache(side.model, side.data, keys_values=not spec.positions.everywhere)
        self.described = describe_run(side.model, side.data, side.statistics) | {
            "bins": spec.bins,
            "positions": str(spec.positions),
            "resampling seed": spec.seed,
        }

    def name(self, head: Head) -> str:
        return f"{head[0]}.{head[1]}: {self.spec.method.name}"

    def kept(self, head: Head, ledger: Ledger) -> dict | None:
        """A head's record, if it is built as this program builds it."""
        record = ledger.done.get(self.name(head))
        wanted = {"sums": {metric.name: [NUMBER_OR_NULL] for metric in self.metrics}}
        return record if matches_schema(record, _RECORD) and matches_schema(record, wanted) else None

    def measure(self, head: Head, ledger: Ledger) -> None:
        """Measure a head and keep it."""
        selection, spec = Selection.of_heads([head], self.side.model.shape), self.spec
        settings = AblationSpec(selection, (spec.method,), spec.bins, spec.seed, spec.positions)
        run = AblationRun(self.side.model, self.side.data, settings, self.side.statistics, self.clean_cache).finish()
        baseline, ablated, sequences = run.scores()
        rows = [ablated[spec.method.name].change(metric, baseline) for metric in self.metrics]
        sums, counts = sequence_sums(np.stack(rows), sequences)
        clean = {metric.name: float(baseline[metric.name].mean()) for metric in self.metrics}
        ledger.add(
            self.name(head),
            {
                "counts": counts.tolist(),
                "sums": {
                    metric.name: list(map(as_number, row.tolist()))
                    for metric, row in zip(self.metrics, sums, strict=True)
                },
                "baseline": {name: as_number(value) for name, value in figures(clean, divergences=False).items()},
            },
        )


def _result(
    measured: Sequence[_Measured],
    records: Sequence[Sequence[Mapping[str, Any]]],
    spec: ComparisonSpec,
    heads: Sequence[Head],
    paired: bool,
) -> ComparisonResult:
    """What both sides' records of all heads say."""
    names = [metric.name for metric in measured[0].metrics if metric in measured[1].metrics]
    samples = [
        (
            np.array([record["sums"][name] for record in side for name in names], dtype=float),  # None becomes NaN
            np.array(side[0]["counts"]),
        )
        for side in records
    ]
    one, other = (describe_run(part.side.model, part.side.data, part.side.statistics) for part in measured)
    return ComparisonResult(
        (one, other),
        spec.method.name,
        spec.bins,
        spec.seed,
        str(spec.positions),
        paired,
        (records[0][0]["baseline"], records[1][0]["baseline"]),
        _heads([f"{layer}.{head}" for layer, head in heads], names, samples, spec.seed, paired),
        describe_made(measured[0].side.model, measured[0].side.data),
    )


def _heads(
    heads: Sequence[str],
    metrics: Sequence[str],
    samples: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int,
    paired: bool,
) -> tuple[HeadComparison, ...]:
    """Each head's tests, of rows that are ordered by head and, within each, by metric."""
    (first, counts), (second, _) = samples
    changes = [_by_head(sum_tests(*sample, seed), metrics) for sample in samples]
    tests = sum_tests(second - first, counts, seed) if paired else difference_tests(samples[0], samples[1], seed)
    differences = _by_head(tests, metrics)
    p = {metric: [one[metric].p if METRICS[metric].tested else None for one in differences] for metric in metrics}
    q = {metric: adjusted(np.array([np.nan if one is None else one for one in row])) for metric, row in p.items()}
    return tuple(
        HeadComparison(
            head,
            (_intervals(changes[0][number]), _intervals(changes[1][number])),
            _intervals(differences[number]),
            {metric: p[metric][number] for metric in metrics},
            {metric: None if p[metric][number] is None else float(q[metric][number]) for metric in metrics},
        )
        for number, head in enumerate(heads)
    )


def _by_head(tests: Sequence[MeanTest], metrics: Sequence[str]) -> list[dict[str, MeanTest]]:
    size = len(metrics)
    return [dict(zip(metrics, tests[first : first + size], strict=True)) for first in range(0, len(tests), size)]


def _intervals(tests: Mapping[str, MeanTest]) -> dict[str, Interval]:
    return {metric: test.interval for metric, test in tests.items()}
