"""A comparison in one call, from models and data to the result; `comparison_steps` goes step by step."""

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from ablation_core.activations.collect import StatisticsRun, compute_statistics
from ablation_core.activations.files import as_statistics, find_for_data, load_statistics, missing_statistics
from ablation_core.activations.statistics import Statistics
from ablation_core.data.arguments import check_data, check_model
from ablation_core.data.dataset import Data, checked_seed
from ablation_core.data.load import load_data
from ablation_core.data.positions import Positions
from ablation_core.data.references import STATISTICS_PREDICTIONS
from ablation_core.errors import DataError, ModelError, StatisticsError
from ablation_core.experiments.spec import DEFAULT_BINS
from ablation_core.methods.registry import Method, choose_method
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.random_twin import random_twin
from ablation_core.progress import ShareProgress, reporting_share
from ablation_core.runs.comparison import ComparisonProgress, ComparisonSpec, Side, comparison_steps
from ablation_core.runs.comparison_result import ComparisonResult
from ablation_core.selection import Head, Selection
from ablation_core.storage import CACHE

RANDOM = "random"  # in a second model's place: the first one's random twin
GivenStatistics = Statistics | str | Path | None


def compare(
    model: LoadedModel,
    data: Data | Sequence[Data],
    method: str = "mean",
    *,
    other: LoadedModel | str | None = None,
    statistics: GivenStatistics | Sequence[GivenStatistics] = None,
    heads: str | Selection | Iterable[Head] | None = None,
    bins: int = DEFAULT_BINS,
    seed: int | None = None,
    positions: str | Positions = "all",
    cache: str | Path = CACHE,
    progress: ShareProgress | bool | None = None,
) -> ComparisonResult:
    """Ablate each head on two data sets, or in two models, and test the difference.

    >>> from tempfile import TemporaryDirectory
    >>> from ablation_core import compare, load_data, load_model
    >>> model = load_model("opt-mini")
    >>> prose, code = (load_data(ref, model, predictions=700) for ref in ("python-docs", "python-code"))
    >>> with TemporaryDirectory() as folder:  # leave `cache` out to keep what is measured
    ...     result = compare(model, [prose, code], "zero", heads="5.0 5.1", cache=folder)
    >>> row = result.to_dict()["heads"][0]  # nats per prediction; the difference is the second minus the first
    >>> one, other = (change["loss"]["mean"] for change in row["changes"])
    >>> abs(row["difference"]["loss"]["mean"] - (other - one)) < 1e-12
    True

    Args:
        data: two data sets; or one, with `other`.
        method: one name of `METHODS`.
        other: a second model with the same tokenizer and shape; or "random": the model's architecture with weights drawn
            from the seed.
        statistics: for both sides, or a pair, each as `ablate` takes them; by default each side's own: those of its model
            made from its data (of a random twin they are computed).
        heads: these only, as text (`"3.2 5.*"`), pairs or a `Selection`; by default all.
        bins: the peak's binning.
        seed: of resampling, intervals and random weights; by default the first data's.
        positions: where in each sequence, as `ablate` has it.
        cache: the folder where each side's finished heads are kept.
        progress: called with the share done; True for a bar.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    check_model(model)
    pair = tuple(data) if isinstance(data, list | tuple) else (data,)
    for one in pair:
        check_data(one)
    seed = checked_seed(pair[0].seed if seed is None and pair else seed or 0)
    models = (model, *_other_model(model, other, seed))
    if sorted((len(pair), len(models))) != [1, 2]:
        raise DataError(
            f"A comparison is of two data sets, or of one in two models; these are {len(pair)} and {len(models)}. In Python: "
            f"compare(model, [prose, code]) or compare(model, prose, other=fine_tuned)."
        )
    chosen = choose_method(method, model.modality, pair[0])
    choose_method(method, model.modality, pair[-1])
    given = tuple(statistics) if isinstance(statistics, list | tuple) else (statistics, statistics)
    if len(given) != 2:
        raise StatisticsError(f"Statistics are one for both sides, or two, not {len(given)}.")
    sides = [
        Side(one, part, _statistics(one, part, mine, chosen, Path(cache), twin=other == RANDOM and number == 1))
        for number, (one, part, mine) in enumerate(zip((model, models[-1]), (pair[0], pair[-1]), given, strict=True))
    ]
    selected = None if heads is None else Selection.read_heads(heads, model.shape)
    spec = ComparisonSpec(chosen, bins, selected, seed, Positions.read(positions))
    with reporting_share(progress, "comparison") as report:
        for step in comparison_steps(sides[0], sides[1], spec, Path(cache)):
            report(step.share)
    assert step.result is not None  # the last one has it
    return step.result


def _other_model(model: LoadedModel, other: LoadedModel | str | None, seed: int) -> tuple[LoadedModel, ...]:
    if isinstance(other, str):
        if other != RANDOM:
            raise ModelError(f"Give the other model as load_model returns it, or as {RANDOM!r}, not as {other!r}.")
        return (random_twin(model, seed),)
    if other is not None:
        check_model(other)
    if other is model:
        raise ModelError(f"Both models are the same {model.ref}; a comparison needs two that differ.")
    return () if other is None else (other,)


def _statistics(
    model: LoadedModel, data: Data, given: Any, method: Method, cache: Path, twin: bool
) -> Statistics | None:
    """A side's statistics: those given, else its own."""
    if not method.needs_statistics:
        return None
    if isinstance(given, Statistics) or (given is not None and not twin):
        return as_statistics(given, model, cache)
    if twin:  # nobody has statistics of it
        if data.given is not None and given is None:
            raise StatisticsError("Data in memory has no statistics part; name a data set as statistics.")
        return compute_statistics(model, _statistics_part(model, data, data.ref if given is None else given))
    entry = find_for_data(model, data, cache)
    if entry is None:
        raise StatisticsError(
            f"The method {method.name} needs activation statistics. {missing_statistics(model, data.ref, cache)}"
        )
    return load_statistics(entry.path, model)


def _statistics_part(model: LoadedModel, data: Data, ref: str | Path) -> Data:
    """The part of a data set that a twin's statistics are made from, read as the data itself is."""
    usual = STATISTICS_PREDICTIONS[model.modality]
    return load_data(
        ref, model, usual, data.seq_len or 128, seed=data.seed, split="statistics", documents=bool(data.documents)
    )


def twin_steps(one: Side, spec: ComparisonSpec, folder: Path) -> Generator[ComparisonProgress]:
    """Compare a model with its random twin, which is drawn, and whose statistics are computed, first.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    yield ComparisonProgress(0.0)
    twin, statistics = random_twin(one.model, spec.seed), None
    if spec.method.needs_statistics:
        counting = StatisticsRun(twin, _statistics_part(twin, one.data, one.data.ref))
        while counting.steps_done < counting.steps:
            counting.step()
            yield ComparisonProgress(0.0)
        statistics = counting.result()
    yield from comparison_steps(one, Side(twin, one.data, statistics), spec, folder)
