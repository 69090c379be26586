"""A sweep or pruning curves in one call, from a model and data to the result; `sweep_steps` and the like go step by step.

What is finished is kept in the cache folder: the same call again, or after an interruption, measures only what is missing.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, overload

from ablation_core.activations.files import as_statistics
from ablation_core.activations.statistics import Statistics
from ablation_core.data.arguments import measures, whole_number
from ablation_core.data.dataset import Data
from ablation_core.data.positions import Positions
from ablation_core.errors import DataError
from ablation_core.experiments.spec import DEFAULT_BINS
from ablation_core.methods.registry import Method, choose_methods
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import ShareProgress, finished, reporting_share
from ablation_core.runs.adaptive import AdaptiveResult, AdaptiveSpec, adaptive_steps
from ablation_core.runs.backends import LOCAL, Backend
from ablation_core.runs.pruning import PERCENTS, SEEDS, CurveSpec, curve_steps
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.runs.sweep import RANDOM_SETS, SweepSpec, sweep_steps
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.selection import Head, Selection
from ablation_core.storage import CACHE

Methods = str | Sequence[str]
GivenStatistics = Statistics | str | Path | None
Heads = str | Selection | Iterable[Head]


@overload
def sweep(
    model: LoadedModel,
    data: Data,
    method: Methods = "mean",
    *,
    statistics: GivenStatistics = None,
    heads: Heads | None = None,
    bins: int = DEFAULT_BINS,
    positions: str | Positions = "all",
    random_sets: int = RANDOM_SETS,
    adaptive: Literal[False] = False,
    precision: None = None,
    keep_predictions: bool = False,
    cache: str | Path = CACHE,
    backend: Backend = LOCAL,
    progress: ShareProgress | bool | None = None,
) -> SweepResult: ...


@overload
def sweep(
    model: LoadedModel,
    data: Data,
    method: Methods = "mean",
    *,
    statistics: GivenStatistics = None,
    heads: Heads | None = None,
    bins: int = DEFAULT_BINS,
    positions: str | Positions = "all",
    random_sets: int = RANDOM_SETS,
    adaptive: Literal[True],
    precision: float | None = None,
    keep_predictions: Literal[False] = False,
    cache: str | Path = CACHE,
    backend: Backend = LOCAL,
    progress: ShareProgress | bool | None = None,
) -> AdaptiveResult: ...


@measures
def sweep(
    model: LoadedModel,
    data: Data,
    method: Methods = "mean",
    *,
    statistics: GivenStatistics = None,
    heads: Heads | None = None,
    bins: int = DEFAULT_BINS,
    positions: str | Positions = "all",
    random_sets: int = RANDOM_SETS,
    adaptive: bool = False,
    precision: float | None = None,
    keep_predictions: bool = False,
    cache: str | Path = CACHE,
    backend: Backend = LOCAL,
    progress: ShareProgress | bool | None = None,
) -> SweepResult | AdaptiveResult:
    """Ablate every head by itself, by one or several methods, on the same predictions.

    >>> from tempfile import TemporaryDirectory
    >>> from ablation_core import load_data, load_model, sweep
    >>> model = load_model("opt-mini")
    >>> data = load_data("python-docs", model, predictions=100)
    >>> with TemporaryDirectory() as folder:  # leave `cache` out to keep what is measured
    ...     result = sweep(model, data, "mean", statistics="python-docs", heads="5.0 5.1", random_sets=0, cache=folder)
    >>> list(result.changes("mean", "loss"))  # head → change of loss in nats per prediction
    ['5.0', '5.1']

    Args:
        method: a name of `METHODS`, several, or `all` that need no learning.
        statistics: for the methods that need them: themselves, their file, or the data set that they were made from.
        heads: these only, as text (`"3.2 5.*"`), pairs such as `[(3, 2)]`, or a `Selection`; by default all.
        bins: the peak's binning.
        positions: where in each sequence: all, last, 3, -2, 3-7, 3- (from there on), several by commas; answer in tasks.
        random_sets: how many random sets of one head's size make the noise floor; an adaptive sweep has none.
        adaptive: give each head only as many predictions as its verdict needs.
        precision: in nats per prediction, of an adaptive sweep: a surely smaller change takes no more predictions.
        keep_predictions: keep every head's changes of single predictions too, for `to_frame("predictions")`: 4 bytes for
            each head, method and prediction.
        cache: the folder where finished heads are kept.
        backend: what measures them: this process, or a cluster; the result does not depend on it.
        progress: called with the share done; True for a bar.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    methods, where = _methods(model, data, method), Positions.read(positions)
    known = as_statistics(statistics, model, Path(cache))
    chosen = None if heads is None else _heads(heads, model)
    if not adaptive:
        if precision is not None:
            raise DataError("A precision belongs to an adaptive sweep; give adaptive=True too, or leave it out.")
        sets = whole_number(random_sets, "number of random sets", 0)
        spec = SweepSpec(
            methods, bins=bins, heads=chosen, random_sets=sets, positions=where, keep_predictions=keep_predictions
        )
        with reporting_share(progress, "sweep") as report:
            return finished(sweep_steps(model, data, spec, known, Path(cache), engine=backend), report)
    if keep_predictions:
        raise DataError(
            "An adaptive sweep gives each head other predictions and keeps none of them; leave keep_predictions or adaptive "
            "out."
        )
    if backend is not LOCAL:
        raise DataError(
            "An adaptive sweep decides as it goes what to measure next, in this process; leave backend out."
        )
    looking = AdaptiveSpec(methods, bins=bins, heads=chosen, precision=precision, positions=where)
    with reporting_share(progress, "adaptive sweep, at most") as report:
        return finished(adaptive_steps(model, data, looking, known, Path(cache)), report)


@measures
def curve(
    model: LoadedModel,
    data: Data,
    method: Methods = "mean",
    *,
    statistics: GivenStatistics = None,
    seeds: int | Iterable[int] = SEEDS,
    percents: int | Iterable[int] = PERCENTS,
    whole_heads: bool = False,
    bins: int = DEFAULT_BINS,
    positions: str | Positions = "all",
    keep_predictions: bool = False,
    cache: str | Path = CACHE,
    backend: Backend = LOCAL,
    progress: ShareProgress | bool | None = None,
) -> CurveResult:
    """Pruning curves: ablate more and more neurons, drawn at random in every layer, the same for every method.

    >>> from tempfile import TemporaryDirectory
    >>> from ablation_core import curve, load_data, load_model
    >>> model = load_model("opt-mini")
    >>> data = load_data("python-docs", model, predictions=100)
    >>> with TemporaryDirectory() as folder:  # leave `cache` out to keep what is measured
    ...     result = curve(model, data, "zero", seeds=[1], percents=[0, 50], cache=folder)
    >>> [(row["percent"], row["method"]) for row in result.to_dict()["table"]]
    [(50, 'zero')]

    Args:
        method: a name of `METHODS`, several, or `all` that need no learning.
        statistics: for the methods that need them: themselves, their file, or the data set that they were made from.
        seeds: each an order of every layer's neurons.
        percents: the steps, in per cent of each layer's neurons, 0 to 100.
        whole_heads: draw heads instead of single neurons.
        bins: the peak's binning.
        positions: where in each sequence: all, last, 3, -2, 3-7, 3- (from there on), several by commas; answer in tasks.
        keep_predictions: keep every point's changes of single predictions too, for `to_frame("predictions")`: 4 bytes for
            each point, method and prediction.
        cache: the folder where finished points are kept.
        backend: what measures them: this process, or a cluster; the result does not depend on it.
        progress: called with the share done; True for a bar.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    spec = CurveSpec(
        _methods(model, data, method),
        bins=bins,
        seeds=_listed(seeds),
        percents=_listed(percents),
        whole_heads=whole_heads,
        positions=Positions.read(positions),
        keep_predictions=keep_predictions,
    )
    known = as_statistics(statistics, model, Path(cache))
    with reporting_share(progress, "curve") as report:
        return finished(curve_steps(model, data, spec, known, Path(cache), engine=backend), report)


def _listed(numbers: int | Iterable[int]) -> tuple[int, ...]:
    """Whole numbers, or one of them."""
    given = list(numbers) if isinstance(numbers, Iterable) and not isinstance(numbers, str) else [numbers]
    return tuple(whole_number(number, "seeds and percents", 0) for number in given)


def _methods(model: LoadedModel, data: Data, method: Methods) -> tuple[Method, ...]:
    return tuple(choose_methods([method] if isinstance(method, str) else method, model.modality, data))


def _heads(heads: Heads, model: LoadedModel) -> tuple[Head, ...]:
    """In the order in which they are given, where they have one."""
    if isinstance(heads, str | Selection):
        return Selection.read_heads(heads, model.shape)
    listed = list(heads)
    Selection.read_heads(listed, model.shape)  # says what cannot be read, or lies outside the model
    if not all(isinstance(one, tuple | list) and len(one) == 2 for one in listed):
        return Selection.read_heads(listed, model.shape)
    return tuple(dict.fromkeys((int(layer), int(head)) for layer, head in listed))
