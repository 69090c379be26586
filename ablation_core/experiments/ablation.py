"""One ablation experiment: a frozen `AblationSpec`, run batch by batch, and its `AblationResult`.

    result = ablate(model, data, "3.2 5.0:1-4", method=["zero", "peak"], statistics=statistics)
    result.to_dict()["results"][0]["change"]["loss"]  # {"mean": …, "low": …, "high": …}

Every method sees the same predictions and the same neurons; the ablation applies at every
position, or at those that are named.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ablation_core.activations.files import as_statistics
from ablation_core.activations.made_from import check_made_from
from ablation_core.activations.statistics import Statistics
from ablation_core.data.arguments import measures
from ablation_core.data.dataset import IGNORED, Batch, Data, checked_seed, predicted_rows
from ablation_core.data.positions import Positions
from ablation_core.engine import clean_passes, hooks, scoring
from ablation_core.engine.clean_pass import CleanPass
from ablation_core.engine.hooks import Replace
from ablation_core.engine.metrics import metrics_of
from ablation_core.engine.nonfinite import no_numbers
from ablation_core.engine.scores import Scores
from ablation_core.errors import DataError
from ablation_core.experiments.displacement import DisplacementGauge
from ablation_core.experiments.predictions.prediction_scores import PredictionScores
from ablation_core.experiments.provenance import describe_made, describe_run
from ablation_core.experiments.replacements import Replacements
from ablation_core.experiments.results import AblationResult
from ablation_core.experiments.spec import DEFAULT_BINS, AblationSpec
from ablation_core.experiments.summary import Measured, summarise
from ablation_core.methods.registry import Method, choose_methods
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import Progress, reporting
from ablation_core.runtime import trim_heap
from ablation_core.selection import Head, Selection

WAITING_BYTES = 1 << 28  # ablated outputs that wait to be scored together


class AblationRun:
    """An experiment under way: one step per batch, a result after any of them.

    Args:
        clean_cache: clean passes of the same model and data to share with other experiments.
        learned: what another run of the same has learned (`Replacements.learned`), which this one then does not learn again.
    """

    def __init__(
        self,
        model: LoadedModel,
        data: Data,
        spec: AblationSpec,
        statistics: Statistics | None = None,
        clean_cache: clean_passes.CleanPassCache | None = None,
        learned: Mapping[str, dict[int, Replace]] | None = None,
    ) -> None:
        Selection.read(spec.selection, model.shape)  # says where it was made for a model of another shape
        self.model, self.data, self.spec, self.statistics = model, data, spec, statistics
        if statistics is not None:
            check_made_from(statistics.provenance, model, "These statistics")
        reused = not spec.positions.everywhere
        self.clean_cache = clean_cache or clean_passes.CleanPassCache(model, data, keys_values=reused)
        self.clean_cache.once((Positions.check_in, spec.positions), lambda: spec.positions.check_in(data))
        self.replacements = Replacements(self.clean_cache, spec, statistics, learned)
        self.metrics = metrics_of(data)
        std = None if statistics is None else statistics.std
        self._gauges = {method.name: DisplacementGauge(spec.selection, std) for method in spec.methods}
        self._baseline: list[Scores] = []
        self._ablated: dict[str, list[Scores]] = {method.name: [] for method in spec.methods}
        self._sequences: list[np.ndarray] = []
        self.targets: list[np.ndarray] = []  # of each batch done
        self.batches_done = 0

    @property
    def steps(self) -> int:
        return len(self.data) + sum(learner.steps for learner in self.replacements.learners.values())

    @property
    def steps_done(self) -> int:
        return self.batches_done + sum(learner.steps_done for learner in self.replacements.learners.values())

    @property
    def firsts(self) -> tuple[int, ...]:
        """The number of the first sequence of each batch done."""
        return tuple(self.data.numbers(batch).start for batch in range(self.batches_done))

    def step(self) -> None:
        """Learn on, where constants are learned; else run the next batch with every method.

        Raises:
            ModelError: the clean model itself gives no numbers.
        """
        step_together([self])

    def _take(self, clean_pass: CleanPass, baseline: Scores, scores: Sequence[Scores]) -> None:
        """Add the next batch's scores, of the clean run and of each method."""
        self._baseline.append(baseline)
        for method, part in zip(self.spec.methods, scores, strict=True):
            self._ablated[method.name].append(part)
        self.targets.append(clean_pass.batch.targets.cpu().numpy())
        sequences = self.data.numbers(self.batches_done).start + predicted_rows(clean_pass.batch)
        self._sequences.append(sequences if self.data.groups is None else self.data.groups[sequences])
        self.batches_done += 1

    def _ablation(self, method: Method, clean_pass: CleanPass) -> clean_passes.Ablation:
        """The selection ablated by a method in the next batch; its gauge looks on."""
        number = self.batches_done
        replacements = self.replacements.of(method, self.data.numbers(number), number, clean_pass.batch)
        replacements = self._gauges[method.name].watched(replacements, self._where(clean_pass.batch))
        return clean_passes.Ablation(replacements, self.spec.positions.firsts(clean_pass.batch))

    def _last_output(self, method: Method, clean_pass: CleanPass, outputs: Sequence[Any]) -> Any:
        """Of what came of it, what is scored."""
        self._gauges[method.name].compare(clean_pass.outputs, outputs, self._where(clean_pass.batch))
        return outputs[-1]

    def _where(self, batch: Batch) -> Callable[[Tensor], Tensor] | None:
        return None if self.spec.positions.everywhere else self.spec.positions.mask(batch)

    def finish(self, progress: Callable[[int, int], None] | None = None) -> "AblationRun":
        """Run all batches that are left; `progress` is called with (batches done, batches) after each."""
        while self.steps_done < self.steps:
            self.step()
            if progress:
                progress(self.steps_done, self.steps)
        return self

    def scores(self) -> tuple[Scores, dict[str, Scores], np.ndarray]:
        """Per prediction: the baseline's scores, each method's, and the number of its sequence."""
        ablated = {name: Scores.joined(parts, self.metrics) for name, parts in self._ablated.items()}
        return Scores.joined(self._baseline, self.metrics), ablated, np.concatenate(self._sequences)

    def result(self) -> AblationResult:
        """The result over the batches done so far.

        Raises:
            DataError: no batch is done, or none has a prediction.
        """
        if not self.batches_done:
            raise DataError("Nothing has been predicted yet; run at least one step.")
        baseline, ablated, sequences = self.scores()
        if not len(sequences):
            raise DataError(
                f"Nothing is scored in {self.data.ref}: every target is {IGNORED}, which stands for ignored."
            )
        measured = Measured(self.metrics, baseline, ablated, sequences, self.spec.seed)
        learning = {name: one.learning for name, one in self.replacements.learners.items() if one.learning}
        results, least_to_most = summarise(
            measured, {name: gauge.result() for name, gauge in self._gauges.items()}, learning
        )
        # Once for all that share clean passes: whether the weights were edited is seen by reading all of them.
        statistics = self.statistics
        known = self.clean_cache.once(
            (describe_run, statistics and statistics.digest), lambda: describe_run(self.model, self.data, statistics)
        )
        described = known | {"data": dict(known["data"])}
        described["data"] |= {"sequences": len(np.unique(sequences)), "predictions": len(sequences)}  # so far
        return AblationResult(
            **described,
            select=str(self.spec.selection),
            neurons=len(self.spec.selection),
            bins=self.spec.bins,
            positions=str(self.spec.positions),
            baseline=measured.means(baseline),
            results=results,
            least_to_most=least_to_most,
            seed=self.spec.seed,
            provenance=describe_made(self.model, self.data),
            predictions=PredictionScores(
                self.model.modality, self.firsts, tuple(self.targets), sequences, baseline, ablated
            ),
        )


def step_together(runs: Sequence[AblationRun]) -> None:
    """The next step of several runs on one recording that have done the same batches.

    While one learns, that is the step. Else it is the next batch: its clean pass, what sources give and the clean scores
    are made once for all, also where the recording has no room for them.

    Raises:
        ModelError: the clean model itself gives no numbers.
    """
    if any(run.replacements.learn() for run in runs):
        return
    one = runs[0]
    clean_pass = one.clean_cache[one.batches_done]
    at_once = max(1, WAITING_BYTES // (hooks.hidden_of(clean_pass.outputs[-1]).nbytes * len(one.spec.methods)))
    for first in range(0, len(runs), at_once):
        part = runs[first : first + at_once]
        asked = [(run, method) for run in part for method in run.spec.methods]
        ablations = [run._ablation(method, clean_pass) for run, method in asked]
        outputs: list[Any] = [None] * len(asked)
        for number, found in clean_passes.ablated_together(one.model, clean_pass, ablations):
            run, method = asked[number]
            outputs[number] = run._last_output(method, clean_pass, found)
        together = clean_passes.most_together(one.model, clean_pass, ablations[0].starts)
        baseline, *scores = scoring.score_outputs(one.model, clean_pass, outputs, one.metrics, together)
        if not np.isfinite(baseline.loss).all():
            raise no_numbers(one.model, one.data.ref, clean_pass.outputs)
        for run in part:
            run._take(clean_pass, baseline, scores[: len(run.spec.methods)])
            del scores[: len(run.spec.methods)]
    if one.batches_done == len(one.data):
        trim_heap()


def passes_shared(clean_cache: clean_passes.CleanPassCache, positions: Positions) -> int:
    """How many ablations at these positions that begin in the same block share a pass, judged by the first batch."""
    if positions.everywhere:
        return 1
    clean_pass = clean_cache[0]
    return clean_passes.most_together(clean_cache.model, clean_pass, positions.firsts(clean_pass.batch))


@measures
def ablate(
    model: LoadedModel,
    data: Data,
    select: str | Selection | Iterable[Head],
    method: str | Sequence[str] = "peak",
    *,
    statistics: Statistics | str | Path | None = None,
    bins: int = DEFAULT_BINS,
    seed: int | None = None,
    positions: str | Positions = "all",
    progress: Progress | bool | None = None,
) -> AblationResult:
    """Ablate a selection by one or several methods and measure what changes.

    >>> from ablation_core import ablate, load_data, load_model
    >>> model = load_model("opt-mini")
    >>> data = load_data("python-docs", model, predictions=700)
    >>> result = ablate(model, data, "3.2 5.0:1-4", ["zero", "peak"], statistics="python-docs")
    >>> result.neurons, [row.method for row in result.results]
    (36, ['zero', 'peak'])
    >>> change = result.results[1].change["loss"]  # nats per prediction, with a 95% interval
    >>> change.low < change.mean < change.high
    True

    Loss and KL are in nats per prediction, top-1 and top-10 are shares; every method sees the same predictions.

    Args:
        select: neurons as text, heads as pairs such as `[(3, 2)]`, or a `Selection`.
        method: a name of `METHODS`, several, or `all` that need no learning.
        statistics: for the methods that need them: themselves, their file, or the data set that they were made from, such
            as `"python-docs"`.
        bins: the peak's binning.
        seed: of resampling sources and intervals; by default the data's.
        positions: where in each sequence: all, last, 3, -2, 3-7, 3- (from there on), several by commas; answer in tasks.
        progress: called with (batches done, batches) after each; True for a bar.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    selection = Selection.read(select, model.shape)
    methods = choose_methods([method] if isinstance(method, str) else method, model.modality, data)
    seed = checked_seed(data.seed if seed is None else seed)
    spec = AblationSpec(selection, tuple(methods), bins, seed, Positions.read(positions))
    run = AblationRun(model, data, spec, as_statistics(statistics, model))
    with reporting(progress, "ablation") as report:
        return run.finish(report).result()
