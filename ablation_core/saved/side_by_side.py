"""Saved results beside each other: the figures of each, and the differences of two.

    compare_results(load_result("before"), load_result("after")).to_frame()

A difference is the second minus the first. On the same predictions it is a mean of paired differences, prediction by
prediction; curves with the same seeds are paired over the seeds. On other predictions both are samples of their own. Where a
result holds means alone, the difference has no interval, and `notes` says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablation_core.errors import ReportError
from ablation_core.experiments.interaction_result import InteractionResult
from ablation_core.experiments.results import AblationResult
from ablation_core.heads.describe import HeadDescription
from ablation_core.presentation import Presented
from ablation_core.runs.comparison_result import ComparisonResult
from ablation_core.runs.kept.prediction_files import PLACES, change_name
from ablation_core.runs.maps.position_map import PositionMapResult
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.saved.figures import figures_of, metric_of, unit_of
from ablation_core.stats.intervals import Interval, MeanTest, difference_tests, mean_tests, paired_t_test, sequence_sums
from ablation_core.storage import as_number

CHANGE = "change of loss, nats per prediction"
ByPrediction = tuple[np.ndarray, np.ndarray]  # changes and sequence numbers, both (predictions,)


@dataclass(frozen=True)
class Difference:
    """One figure in two results.

    Attributes:
        what: a method, or a head and a method.
        difference: the second minus the first; without bounds where it was not tested.
        paired: whether it is a mean of paired differences.
    """

    what: str
    first: Interval
    second: Interval
    difference: Interval
    p: float | None
    paired: bool


@dataclass(frozen=True)
class SavedComparison(Presented):
    """The figures that two results share, with their differences.

    Attributes:
        names: what the two are called.
        notes: sentences about what could not be compared, or is not the same.
        unit: what the figures are.
    """

    names: tuple[str, str]
    rows: tuple[Difference, ...]
    notes: tuple[str, ...] = ()
    unit: str = CHANGE

    def to_dict(self) -> dict:
        """The JSON document of `python -m ablation_core saved compare --json`."""
        return {
            "names": list(self.names),
            "differences": [
                {
                    "what": row.what,
                    "first": _span(row.first),
                    "second": _span(row.second),
                    "difference": _span(row.difference),
                    "p": row.p,
                    "paired": row.paired,
                }
                for row in self.rows
            ],
            "notes": list(self.notes),
        }


def _span(interval: Interval) -> dict[str, float | None]:
    bounds = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {name: as_number(value) for name, value in bounds.items()}


def compare_results(first: Any, second: Any, names: tuple[str, str] = ("first", "second")) -> SavedComparison:
    """The differences of two results of one kind, in every figure that both have.

    >>> from ablation_core import ablate, compare_results, load_data, load_model
    >>> model = load_model("opt-mini")
    >>> data = load_data("python-docs", model, predictions=700)
    >>> found = compare_results(*(ablate(model, data, head, "zero") for head in ("5.0", "5.1")))
    >>> [(row.what, row.paired) for row in found.rows]
    [('zero', True)]

    Raises:
        ReportError: they are of two kinds, of two metrics, or share no figure.
    """
    if type(first) is not type(second):
        raise ReportError(
            f"{type(first).__name__} and {type(second).__name__} have no figures in common; compare two results of one kind."
        )
    if unit_of(first) != unit_of(second):
        raise ReportError(
            f"The figures of {names[0]} are of {unit_of(first)}, those of {names[1]} of {unit_of(second)}: they cannot be compared."
        )
    mine, theirs = figures_of(first), figures_of(second)
    pairs = [(what, what) for what in mine if what in theirs]
    if not pairs and len(mine) == len(theirs) == 1:
        pairs = [(next(iter(mine)), next(iter(theirs)))]
    if not pairs:
        raise ReportError(
            f"{names[0]} has {', '.join(list(mine)[:4]) or 'no figures'}; {names[1]} has "
            f"{', '.join(list(theirs)[:4]) or 'no figures'}: they share none."
        )
    paired = _same_predictions(first, second)
    rows = []
    for one, other in pairs:
        test = _difference(first, second, one, other, paired) or MeanTest(
            Interval(theirs[other].mean - mine[one].mean, None, None), None
        )
        what = one if one == other else f"{one} → {other}"
        is_paired = test.interval.low is not None and (paired or isinstance(first, CurveResult))
        rows.append(Difference(what, mine[one], theirs[other], test.interval, test.p, is_paired))
    return SavedComparison(names, tuple(rows), tuple(_notes(first, second, paired, rows)), unit_of(first))


def _difference(first: Any, second: Any, one: str, other: str, paired: bool) -> MeanTest | None:
    """The test of a difference; None where the results hold means alone."""
    if isinstance(first, CurveResult):
        return _over_seeds(first, second, one)
    mine, theirs = _by_prediction(first, one), _by_prediction(second, other)
    if mine is None or theirs is None:
        return None
    (changes, sequences), (others, their_sequences) = mine, theirs
    if paired and np.array_equal(sequences, their_sequences):
        return mean_tests((others - changes)[None], sequences, _seed(first))[0]
    samples = [sequence_sums(row[None], places) for row, places in (mine, theirs)]
    return difference_tests(samples[0], samples[1], _seed(first))[0]


def _by_prediction(result: Any, what: str) -> ByPrediction | None:
    """The change on each prediction."""
    if isinstance(result, HeadDescription):
        result = result.total_effect
    if isinstance(result, AblationResult) and result.predictions is not None:
        scored = result.predictions
        return scored.ablated[what].change(metric_of(result), scored.baseline), scored.sequence
    if isinstance(result, InteractionResult) and result.changes is not None:
        if what.endswith(", interaction"):
            one, other = what.removesuffix(", interaction").split(" and ")
            joint = result.changes[f"{one} {other}"]
            return joint - result.changes[one] - result.changes[other], result.changes["sequence"]
        return result.changes[what.split(",")[0]], result.changes["sequence"]
    result = result.cells if isinstance(result, PositionMapResult) else result
    if isinstance(result, SweepResult) and result.predictions is not None:
        return _kept_changes(result.predictions, what, metric_of(result).name)
    return None


def _kept_changes(kept: Mapping[str, Mapping[str, np.ndarray]], what: str, metric: str) -> ByPrediction | None:
    """Of a sweep that kept them."""
    head, method = what.split(", ")
    places, changes = kept.get(PLACES, {}), kept.get(head, {}).get(change_name(method, metric))
    if changes is None or not places:
        return None
    return changes.astype(np.float64), places.get("group", places["sequence"])


def _over_seeds(first: CurveResult, second: CurveResult, what: str) -> MeanTest | None:
    """Two curves that draw the same neurons, seed by seed."""
    seeds = first.description["seeds"]
    drawn = [[curve.description[name] for name in ("seeds", "whole_heads")] for curve in (first, second)]
    shapes = [
        [curve.description["model"].get(name) for name in ("layers", "heads", "head_dim")] for curve in (first, second)
    ]
    if drawn[0] != drawn[1] or shapes[0] != shapes[1]:
        return None
    percent, method = what.split(" % by ")
    one, other = (
        np.array([curve.value(seed, int(percent), method, metric_of(curve).name) for seed in seeds])
        for curve in (first, second)
    )
    return paired_t_test(other, one) if np.isfinite(one + other).all() else None


def _seed(result: Any) -> int:
    return int(getattr(result, "seed", 0))


def _parts(result: Any) -> tuple[dict, dict]:
    """A result's model and data; empty where it does not say."""
    if isinstance(result, HeadDescription):
        result = result.total_effect
    if isinstance(result, AblationResult):
        return result.model, result.data
    if isinstance(result, ComparisonResult):
        return result.sides[0]["model"], result.sides[0]["data"]
    described = getattr(result, "description", {})
    return described.get("model", {}), described.get("data", {})


def _same_predictions(first: Any, second: Any) -> bool:
    (_, one), (_, other) = _parts(first), _parts(second)
    names = ("fingerprint", "predictions", "sequences")
    return bool(one) and [one.get(name) for name in names] == [other.get(name) for name in names]


def _notes(first: Any, second: Any, paired: bool, rows: list[Difference]) -> list[str]:
    notes = []
    (model, data), (other, theirs) = _parts(first), _parts(second)
    if model.get("fingerprint") != other.get("fingerprint"):
        notes.append(f"The two are of different models: {model.get('ref')} and {other.get('ref')}.")
    if not paired and data:
        notes.append(
            f"The two are not on the same predictions ({data.get('predictions', 0):,} of {data.get('ref')}, "
            f"{theirs.get('predictions', 0):,} of {theirs.get('ref')}), so that differences are not paired by prediction."
        )
    if any(row.difference.low is None for row in rows):
        notes.append(
            "Differences without an interval: these results hold means alone, or there are too few sequences for one."
        )
    return notes
