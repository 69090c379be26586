"""What each kind of saved result has to show: its figures by what they are of, and in which metric."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

from ablation_core.engine.metrics import METRICS, Metric, main_metric
from ablation_core.errors import ReportError, a_type
from ablation_core.experiments.estimate_result import EstimateResult
from ablation_core.experiments.interaction_result import InteractionResult
from ablation_core.experiments.noise_floor import NoiseFloor
from ablation_core.experiments.results import AblationResult
from ablation_core.heads.describe import HeadDescription
from ablation_core.runs.adaptive import AdaptiveResult
from ablation_core.runs.comparison_result import ComparisonResult
from ablation_core.runs.maps.position_map import PositionMapResult
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.runs.sweep import SweepResult
from ablation_core.stats.intervals import Interval

Figures = dict[str, Interval]  # what → its change, per prediction


def figures_of(result: Any) -> Figures:
    """A result's changes by what they are of, so that results of one kind can be laid side by side: of the loss or, on a task,
    of the logit difference.
    """
    make = next((make for kind, make in _FIGURES.items() if isinstance(result, kind)), None)
    if make is None:
        raise ReportError(f"This is {a_type(result)}, not a result; give what ablate, sweep or the like returned.")
    return make(result)


def metric_of(result: Any) -> Metric:
    """What a result's figures are of."""
    if isinstance(result, HeadDescription):
        result = result.total_effect
    if isinstance(result, InteractionResult):
        return METRICS[result.metric]
    if isinstance(result, AblationResult):
        return main_metric(result.baseline.means)
    return main_metric(getattr(result, "metrics", ()))


def unit_of(result: Any) -> str:
    """What a result's figures are, in words: curves have the metric itself, everything else its change."""
    metric = metric_of(result)
    return metric.title if isinstance(result, CurveResult) else metric.change_title


def _of_ablation(result: AblationResult) -> Figures:
    return {row.method: row.change[metric_of(result).name] for row in result.results}


def _of_sweep(result: SweepResult) -> Figures:
    metric = metric_of(result).name
    return {
        f"{head}, {method}": _interval(result.rows[head][method]["change"][metric])
        for head, method in product(result.wanted, result.methods)
        if method in result.rows.get(head, {})
    }


def _of_curve(result: CurveResult) -> Figures:
    """The metric itself: its mean over the seeds, the least and the greatest."""
    metric = metric_of(result).name
    methods, percents = result.description["methods"], result.description["percents"]
    return {
        f"{percent} % by {method}": _interval(result.band(method, metric, percent))
        for method, percent in product(methods, percents)
    }


def _of_estimate(result: EstimateResult) -> Figures:
    heads = [(layer, head) for layer, count in enumerate(result.shape.heads) for head in range(count)]
    return {
        f"{layer}.{head}, {method.method}": Interval(float(method.loss.heads[layer, head]), None, None)
        for method in result.methods
        for layer, head in heads
    }


def _of_interactions(result: InteractionResult) -> Figures:
    pairs = {f"{' and '.join(pair.pair)}, interaction": pair.interaction for pair in result.pairs}
    return {f"{head}, {result.method}": change for head, change in result.singles.items()} | pairs


def _of_comparison(result: ComparisonResult) -> Figures:
    metric = metric_of(result).name
    return {f"{head.head}, difference by {result.method}": head.difference[metric] for head in result.heads}


def _of_floor(result: NoiseFloor) -> Figures:
    return {"noise floor": Interval((result.low + result.high) / 2, result.low, result.high)}


def _interval(span: dict[str, Any]) -> Interval:
    mean = math.nan if span["mean"] is None else span["mean"]
    return Interval(mean, span["low"], span["high"])


_FIGURES: dict[type, Callable[[Any], Figures]] = {
    AblationResult: _of_ablation,
    SweepResult: _of_sweep,
    AdaptiveResult: lambda result: _of_sweep(result.as_sweep()),
    PositionMapResult: lambda result: _of_sweep(result.cells),
    CurveResult: _of_curve,
    EstimateResult: _of_estimate,
    InteractionResult: _of_interactions,
    ComparisonResult: _of_comparison,
    HeadDescription: lambda found: _of_ablation(found.total_effect),
    NoiseFloor: _of_floor,
}
