"""The head map: estimates of every head first, and then the exact sweep in the order of their size.

Or an adaptive sweep, which gives each head only the predictions that its verdict needs, in the form of a sweep's result.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ablation_core.activations.statistics import Statistics
from ablation_core.cluster.driver import Progress, steps_at
from ablation_core.data.dataset import Data
from ablation_core.experiments.estimate import EstimateRun
from ablation_core.experiments.estimate_result import Estimated, EstimateResult
from ablation_core.models.loaded import LoadedModel
from ablation_core.report.run_frames import HeadEstimates
from ablation_core.runs.adaptive import AdaptiveSpec, adaptive_steps
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.runs.sweep import SweepSpec
from ablation_core.runs.sweep_result import SweepResult, every_head
from ablation_core.selection import Head
from ablation_core.server.lru import LRU


@dataclass(frozen=True, eq=False)
class Instant:
    """An estimate after some batches; None before the first."""

    result: EstimateResult | None
    share: float


def estimate_steps(
    model: LoadedModel, data: Data, spec: SweepSpec, statistics: Statistics | None, store: LRU, key: str
) -> Generator[Instant]:
    """Estimate every head by all methods but learned ones; the newest estimate is put into `store` under `key` after
    each batch. Without such a method, without gradients, or where answers have several tokens, there is none.
    """
    yield Instant(None, 0.0)
    methods = [method for method in spec.methods if not method.learned]
    if not methods or not data.one_answer:
        return
    run = EstimateRun(model, data, methods, statistics=statistics, bins=spec.bins, positions=spec.positions)
    while run.steps_done < run.steps:
        try:
            run.step()
        except RuntimeError:  # such as kernels of whole numbers, which have no gradient, or too little memory for it
            return
        yield store.keep(key, Instant(run.result(), run.steps_done / run.steps))


def refined_steps(
    model: LoadedModel,
    data: Data,
    spec: SweepSpec,
    statistics: Statistics | None,
    store: LRU,
    key: str,
    folder: Path,
    address: str | None = None,
) -> Generator[Instant | SweepResult | CurveResult | Progress]:
    """The estimate, where there is one and it is not whole yet, and then the exact sweep, the largest estimates first; the
    sweep in this process or on the cluster at an address.

    While it estimates, the share of the work done is given as 0: the sweep is the work.
    """
    instant = store.get(key)
    if instant is None or instant.share < 1:
        for instant in estimate_steps(model, data, spec, statistics, store, key):
            yield replace(instant, share=0.0)
    assert instant is not None
    ordered = spec if instant.result is None else replace(spec, heads=heads_by_size(model, instant.result))
    yield from steps_at(address, model, data, ordered, statistics, folder)


def adaptive_sweeps(
    model: LoadedModel,
    data: Data,
    spec: SweepSpec,
    statistics: Statistics | None,
    store: LRU,
    key: str,
    folder: Path,
) -> Generator[SweepResult]:
    """An adaptive sweep by the spec's methods; the newest map is put into `store` under `key`."""
    methods = tuple(method for method in spec.methods if not method.learned)
    for result in adaptive_steps(model, data, AdaptiveSpec(methods, spec.bins), statistics, folder):
        yield store.keep(key, result.as_sweep())


def decided(result: SweepResult) -> bool:
    """Whether an adaptive map has no undecided head left."""
    return all(
        method in result.rows.get(head, {}) and result.rows[head][method]["verdict"] != "open"
        for head in result.wanted
        for method in result.methods
    )


def heads_by_size(model: LoadedModel, result: EstimateResult) -> tuple[Head, ...]:
    """All heads, the one with the largest estimated change of loss by any method first; those without a number last."""
    sizes = np.max([np.nan_to_num(np.abs(method.loss.heads), nan=-1.0) for method in result.methods], axis=0)
    return tuple(sorted(every_head(model), key=lambda head: -sizes[head]))


def head_estimates(instant: Instant | None, method: str, metric: str) -> HeadEstimates:
    """Head → estimate and its standard error, for the metrics that are estimated; else nothing."""
    part = _part(instant, method, metric)
    if part is None:
        return {}
    return {
        f"{layer}.{head}": (float(part.heads[layer, head]), float(part.heads_error[layer, head]))
        for layer, head in np.argwhere(np.isfinite(part.heads)).tolist()
    }


def predictions(instant: Instant | None) -> int:
    """How many an estimate has seen so far."""
    return 0 if instant is None or instant.result is None else instant.result.description["data"]["predictions"]


def neuron_estimates(instant: Instant | None, method: str, metric: str) -> pd.DataFrame:
    """One row per neuron of the model: its estimate and its standard error, the largest first; empty where there is none."""
    part = _part(instant, method, metric)
    if part is None:
        return pd.DataFrame(columns=["label", "layer", "head", "neuron", "estimate", "error"])
    places = np.argwhere(np.isfinite(part.neurons))
    frame = pd.DataFrame(places, columns=["layer", "head", "neuron"])
    frame["estimate"], frame["error"] = part.neurons[tuple(places.T)], part.neurons_error[tuple(places.T)]
    names = [f"{layer}.{head}:{neuron}" for layer, head, neuron in places.tolist()]
    frame.insert(0, "label", names)
    return frame.sort_values("estimate", key=lambda value: -abs(value), ignore_index=True)


def _part(instant: Instant | None, method: str, metric: str) -> Estimated | None:
    if instant is None or instant.result is None:
        return None
    return next((made.changes.get(metric) for made in instant.result.methods if made.method == method), None)
