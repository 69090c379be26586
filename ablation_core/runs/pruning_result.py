"""What pruning curves have found so far: their points, bands over seeds, areas, and ranks of the methods."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from ablation_core.engine.metrics import METRICS
from ablation_core.presentation import Presented
from ablation_core.stats.intervals import equal_ranks_p_value, paired_t_test
from ablation_core.storage import as_number

TABLE_AT = (50, 90)


@dataclass(frozen=True)
class CurveResult(Presented):
    """A curve after any number of finished points.

    Attributes:
        description: the model, the data, the statistics, the names of the `methods`, the `seeds` and the `percents`.
        points: (seed, percent) → method → its row, as in the document of `ablate`; those measured so far.
        share: of the work that was asked for, how much is done.
        provenance: when, where and by which versions it was finished; empty where it was found in the cache folder.
        predictions: a point's `point_name` → its changes of single predictions (`kept/prediction_files.py`); in no document,
            and None where none were kept.
    """

    description: dict
    baseline: dict | None
    points: dict[tuple[int, int], dict[str, dict]]
    share: float = 1.0
    provenance: dict = field(default_factory=dict)
    predictions: Mapping[str, Mapping[str, np.ndarray]] | None = field(default=None, compare=False, repr=False)

    @property
    def names(self) -> list[str]:
        """The measured points, as the ledger names them."""
        return [point_name(*place) for place in self.points]

    @property
    def complete(self) -> bool:
        """Whether every seed has every step by every method."""
        methods, seeds, percents = (self.description[name] for name in ("methods", "seeds", "percents"))
        wanted = [self.points.get((seed, percent), {}) for seed in seeds for percent in percents]
        return all(method in rows for rows in wanted for method in methods)

    @property
    def metrics(self) -> list[str]:
        """Those that curves are drawn of and that every point has; all of the former, where there is none yet."""
        rows = [row for methods in self.points.values() for row in methods.values()]
        return [name for name, metric in METRICS.items() if metric.curve and all(name in row for row in rows)]

    def to_dict(self) -> dict:
        """The JSON document of `python -m ablation_core curve --json`: every point, and the summaries over seeds."""
        methods = self.description["methods"]
        return self.description | {
            "positions": self.description.get("positions", "all"),
            "provenance": self.provenance,
            "baseline": self.baseline,
            "points": [
                {"seed": seed, "percent": percent, "results": [rows[method] for method in methods if method in rows]}
                for (seed, percent), rows in sorted(self.points.items())
            ],
            "table": [
                {
                    "percent": percent,
                    "method": method,
                    **{metric: self.band(method, metric, percent) for metric in self.metrics},
                }
                for percent in TABLE_AT
                if percent in self.description["percents"]
                for method in methods
            ],
            "mean_height": {
                metric: {method: list(map(as_number, self.heights(method, metric))) for method in methods}
                for metric in self.metrics
            },
            "ranks": {metric: self.ranks(metric) for metric in self.metrics},
        }

    def value(self, seed: int, percent: int, method: str, metric: str) -> float:
        """NaN where the point is not measured yet, or the model gave no numbers."""
        value = self.points.get((seed, percent), {}).get(method, {}).get(metric)
        return math.nan if value is None else value

    def band(self, method: str, metric: str, percent: int) -> dict[str, float | None]:
        """The mean over seeds with the least and the greatest; None until all seeds have the point."""
        values = [self.value(seed, percent, method, metric) for seed in self.description["seeds"]]
        figures = {"mean": np.mean(values), "low": np.min(values), "high": np.max(values)}
        return {name: as_number(float(figure)) for name, figure in figures.items()}

    def heights(self, method: str, metric: str) -> list[float]:
        """The mean height of each seed's curve: the area under it, divided by its width. NaN while points are missing."""
        percents = np.array(self.description["percents"], dtype=float)
        curves = [[self.value(seed, int(p), method, metric) for p in percents] for seed in self.description["seeds"]]
        if len(percents) == 1:
            return [curve[0] for curve in curves]
        from scipy.integrate import trapezoid

        return [float(trapezoid(curve, percents) / np.ptp(percents)) for curve in curves]

    def ranks(self, metric: str) -> dict:
        """Each method's mean rank by that height over the seeds, 1 the least harmful, with tests paired over the seeds.

        `p` is Friedman's test of equal ranks; None where there are fewer than three methods or seeds, or where all are
        alike. `behind` holds, for every method but the first-ranked (`best`), how much more harm it does: the mean over
        seeds of the difference of heights, for the worse, its 95% t interval, and the p of a paired t-test;
        None for a single seed. With three seeds these tests can tell little. All is None while points are missing.
        """
        from scipy.stats import rankdata  # over a second to import

        methods = self.description["methods"]
        heights = np.array([self.heights(method, metric) for method in methods])
        harm = np.nan_to_num(METRICS[metric].worse * heights, nan=np.inf)
        if not self.complete:
            return {"mean_rank": dict.fromkeys(methods), "p": None, "best": None, "behind": {}}

        mean_ranks = rankdata(harm, axis=0).mean(axis=1)
        p = equal_ranks_p_value(harm)
        best = min(range(len(methods)), key=lambda row: (mean_ranks[row], harm[row].mean()))
        behind = {method: _paired(harm[row], harm[best]) for row, method in enumerate(methods) if row != best}
        ranks = dict(zip(methods, map(float, mean_ranks), strict=True))
        return {"mean_rank": ranks, "p": p, "best": methods[best], "behind": behind}


def point_name(seed: int, percent: int) -> str:
    """A point's name in the ledger."""
    return f"seed {seed}, {percent} %"


def _paired(harm: np.ndarray, least: np.ndarray) -> dict[str, float | None]:
    if not np.isfinite(harm - least).all():
        return dict.fromkeys(("mean", "low", "high", "p"))
    test = paired_t_test(harm, least)
    return asdict(test.interval) | {"p": None if test.p is None else as_number(test.p)}
