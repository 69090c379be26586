"""The sentences that stand above a result in a notebook: those of the pages, the main one first."""

from __future__ import annotations

import math

import numpy as np

from ablation_core.activations.neuron_summary import NeuronSummary, peak_distance
from ablation_core.activations.statistics import Statistics, not_finite_sentence
from ablation_core.engine.metrics import METRICS, main_metric
from ablation_core.experiments.estimate_result import EstimateResult, MethodEstimate
from ablation_core.experiments.interaction_result import InteractionResult
from ablation_core.experiments.noise_floor import NoiseFloor
from ablation_core.experiments.results import AblationResult
from ablation_core.heads.describe import HeadDescription
from ablation_core.report.numbers import interval_text, number, span_text
from ablation_core.report.run_sentences import adaptive_sentence, curve_sentence, shown_sentence, sweep_sentence
from ablation_core.report.sentences import comparison, floor_words, verdict
from ablation_core.runs.adaptive import AdaptiveResult
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.runs.sweep_result import SweepResult

_CHANGE = METRICS["loss"].change_format


def ablation_sentences(result: AblationResult) -> list[str]:
    """What the method with the largest change of loss does, and how the methods compare."""

    def size(mean: float) -> float:
        return abs(mean) if math.isfinite(mean) else math.inf

    largest = max(result.results, key=lambda row: size(row.change["loss"].mean))
    return [verdict(result, largest.method), comparison(result)]


def sweep_sentences(result: SweepResult) -> list[str]:
    metric = main_metric(result.metrics).name
    return [*(sweep_sentence(result, method, metric) for method in result.methods), shown_sentence(result.description)]


def adaptive_sentences(result: AdaptiveResult) -> list[str]:
    sweep, metric = result.as_sweep(), result.metric.name
    found = [f"{sweep_sentence(sweep, name, metric)} {adaptive_sentence(sweep, name)}" for name in sweep.methods]
    return [*found, shown_sentence(result.description)]


def curve_sentences(result: CurveResult) -> list[str]:
    return [curve_sentence(result, main_metric(result.metrics).name), shown_sentence(result.description)]


def estimate_sentences(result: EstimateResult) -> list[str]:
    """The head of the largest estimated change by each method, and what such an estimate is."""
    kind = "Second-order estimates from gradients: no head was ablated, and large displacements can differ."
    return [*map(_largest, result.methods), kind, shown_sentence(result.description | {"bins": result.bins})]


def _largest(estimate: MethodEstimate) -> str:
    heads = estimate.largest(1)
    if not heads:
        return f"With {estimate.method}, no head has a finite estimate."
    (place,) = heads
    error = estimate.loss.heads_error[place]
    spread = f" (standard error {number(float(error), '.4f')})" if math.isfinite(error) else ""
    return (
        f"With {estimate.method}, the largest estimated change of loss is head {place[0]}.{place[1]}'s: "
        f"**{number(float(estimate.loss.heads[place]), _CHANGE)} nats per prediction**{spread}."
    )


def floor_sentences(floor: NoiseFloor) -> list[str]:
    missing = "" if floor.sets == floor.sets_wanted else f" ({floor.sets_wanted - floor.sets} sets are missing)"
    return [
        f"Noise floor of the loss, {floor_words(floor.sets)}: "
        f"{span_text(floor.low, floor.high, _CHANGE)} nats per prediction{missing}."
    ]


def interaction_sentences(result: InteractionResult) -> list[str]:
    """What all heads together do, and the pair with the largest interaction."""
    metric = METRICS[result.metric]
    unit = metric.per_prediction(" ")
    joint = interval_text(result.joint.mean, result.joint.low, result.joint.high, metric.change_format)
    text = f"Without {', '.join(result.singles)} together, by {result.method}, {metric.noun} changes by {joint}{unit}."
    pairs = [pair for pair in result.pairs if math.isfinite(pair.interaction.mean)]
    if not pairs:
        return [text]
    most = max(pairs, key=lambda pair: abs(pair.interaction.mean))
    span = interval_text(most.interaction.mean, most.interaction.low, most.interaction.high, metric.change_format)
    return [text, f"Largest interaction: **{' and '.join(most.pair)}**, {span}{unit} ({most.verdict})."]


def head_sentences(found: HeadDescription) -> list[str]:
    return [*ablation_sentences(found.total_effect), *found.notes]


def summary_sentences(summary: NeuronSummary) -> list[str]:
    return [summary.sentence]


def statistics_sentences(statistics: Statistics) -> list[str]:
    """What they were made from, and the neuron whose peak lies farthest from its mean."""
    made = statistics.provenance
    distance = np.nan_to_num(np.abs(peak_distance(statistics, 100)))
    layer, head, neuron = (int(place) for place in np.unravel_index(distance.argmax(), distance.shape))
    text = (
        f"Statistics of {made['model']} from {made['tokens']:,} positions of {made['data']} ({made['split']} part). The "
        f"peak (100 bins) lies farthest from the mean in {layer}.{head}:{neuron}: "
        f"**{distance[layer, head, neuron]:.2f} std**."
    )
    broken = not_finite_sentence(statistics)
    return [text, f"{broken[0].upper()}{broken[1:]}" if broken else ""]
