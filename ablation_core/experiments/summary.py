"""What the scores of single predictions come to: each method's means, and its changes with intervals and p-values."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ablation_core.engine.metrics import Metric, main_metric
from ablation_core.engine.scores import Scores
from ablation_core.experiments.displacement import Displacement
from ablation_core.experiments.harm_split import HarmSplit, is_split, parts_of, reference_of
from ablation_core.experiments.results import MethodResult, Performance
from ablation_core.methods.optimal import Learning
from ablation_core.stats.intervals import Interval, MeanTest, mean_tests


class Measured(NamedTuple):
    """What a run has measured of each prediction.

    Attributes:
        metrics: those of the data, in the order of `METRICS`.
        ablated: method → its scores.
        sequences: the number of each prediction's sequence or group, which intervals resample; (predictions,).
        seed: of the resampling.
    """

    metrics: Sequence[Metric]
    baseline: Scores
    ablated: Mapping[str, Scores]
    sequences: np.ndarray
    seed: int

    def means(self, scores: Scores) -> Performance:
        return Performance({metric.name: float(scores[metric.name].mean()) for metric in self.metrics})


def summarise(
    measured: Measured, displacements: Mapping[str, Displacement], learning: Mapping[str, Learning]
) -> tuple[tuple[MethodResult, ...], Interval | None]:
    """Each method's result, and how much lower the loss of the mildest method is than that of the harshest, paired.

    Args:
        displacements: of each method.
        learning: of each method whose constants were learned.
    """
    ablated, optimal = measured.ablated, measured.ablated.get("optimal")
    judged, reference = main_metric(metric.name for metric in measured.metrics), reference_of(ablated)
    by_loss = sorted(ablated.values(), key=lambda scores: scores.loss.mean())
    rows: dict[Hashable, np.ndarray] = {"least to most": by_loss[-1].loss - by_loss[0].loss}
    for name, scores in ablated.items():
        rows |= {(name, metric.name): scores.change(metric, measured.baseline) for metric in measured.metrics}
    if optimal is not None:
        rows |= {(name, "excess"): scores.loss - optimal.loss for name, scores in ablated.items()}
    if reference is not None:

        def harm(name: str) -> np.ndarray:
            return judged.worse * ablated[name].change(judged, measured.baseline)

        for name in filter(is_split, ablated):
            rows |= {(name, "part", at): part for at, part in enumerate(parts_of(harm, name, reference))}
    tests = dict(zip(rows, mean_tests(np.stack(list(rows.values())), measured.sequences, measured.seed), strict=True))
    results = tuple(
        _method_result(name, tests, measured, displacements[name], learning.get(name), judged.name, reference)
        for name in ablated
    )
    return results, tests["least to most"].interval if len(ablated) > 1 else None


def _method_result(
    name: str,
    tests: Mapping[Hashable, MeanTest],
    measured: Measured,
    displacement: Displacement,
    learning: Learning | None,
    judged: str,
    reference: str | None,
) -> MethodResult:
    excess = tests.get((name, "excess"))
    parts = tuple(test.interval for key, test in tests.items() if isinstance(key, tuple) and key[:2] == (name, "part"))
    return MethodResult(
        name,
        measured.means(measured.ablated[name]),
        {metric.name: tests[name, metric.name].interval for metric in measured.metrics},
        displacement,
        None if excess is None else excess.interval,
        learning,
        {metric.name: tests[name, metric.name].p for metric in measured.metrics if metric.tested},
        HarmSplit(judged, reference, parts) if reference and parts else None,
    )
