"""One ablation experiment: a frozen `AblationSpec`, run batch by batch, and its `AblationResult`.

    result = ablate(model, data, "3.2 5.0:1-4", method=["zero", "peak"], statistics=statistics)
    result.to_dict()["results"][0]["change"]["loss"]  # {"mean": …, "low": …, "high": …}

Every method sees the same predictions and the same neurons; the ablation applies to every position but those that `spared` leaves out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ablation_core import engine
from ablation_core.collect import check_made_from
from ablation_core.data import IGNORED, Data, checked_seed
from ablation_core.describe import describe_run
from ablation_core.errors import DataError, ModelError
from ablation_core.methods import Method, choose_methods, constant_values
from ablation_core.metrics import METRICS, Interval, Scores, mean_intervals
from ablation_core.models import LoadedModel
from ablation_core.selection import Selection
from ablation_core.statistics import Statistics

DEFAULT_BINS = 100


@dataclass(frozen=True)
class AblationSpec:
    """What is decided before an experiment runs."""

    selection: Selection
    methods: tuple[Method, ...]
    bins: int = DEFAULT_BINS
    seed: int = 0
    spared: int = 0  # positions at the start of each sequence that are left as they are


@dataclass(frozen=True)
class Performance:
    """Means over the predictions; loss in nats a prediction, top-1 and top-10 as shares, KL in nats."""

    loss: float
    top1: float
    top10: float
    kl: float

    @property
    def perplexity(self) -> float:
        return float(np.exp(self.loss))


@dataclass(frozen=True)
class MethodResult:
    """A method's performance and its change: ablated minus baseline on the same predictions, with 95 % intervals."""

    method: str
    performance: Performance
    change: dict[str, Interval]


@dataclass(frozen=True)
class AblationResult:
    """What an experiment measured, with what is needed to measure it again."""

    model: dict
    data: dict
    statistics: dict | None
    select: str
    neurons: int
    bins: int
    positions_spared: int
    baseline: Performance
    results: tuple[MethodResult, ...]
    least_to_most: Interval | None
    """The loss of the most harmful method minus that of the least harmful one, paired; None for a single method."""

    def to_dict(self) -> dict:
        """The JSON document of `python -m ablation_core ablate --json`; null stands for what is not a finite number."""
        names = ("model", "data", "statistics", "select", "neurons", "bins", "positions_spared")
        document = {name: getattr(self, name) for name in names}
        document["baseline"] = _performance(self.baseline, ("loss", "perplexity", "top1", "top10"))
        document["results"] = [
            {"method": result.method}
            | _performance(result.performance, ("loss", "perplexity", "top1", "top10", "kl"))
            | {
                "change": {
                    metric: {bound: as_number(value) for bound, value in asdict(interval).items()}
                    for metric, interval in result.change.items()
                }
            }
            for result in self.results
        ]
        return document


def _performance(performance: Performance, names: Sequence[str]) -> dict[str, float | None]:
    return {name: as_number(getattr(performance, name)) for name in names}


def as_number(value: float | None) -> float | None:
    """JSON knows no NaN and no infinity: they become null."""
    return value if value is not None and math.isfinite(value) else None


class AblationRun:
    """An experiment under way: one step a batch, a result after any of them.

    Args:
        recording: clean passes of the same model and data to share with other experiments.
    """

    def __init__(
        self,
        model: LoadedModel,
        data: Data,
        spec: AblationSpec,
        statistics: Statistics | None = None,
        recording: engine.Recording | None = None,
    ) -> None:
        self.model, self.data, self.spec, self.statistics = model, data, spec, statistics
        if statistics is not None:
            check_made_from(statistics.provenance, model, "These statistics")
        self.recording = recording or engine.Recording(model, data)
        self._constants = {
            method.name: engine.constant_replacements(
                spec.selection, constant_values(method, statistics, spec.selection, spec.bins), model, spec.spared
            )
            for method in spec.methods
            if method.constant
        }
        self._baseline: list[Scores] = []
        self._ablated: dict[str, list[Scores]] = {method.name: [] for method in spec.methods}
        self._sequences: list[np.ndarray] = []
        self.steps_done = 0

    @property
    def steps(self) -> int:
        return len(self.data)

    def step(self) -> None:
        """Run the next batch with every method."""
        rows = self.data.numbers(self.steps_done)
        recorded = self.recording[self.steps_done]
        outputs = [
            engine.ablated_output(self.model, recorded, self.replacements(method, rows)) for method in self.spec.methods
        ]
        baseline, *ablated = engine.score_outputs(self.model, recorded, outputs)
        self._baseline.append(baseline)
        for method, scores in zip(self.spec.methods, ablated, strict=True):
            self._ablated[method.name].append(scores)
        self._sequences.append(_sequence_numbers(recorded.batch.targets.cpu().numpy(), rows.start))
        self.steps_done += 1

    def replacements(self, method: Method, rows: Sequence[int]) -> dict[int, engine.Replace]:
        """What the method puts in the selected neurons' place in a batch of these sequences, layer by layer."""
        if method.constant:
            return self._constants[method.name]
        selection = self.spec.selection
        if not selection.chosen:
            return {}
        donor = method.donor(self.data, rows, self.spec.seed)
        donated = engine.pre_outs(self.model, donor, selection.layers)
        return engine.donor_replacements(selection, donated, self.spec.spared)

    def finish(self, progress: Callable[[int, int], None] | None = None) -> "AblationRun":
        """Run all batches that are left; `progress` is called with (batches done, batches) after each."""
        while self.steps_done < self.steps:
            self.step()
            if progress:
                progress(self.steps_done, self.steps)
        return self

    def scores(self) -> tuple[Scores, dict[str, Scores], np.ndarray]:
        """Per prediction: the baseline's scores, each method's, and the number of its sequence."""
        ablated = {name: Scores.joined(parts) for name, parts in self._ablated.items()}
        return Scores.joined(self._baseline), ablated, np.concatenate(self._sequences)

    def result(self) -> AblationResult:
        """The result over the batches done so far.

        Raises:
            DataError: no batch is done.
            ModelError: the clean model itself gives no numbers.
        """
        if not self.steps_done:
            raise DataError("Nothing has been predicted yet; run at least one step.")
        baseline, ablated, sequences = self.scores()
        if not np.isfinite(baseline.loss).all():
            raise ModelError(
                f"{self.model.ref} in {self.model.dtype} gives losses that are NaN or infinite on {self.data.ref}, even "
                f"unablated; try --dtype float32, or another model."
            )
        rows = [
            getattr(scores, name) - (0 if name == "kl" else getattr(baseline, name))
            for scores in ablated.values()
            for name in METRICS
        ]
        order = sorted(ablated.values(), key=lambda scores: scores.loss.mean())
        rows.append(order[-1].loss - order[0].loss)
        *changes, least_to_most = mean_intervals(np.stack(rows), sequences, self.spec.seed)
        intervals = iter(changes)
        results = tuple(
            MethodResult(name, _means(scores), {metric: next(intervals) for metric in METRICS})
            for name, scores in ablated.items()
        )
        described = describe_run(self.model, self.data, self.statistics)
        described["data"] |= {"sequences": len(np.unique(sequences)), "predictions": len(sequences)}  # so far
        return AblationResult(
            **described,
            select=str(self.spec.selection),
            neurons=len(self.spec.selection),
            bins=self.spec.bins,
            positions_spared=self.spec.spared,
            baseline=_means(baseline),
            results=results,
            least_to_most=least_to_most if len(order) > 1 else None,
        )


def ablate(
    model: LoadedModel,
    data: Data,
    select: str | Selection,
    method: str | Sequence[str] = "peak",
    statistics: Statistics | None = None,
    bins: int = DEFAULT_BINS,
    seed: int | None = None,
    spared: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> AblationResult:
    """Ablate a selection by one or several methods and measure what changes.

    Args:
        select: a selection or its text form.
        method: a name of `METHODS`, several, or `all`.
        statistics: for the methods that need them.
        bins: the peak's binning.
        seed: of donors and intervals; by default the data's.
        spared: how many positions at the start of each sequence are left as they are.
        progress: called with (batches done, batches) after each.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    selection = Selection.parse(select, model.shape) if isinstance(select, str) else select
    methods = choose_methods([method] if isinstance(method, str) else method)
    spec = AblationSpec(selection, tuple(methods), bins, checked_seed(data.seed if seed is None else seed), spared)
    return AblationRun(model, data, spec, statistics).finish(progress).result()


def _means(scores: Scores) -> Performance:
    return Performance(*(float(getattr(scores, name).mean()) for name in METRICS))


def _sequence_numbers(targets: np.ndarray, first: int) -> np.ndarray:
    """The sequence of each scored prediction of a batch, in the order in which they are scored."""
    if targets.ndim == 1:
        return np.arange(first, first + len(targets))
    return first + np.nonzero(targets != IGNORED)[0]
