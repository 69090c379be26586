"""Pruning curves: more and more neurons ablated, drawn at random in every layer, the same for every method.

The paper's experiment (Pochinkov, Pasero, Shibayama 2024): a seed fixes an order of each layer's neurons, and a step
ablates the first so many per cent of it, so that each step's neurons contain the last one's.
"""

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data, checked_seed
from ablation_core.data.positions import EVERYWHERE, Positions
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.errors import DataError
from ablation_core.experiments.provenance import describe_made
from ablation_core.experiments.spec import DEFAULT_BINS
from ablation_core.methods.registry import Method
from ablation_core.models.loaded import LoadedModel
from ablation_core.runs.backends import LOCAL, Backend, measure_units
from ablation_core.runs.kept.prediction_files import kept_predictions
from ablation_core.runs.ledger import open_ledger
from ablation_core.runs.pruning_result import CurveResult, point_name
from ablation_core.runs.records import Rows, kept_baseline, kept_rows, kept_runs, results_so_far
from ablation_core.runs.units import WorkUnit, describe_work
from ablation_core.selection import ModelShape, Selection
from ablation_core.storage import matches_schema

SEEDS = (42, 123, 456)
PERCENTS = tuple(range(0, 101, 10))
MOST_SEEDS = 20  # that a page measures


@dataclass(frozen=True)
class CurveSpec:
    """What is decided before a curve is measured.

    Attributes:
        seeds: each an order of every layer's neurons.
        percents: the steps.
        whole_heads: draw heads instead of single neurons.
        positions: where in each sequence they are ablated.
        keep_predictions: whether the points' changes of single predictions are kept too (`kept/prediction_files.py`).

    Raises:
        DataError: a seed or a step cannot be.
    """

    methods: tuple[Method, ...]
    bins: int = DEFAULT_BINS
    seeds: tuple[int, ...] = SEEDS
    percents: tuple[int, ...] = PERCENTS
    whole_heads: bool = False
    positions: Positions = EVERYWHERE
    keep_predictions: bool = False

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
    if not seeds:
        raise DataError("A curve needs at least one seed, such as 42.")
    if len(seeds) > MOST_SEEDS:
        raise DataError(f"Those are {len(seeds)} seeds; at most {MOST_SEEDS} are measured here.")
    return tuple(checked_seed(seed) for seed in seeds)


def pruned(shape: ModelShape, percent: int, seed: int, whole_heads: bool = False) -> Selection:
    """The neurons (or whole heads) of each layer that a seed's order puts first, so many per cent of the layer's."""
    masks = []
    for layer, heads in enumerate(shape.heads):
        units, size = (heads, shape.size(layer)) if whole_heads else (shape.width(layer), 1)
        order = np.random.default_rng((seed, layer)).permutation(units)
        chosen = np.zeros(units, dtype=bool)
        chosen[order[: round(units * percent / 100)]] = True
        masks.append(chosen.repeat(size))
    return Selection.of_masks(masks, shape)


def describe_curve(
    model: LoadedModel,
    data: Data,
    statistics: Statistics | None,
    bins: int,
    whole_heads: bool,
    positions: Positions = EVERYWHERE,
) -> dict:
    """What decides a curve's numbers, and so its ledger; `classes` is among how many answers the model chooses."""
    decided = {"whole_heads": whole_heads, "classes": model.classes}
    return describe_work(model, data, statistics, bins, positions) | decided


def curve_steps(
    model: LoadedModel,
    data: Data,
    spec: CurveSpec,
    statistics: Statistics | None,
    folder: Path,
    clean_cache: CleanPassCache | None = None,
    engine: Backend = LOCAL,
) -> Generator[CurveResult]:
    """Measure the curves; yields the result so far, at first with what an earlier run left, then after each batch.

    Every seed's first step comes first, then every seed's second: an early look shows all seeds.

    Args:
        folder: the cache folder, where finished points are kept.
        clean_cache: clean passes of the same model and data to share with other experiments.
        engine: what measures them; the result does not depend on it.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    spec.positions.check_in(data)
    description = describe_curve(model, data, statistics, spec.bins, spec.whole_heads, spec.positions)
    clean_cache = clean_cache or CleanPassCache(model, data, keys_values=not spec.positions.everywhere)
    units = [
        WorkUnit(point_name(seed, percent), pruned(model.shape, percent, seed, spec.whole_heads), spec.positions)
        for percent in spec.percents
        for seed in spec.seeds
    ]
    with open_ledger(folder, "curve", description) as ledger:
        made = describe_made(model, data)
        keep = {unit.name for unit in units} if spec.keep_predictions else ()
        shares = measure_units(units, spec.methods, spec.bins, statistics, clean_cache, ledger, engine, keep)
        so_far = results_so_far(shares, ledger.done, lambda done: _result(description | _asked(spec), done))
        for result, share in so_far:
            yield replace(result, share=share, provenance=made, predictions=kept_predictions(ledger.path, result.names))


def kept_curves(model: LoadedModel, folder: Path, spec: CurveSpec | None = None) -> dict[Path, CurveResult]:
    """What curves of this model have left in the cache folder, by their files: the one with the most predictions first.

    Args:
        spec: whose methods, seeds and steps are taken; by default those that have any point.
    """
    kept = []
    for run in kept_runs(folder, "curve", model.fingerprint):
        rows = kept_rows(run.done)
        places = [_place(name) for name in rows if _PLACE.fullmatch(name)]
        if not places or not matches_schema(run.run, {"whole_heads": bool, "classes": int}) or run.run["classes"] < 1:
            continue
        asked = {
            "methods": sorted({method for point in rows.values() for method in point}),
            "seeds": sorted({seed for seed, _ in places}),
            "percents": sorted({percent for _, percent in places}),
        }
        result = _result(run.run | (_asked(spec) if spec else asked), run.done)
        kept.append((run.path, replace(result, predictions=kept_predictions(run.path, result.names))))
    return dict(sorted(kept, key=lambda run: (-run[1].description["data"]["predictions"], -len(run[1].points))))


def _asked(spec: CurveSpec) -> dict:
    methods = [method.name for method in spec.methods]
    return {"methods": methods, "seeds": list(spec.seeds), "percents": list(spec.percents)}


def _result(description: dict, done: Mapping[str, dict]) -> CurveResult:
    """The points of the seeds and steps asked for, whatever else the ledger has."""
    rows: Rows = kept_rows(done)
    wanted = {(seed, percent) for seed in description["seeds"] for percent in description["percents"]}
    points = {place: rows[point_name(*place)] for place in sorted(wanted) if point_name(*place) in rows}
    return CurveResult(description, kept_baseline(done), points)


_PLACE = re.compile(r"seed [0-9]{1,4000}, [0-9]{1,3} %")


def _place(name: str) -> tuple[int, int]:
    seed, percent = name.removeprefix("seed ").removesuffix(" %").split(", ")
    return int(seed), int(percent)
