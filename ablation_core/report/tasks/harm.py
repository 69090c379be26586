"""What the harm of constants on a task is made of, in a sentence and as rows of a chart (`experiments/harm_split.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ablation_core.engine.metrics import METRICS, Metric, main_metric
from ablation_core.experiments.harm_split import PARTS, mean_parts, reference_of
from ablation_core.experiments.results import AblationResult
from ablation_core.report.numbers import amount, is_points, number

if TYPE_CHECKING:
    import pandas as pd


def harm_frame(changes: Mapping[str, float], metric: Metric) -> pd.DataFrame:
    """A row per constant method and part of its harm: kind, part, order, value (above 0: for the worse; shares in percentage
    points). Empty where `mean-positional`, `counterfactual` and a reference were not measured.

    Args:
        changes: the mean change by each method.
    """
    import pandas as pd  # not for a sentence in a terminal

    factor = 100 if is_points(metric.change_format) else 1
    rows = [
        {"kind": name, "part": part, "order": order, "value": factor * value}
        for name, parts in mean_parts(changes, metric.worse).items()
        for order, (part, value) in enumerate(zip(PARTS, parts, strict=True))
    ]
    return pd.DataFrame(rows, columns=["kind", "part", "order", "value"])


def harm_sentence(changes: Mapping[str, float], method: str, metric: Metric) -> str:
    """The parts of one method's harm in words; empty where there is no such split.

    >>> changes = {"counterfactual": -0.25, "mean-positional": -0.5, "mean": -1.0, "zero": -1.5}
    >>> harm_sentence(changes, "zero", METRICS["logit_difference"]).partition(", +0.500 for position")[0]
    'By zero the logit difference falls by 1.500 nats: +0.250 for what the counterfactual changes, +0.250 for other information'
    """
    parts = mean_parts(changes, metric.worse).get(method)
    if parts is None:
        return ""
    form, whole = metric.change_format, changes[method]
    named = ", ".join(f"{number(value, form)} for {part}" for part, value in zip(PARTS, parts, strict=True))
    reference = "the optimal constants" if reference_of(changes) == "optimal" else "the mean"
    size = f"{amount(whole, form)} {metric.unit}".rstrip()
    verb = "falls" if whole < 0 else "rises"
    return f"By {method} {metric.noun} {verb} by {size}: {named} from {reference} (+: harm)."


def mean_changes(result: AblationResult) -> tuple[dict[str, float], Metric]:
    """The mean change by each method, of the metric that a result is judged by."""
    metric = main_metric(result.baseline.means)
    return {row.method: row.change[metric.name].mean for row in result.results}, METRICS[metric.name]
