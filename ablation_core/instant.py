"""The head map at once: estimates first, for every head, and then the exact sweep in the order of their size."""

from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ablation_core.data import Data
from ablation_core.estimate import EstimateResult, EstimateRun
from ablation_core.models import LoadedModel
from ablation_core.run_frames import Estimates
from ablation_core.selection import Head
from ablation_core.statistics import Statistics
from ablation_core.sweep import SweepResult, SweepSpec, every_head, sweep_steps

KEPT = 16  # estimates of a server, the oldest dropped first


@dataclass(frozen=True, eq=False)
class Instant:
    """An estimate after some batches; None before the first."""

    result: EstimateResult | None
    share: float


def estimate_steps(
    model: LoadedModel, data: Data, spec: SweepSpec, statistics: Statistics | None, store: OrderedDict, key: str
) -> Generator[Instant]:
    """Estimate every head by all methods; the newest estimate is put into `store` under `key` after each batch."""
    yield Instant(None, 0.0)
    methods = [method for method in spec.methods if not method.learned]
    run = EstimateRun(model, data, methods, statistics, spec.bins)
    while run.steps_done < run.steps:
        run.step()
        store[key] = Instant(run.result(), run.steps_done / run.steps)
        while len(store) > KEPT:
            store.popitem(last=False)
        yield store[key]


def refined_steps(
    model: LoadedModel,
    data: Data,
    spec: SweepSpec,
    statistics: Statistics | None,
    store: OrderedDict,
    key: str,
    folder: Path,
) -> Generator[Instant | SweepResult]:
    """The estimate, where it is not whole yet, and then the exact sweep, the largest estimates first.

    While it estimates, the share of the work done is given as 0: the sweep is the work.
    """
    if key not in store or store[key].share < 1:
        for instant in estimate_steps(model, data, spec, statistics, store, key):
            yield replace(instant, share=0.0)
    yield from sweep_steps(
        model, data, replace(spec, heads=heads_by_size(model, store[key].result)), statistics, folder
    )


def heads_by_size(model: LoadedModel, result: EstimateResult) -> tuple[Head, ...]:
    """All heads, the one with the largest estimated change of loss by any method first; those without a number last."""
    sizes = np.max([np.nan_to_num(np.abs(method.loss.heads), nan=-1.0) for method in result.methods], axis=0)
    return tuple(sorted(every_head(model), key=lambda head: -sizes[head]))


def head_estimates(instant: Instant | None, method: str, metric: str) -> Estimates:
    """Head → estimate and its standard error, for the measures that are estimated: loss and KL; else nothing."""
    if instant is None or instant.result is None or metric not in ("loss", "kl"):
        return {}
    for estimated in instant.result.methods:
        if estimated.method == method:
            part = getattr(estimated, metric)
            return {
                f"{layer}.{head}": (float(part.heads[layer, head]), float(part.heads_error[layer, head]))
                for layer, head in np.argwhere(np.isfinite(part.heads)).tolist()
            }
    return {}
