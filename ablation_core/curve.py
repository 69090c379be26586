"""Pruning curves: more and more neurons ablated, drawn at random in every layer, the same for every method.

The paper's experiment (Pochinkov, Pasero, Shibayama 2024): a seed fixes an order of each layer's neurons, and a step
ablates the first so many per cent of it, so that each step's neurons contain the last one's.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.integrate import trapezoid
from scipy.stats import friedmanchisquare, rankdata

from ablation_core.data import Data, checked_seed
from ablation_core.describe import describe_run
from ablation_core.engine import Recording
from ablation_core.errors import DataError
from ablation_core.experiment import AblationRun, AblationSpec
from ablation_core.ledger import open_ledger
from ablation_core.methods import Method
from ablation_core.models import LoadedModel
from ablation_core.results import as_number
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
            "mean_height": {
                metric: {method: list(map(as_number, self.heights(method, metric))) for method in methods}
                for metric in METRICS
            },
            "ranks": {metric: self.ranks(metric) for metric in METRICS},
        }

    def value(self, seed: int, percent: int, method: str, metric: str) -> float:
        """NaN where the model gave no numbers."""
        results = self.points[seed, percent]["results"]
        value = next(row[metric] for row in results if row["method"] == method)
        return math.nan if value is None else value

    def band(self, method: str, metric: str, percent: int) -> dict[str, float | None]:
        """The mean over seeds with the least and the greatest."""
        values = [self.value(seed, percent, method, metric) for seed in self.description["seeds"]]
        return {"mean": as_number(np.mean(values)), "low": as_number(min(values)), "high": as_number(max(values))}

    def heights(self, method: str, metric: str) -> list[float]:
        """The mean height of each seed's curve: the area under it, divided by the width of its steps."""
        percents = np.array(self.description["percents"], dtype=float)
        curves = [[self.value(seed, p, method, metric) for p in percents] for seed in self.description["seeds"]]
        if len(percents) == 1:
            return [curve[0] for curve in curves]
        return [float(trapezoid(curve, percents) / np.ptp(percents)) for curve in curves]

    def ranks(self, metric: str) -> dict:
        """Each method's mean rank by that height over the seeds, 1 the least harmful; Friedman's test of equal ranks.

        With three seeds the test can tell little; `p` is None where there are fewer than three methods or seeds, or
        where all are alike.
        """
        methods = self.description["methods"]
        heights = np.array([self.heights(method, metric) for method in methods])
        harm = np.nan_to_num(heights if metric == "loss" else -heights, nan=np.inf)
        mean_ranks = rankdata(harm, axis=0).mean(axis=1)
        p = as_number(friedmanchisquare(*harm).pvalue) if min(harm.shape) >= 3 else None
        return {"mean_rank": dict(zip(methods, map(float, mean_ranks), strict=True)), "p": p}


def pruned(shape: Shape, percent: int, seed: int, whole_heads: bool = False) -> Selection:
    """The neurons (or whole heads) of each layer that a seed's order puts first, so many per cent of the layer's."""
    masks = []
    for layer, heads in enumerate(shape.heads):
        units, size = (heads, shape.head_dim) if whole_heads else (heads * shape.head_dim, 1)
        order = np.random.default_rng((seed, layer)).permutation(units)
        chosen = np.zeros(units, dtype=bool)
        chosen[order[: round(units * percent / 100)]] = True
        masks.append(chosen.repeat(size))
    return Selection.of_masks(masks, shape)


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
    for seed in seeds:
        checked_seed(seed)
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
                document = run.finish().result().to_dict()
                ledger.add(name, {"neurons": len(selection), "results": document["results"]})
            progress(done, len(wanted))
        points = {(seed, percent): ledger.done[f"seed {seed}, {percent} %"] for seed, percent in wanted}
    return CurveResult(description | {"seeds": seeds, "percents": percents}, points)
