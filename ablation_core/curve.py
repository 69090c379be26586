"""Pruning curves: more and more neurons ablated, drawn at random in every layer, the same for every method.

The paper's experiment (Pochinkov, Pasero, Shibayama 2024): a seed fixes an order of each layer's neurons, and a step
ablates the first so many per cent of it, so that each step's neurons contain the last one's.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.integrate import trapezoid
from scipy.stats import friedmanchisquare, rankdata

from ablation_core.data import Data
from ablation_core.describe import describe_run
from ablation_core.engine import Recording
from ablation_core.errors import DataError
from ablation_core.experiment import AblationRun, AblationSpec
from ablation_core.ledger import open_ledger
from ablation_core.methods import Method
from ablation_core.models import LoadedModel
from ablation_core.selection import Selection, Shape
from ablation_core.statistics import Statistics

SEEDS = (42, 123, 456)
PERCENTS = tuple(range(0, 101, 10))
TABLE_AT = (50, 90)
METRICS = ("loss", "top1")


@dataclass(frozen=True)
class CurveResult:
    """`points[(seed, percent)]` holds each method's loss, top-1 and so on."""

    description: dict
    points: dict[tuple[int, int], dict]

    def to_dict(self) -> dict:
        """The JSON document of `python -m ablation_core curve --json`: every point, and the summaries over seeds."""
        methods = self.description["methods"]
        return self.description | {
            "points": [
                {"seed": seed, "percent": percent, **record} for (seed, percent), record in sorted(self.points.items())
            ],
            "table": [
                {
                    "percent": percent,
                    "method": method,
                    **{metric: self.band(method, metric, percent) for metric in METRICS},
                }
                for percent in TABLE_AT
                if percent in self.description["percents"]
                for method in methods
            ],
            "area": {metric: {method: self.areas(method, metric) for method in methods} for metric in METRICS},
            "ranks": {metric: self.ranks(metric) for metric in METRICS},
        }

    def value(self, seed: int, percent: int, method: str, metric: str) -> float:
        results = self.points[seed, percent]["results"]
        return next(row[metric] for row in results if row["method"] == method)

    def band(self, method: str, metric: str, percent: int) -> dict[str, float]:
        """The mean over seeds with the least and the greatest."""
        values = [self.value(seed, percent, method, metric) for seed in self.description["seeds"]]
        return {"mean": float(np.mean(values)), "low": min(values), "high": max(values)}

    def areas(self, method: str, metric: str) -> list[float]:
        """The area under each seed's curve, the share of neurons running from 0 to 1."""
        percents = self.description["percents"]
        curves = [
            [self.value(seed, percent, method, metric) for percent in percents] for seed in self.description["seeds"]
        ]
        return [float(trapezoid(curve, np.array(percents) / 100)) for curve in curves]

    def ranks(self, metric: str) -> dict:
        """Each method's mean rank by area over the seeds, 1 the least harmful; and Friedman's test of equal ranks.

        With three seeds the test can tell little; `p` is None where there are fewer than three methods or seeds.
        """
        methods = self.description["methods"]
        areas = np.array([self.areas(method, metric) for method in methods])
        harm = areas if metric == "loss" else -areas
        mean_ranks = rankdata(harm, axis=0).mean(axis=1)
        p = float(friedmanchisquare(*harm).pvalue) if min(harm.shape) >= 3 else None
        return {"mean_rank": dict(zip(methods, map(float, mean_ranks), strict=True)), "p": p}


def pruned(shape: Shape, percent: int, seed: int, whole_heads: bool = False) -> Selection:
    """The neurons (or whole heads) of each layer that a seed's order puts first, so many per cent of the layer's."""
    terms = []
    for layer, heads in enumerate(shape.heads):
        generator = np.random.default_rng((seed, layer))
        if whole_heads:
            chosen = generator.permutation(heads)[: round(heads * percent / 100)]
            terms += [f"{layer}.{head}" for head in chosen]
        else:
            width = heads * shape.head_dim
            chosen = generator.permutation(width)[: round(width * percent / 100)]
            terms += [f"{layer}.{place // shape.head_dim}:{place % shape.head_dim}" for place in chosen]
    return Selection.parse(" ".join(terms), shape)


def curve(
    model: LoadedModel,
    data: Data,
    methods: Iterable[Method],
    statistics: Statistics | None,
    bins: int,
    folder: Path,
    seeds: Sequence[int] = SEEDS,
    percents: Sequence[int] = PERCENTS,
    whole_heads: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CurveResult:
    """Measure the curves of these methods; finished points are kept in `folder` and not computed again.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    if not seeds or not percents or not all(0 <= percent <= 100 for percent in percents):
        raise DataError("A curve needs at least one seed, and steps between 0 and 100 per cent.")
    methods, seeds, percents = tuple(methods), sorted(set(seeds)), sorted(set(percents))
    decided = {"bins": bins, "methods": [method.name for method in methods], "whole_heads": whole_heads}
    description = describe_run(model, data, statistics) | decided
    recording = Recording(model, data)
    wanted = [(seed, percent) for seed in seeds for percent in percents]
    with open_ledger(folder, "curve", description) as ledger:
        for done, (seed, percent) in enumerate(wanted, 1):
            name = f"seed {seed}, {percent} %"
            if name not in ledger.done:
                selection = pruned(model.shape, percent, seed, whole_heads)
                run = AblationRun(model, data, AblationSpec(selection, methods, bins, data.seed), statistics, recording)
                while run.steps_done < run.steps:
                    run.step()
                document = run.result().to_dict()
                ledger.add(name, {"neurons": len(selection), "results": document["results"]})
            progress(done, len(wanted))
        points = {(seed, percent): ledger.done[f"seed {seed}, {percent} %"] for seed, percent in wanted}
    return CurveResult(description | {"seeds": seeds, "percents": percents}, points)
