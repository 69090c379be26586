"""Pruning curves: more and more neurons ablated, drawn at random in every layer, the same for every method.

The paper's experiment (Pochinkov, Pasero, Shibayama 2024): a seed fixes an order of each layer's neurons, and a step
ablates the first so many per cent of it, so that each step's neurons contain the last one's.
"""

import math
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.integrate import trapezoid
from scipy.stats import friedmanchisquare, rankdata, t, ttest_rel

from ablation_core.data import Data, checked_seed
from ablation_core.describe import describe_run
from ablation_core.engine import Recording
from ablation_core.engines import LOCAL, Engine, measure_pieces
from ablation_core.errors import DataError
from ablation_core.experiment import DEFAULT_BINS
from ablation_core.forms import fits
from ablation_core.ledger import open_ledger
from ablation_core.methods import Method
from ablation_core.metrics import CONFIDENCE
from ablation_core.models import LoadedModel
from ablation_core.pieces import Piece, Rows, kept_baseline, kept_rows, kept_runs
from ablation_core.results import as_number
from ablation_core.selection import Selection, Shape
from ablation_core.statistics import Statistics

SEEDS = (42, 123, 456)
PERCENTS = tuple(range(0, 101, 10))
TABLE_AT = (50, 90)
METRICS = ("loss", "top1")
MOST_SEEDS = 20  # that a page measures


@dataclass(frozen=True)
class CurveSpec:
    """What is decided before a curve is measured.

    Attributes:
        seeds: each an order of every layer's neurons.
        percents: the steps.
        whole_heads: draw heads instead of single neurons.

    Raises:
        DataError: a seed or a step cannot be.
    """

    methods: tuple[Method, ...]
    bins: int = DEFAULT_BINS
    seeds: tuple[int, ...] = SEEDS
    percents: tuple[int, ...] = PERCENTS
    whole_heads: bool = False

    def __post_init__(self) -> None:
        if not self.seeds or not self.percents or not all(0 <= percent <= 100 for percent in self.percents):
            raise DataError("A curve needs at least one seed, and steps between 0 and 100 per cent.")
        for name in ("seeds", "percents"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))
        for seed in self.seeds:
            checked_seed(seed)


def read_seeds(text: str) -> tuple[int, ...]:
    """The seeds as a person writes them: `42 123 456`.

    Raises:
        DataError: they are no whole numbers, or too many.
    """
    try:
        seeds = tuple(int(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        raise DataError(f"Cannot read the seeds {text[:60]!r}: write whole numbers such as 42 123 456.") from error
    if len(seeds) > MOST_SEEDS:
        raise DataError(f"Those are {len(seeds)} seeds; at most {MOST_SEEDS} are measured here.")
    return seeds


@dataclass(frozen=True)
class CurveResult:
    """A curve after any number of finished points.

    Attributes:
        description: the model, the data, the statistics, the names of the `methods`, the `seeds` and the `percents`.
        points: (seed, percent) → method → its row, as in the document of `ablate`; those measured so far.
        share: of the work that was asked for, how much is done.
    """

    description: dict
    baseline: dict | None
    points: dict[tuple[int, int], dict[str, dict]]
    share: float = 1.0

    @property
    def complete(self) -> bool:
        """Whether every seed has every step by every method."""
        methods, seeds, percents = (self.description[name] for name in ("methods", "seeds", "percents"))
        wanted = [self.points.get((seed, percent), {}) for seed in seeds for percent in percents]
        return all(method in rows for rows in wanted for method in methods)

    def to_dict(self) -> dict:
        """The JSON document of `python -m ablation_core curve --json`: every point, and the summaries over seeds."""
        methods = self.description["methods"]
        return self.description | {
            "baseline": self.baseline,
            "points": [
                {"seed": seed, "percent": percent, "results": [rows[method] for method in methods if method in rows]}
                for (seed, percent), rows in sorted(self.points.items())
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
        return [float(trapezoid(curve, percents) / np.ptp(percents)) for curve in curves]

    def ranks(self, metric: str) -> dict:
        """Each method's mean rank by that height over the seeds, 1 the least harmful, with tests paired over the seeds.

        `p` is Friedman's test of equal ranks; None where there are fewer than three methods or seeds, or where all are
        alike. `behind` holds, for every method but the first-ranked (`best`), how much more harm it does: the mean over
        seeds of the difference of heights (a loss, or a top-1, lost), its 95 % t interval, and the p of a paired t-test;
        None for a single seed. With three seeds these tests can tell little. All is None while points are missing.
        """
        methods = self.description["methods"]
        heights = np.array([self.heights(method, metric) for method in methods])
        harm = np.nan_to_num(heights if metric == "loss" else -heights, nan=np.inf)
        if not self.complete:
            return {"mean_rank": dict.fromkeys(methods), "p": None, "best": None, "behind": {}}
        mean_ranks = rankdata(harm, axis=0).mean(axis=1)
        p = as_number(friedmanchisquare(*harm).pvalue) if min(harm.shape) >= 3 else None
        best = min(range(len(methods)), key=lambda row: (mean_ranks[row], harm[row].mean()))
        behind = {method: _paired(harm[row], harm[best]) for row, method in enumerate(methods) if row != best}
        ranks = dict(zip(methods, map(float, mean_ranks), strict=True))
        return {"mean_rank": ranks, "p": p, "best": methods[best], "behind": behind}


def _paired(harm: np.ndarray, least: np.ndarray) -> dict[str, float | None]:
    if not np.isfinite(harm - least).all():
        return dict.fromkeys(("mean", "low", "high", "p"))
    differences = harm - least
    mean, size = float(differences.mean()), len(differences)
    if size < 2:
        return {"mean": mean, "low": None, "high": None, "p": None}
    wide = t.ppf((1 + CONFIDENCE) / 2, size - 1) * differences.std(ddof=1) / math.sqrt(size)
    p = as_number(ttest_rel(harm, least).pvalue) if np.ptp(differences) else None
    return {"mean": mean, "low": float(mean - wide), "high": float(mean + wide), "p": p}


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


def describe_curve(model: LoadedModel, data: Data, statistics: Statistics | None, bins: int, whole_heads: bool) -> dict:
    """What decides a curve's numbers, and so its ledger; `classes` is among how many answers the model chooses."""
    classes = len(model.labels) if model.modality == "vision" else model.config.vocab_size
    decided = {"bins": bins, "whole_heads": whole_heads, "classes": classes}
    return describe_run(model, data, statistics) | decided


def curve_steps(
    model: LoadedModel,
    data: Data,
    spec: CurveSpec,
    statistics: Statistics | None,
    folder: Path,
    recording: Recording | None = None,
    engine: Engine = LOCAL,
) -> Generator[CurveResult]:
    """Measure the curves; yields the result so far, at first with what an earlier run left, then after each batch.

    Every seed's first step comes first, then every seed's second: an early look shows all seeds.

    Args:
        folder: the cache folder, where finished points are kept.
        recording: clean passes of the same model and data to share with other experiments.
        engine: what measures them; the result does not depend on it.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    description = describe_curve(model, data, statistics, spec.bins, spec.whole_heads)
    recording = recording or Recording(model, data)
    pieces = [
        Piece(_name(seed, percent), pruned(model.shape, percent, seed, spec.whole_heads))
        for percent in spec.percents
        for seed in spec.seeds
    ]
    with open_ledger(folder, "curve", description) as ledger:
        count, result = len(ledger.done), _result(description | _asked(spec), ledger.done)
        for share in measure_pieces(pieces, spec.methods, spec.bins, statistics, recording, ledger, engine):
            if len(ledger.done) != count:
                count = len(ledger.done)
                result = _result(description | _asked(spec), ledger.done)
            yield replace(result, share=share)


def curve(
    model: LoadedModel,
    data: Data,
    spec: CurveSpec,
    statistics: Statistics | None,
    folder: Path,
    progress: Callable[[float], None] = lambda share: None,
    engine: Engine = LOCAL,
) -> CurveResult:
    """The whole curves, `curve_steps` to its end; `progress` is called with the share done, after each batch."""
    for result in curve_steps(model, data, spec, statistics, folder, engine=engine):
        progress(result.share)
    return result


def kept_curves(model: LoadedModel, folder: Path, spec: CurveSpec | None = None) -> dict[Path, CurveResult]:
    """What curves of this model have left in the cache folder, by their files: the one with the most predictions first.

    Args:
        spec: whose methods, seeds and steps are taken; by default those that have any point.
    """
    kept = []
    for run in kept_runs(folder, "curve", model.fingerprint):
        rows = kept_rows(run.done)
        places = [_place(name) for name in rows if _PLACE.fullmatch(name)]
        if not places or not fits(run.run, {"whole_heads": bool, "classes": int}) or run.run["classes"] < 1:
            continue
        asked = {
            "methods": sorted({method for point in rows.values() for method in point}),
            "seeds": sorted({seed for seed, _ in places}),
            "percents": sorted({percent for _, percent in places}),
        }
        kept.append((run.path, _result(run.run | (_asked(spec) if spec else asked), run.done)))
    return dict(sorted(kept, key=lambda run: (-run[1].description["data"]["predictions"], -len(run[1].points))))


def _asked(spec: CurveSpec) -> dict:
    methods = [method.name for method in spec.methods]
    return {"methods": methods, "seeds": list(spec.seeds), "percents": list(spec.percents)}


def _result(description: dict, done: Mapping[str, dict]) -> CurveResult:
    """The points of the seeds and steps asked for, whatever else the ledger has."""
    rows: Rows = kept_rows(done)
    wanted = {(seed, percent) for seed in description["seeds"] for percent in description["percents"]}
    points = {place: rows[_name(*place)] for place in sorted(wanted) if _name(*place) in rows}
    return CurveResult(description, kept_baseline(done), points)


def _name(seed: int, percent: int) -> str:
    return f"seed {seed}, {percent} %"


_PLACE = re.compile(r"seed [0-9]{1,4000}, [0-9]{1,3} %")


def _place(name: str) -> tuple[int, int]:
    seed, percent = name.removeprefix("seed ").removesuffix(" %").split(", ")
    return int(seed), int(percent)
