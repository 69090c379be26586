"""The harm of every head and of every single neuron, estimated without ablating any.

With d the displacement (replacement minus activation) of a head's neurons at all positions, g the gradient of the loss
and F the Fisher information of the predictions, all with respect to the z,

    KL ≈ ½ dᵀ F d                    change of loss ≈ gᵀ d + ½ dᵀ F d

The first term alone ranks heads badly: near a trained optimum most harm is of second order. F is never formed:
dᵀ F d is the mean square of random gradients' products with d (`gradients.py`). All heads, neurons and methods share a
batch's passes; a batch costs its clean pass, one pass back for g and `passes` for F.

An estimate is of second order: where a displacement is large against what the model is used to, the exact value
differs; docs/results/estimates.md shows by how much.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ablation_core.activations.files import as_statistics
from ablation_core.activations.made_from import check_made_from
from ablation_core.activations.statistics import Statistics
from ablation_core.data.arguments import measures
from ablation_core.data.dataset import IGNORED, Data, checked_seed
from ablation_core.data.made_for import check_made_for
from ablation_core.data.positions import EVERYWHERE, Positions
from ablation_core.engine.gradients import linearise
from ablation_core.engine.metrics import estimated_metrics
from ablation_core.errors import DataError, MethodError
from ablation_core.experiments.estimate_result import Estimated, EstimateResult, MethodEstimate
from ablation_core.experiments.head_displacements import HeadDisplacements
from ablation_core.experiments.provenance import describe_made, describe_run
from ablation_core.experiments.spec import DEFAULT_BINS
from ablation_core.methods.registry import Method, choose_methods
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import Progress, reporting
from ablation_core.stats.clustered_mean import ClusteredMean

PASSES = 7


class EstimateRun:
    """An estimate under way: one step per batch, a result after any of them.

    Args:
        methods: any that put a constant or another input's activations in a neuron's place.
        seed: of resampling sources and of the random gradients; by default the data's.
        positions: where the heads would be ablated.
        passes: random gradients a batch; more make the estimates less noisy and take as much longer.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """

    def __init__(
        self,
        model: LoadedModel,
        data: Data,
        methods: Sequence[Method],
        *,
        statistics: Statistics | None = None,
        bins: int = DEFAULT_BINS,
        seed: int | None = None,
        positions: Positions = EVERYWHERE,
        passes: int = PASSES,
    ) -> None:
        positions.check_in(data)
        data.check_one_answer("an estimate")
        if not isinstance(passes, int) or passes < 1:
            raise MethodError(f"An estimate needs at least 1 random pass a batch, not {passes!r}.")
        if learned := [method.name for method in methods if method.learned]:
            raise MethodError(
                f"The constants of {learned[0]} are learned for each selection; they cannot be estimated."
            )
        check_made_for(model, data.made_for, data.ref)
        if statistics is not None:
            check_made_from(statistics.provenance, model, "These statistics")
        self.model, self.data, self.methods, self.statistics = model, data, tuple(methods), statistics
        self.bins, self.positions, self.passes = bins, positions, passes
        self.seed = checked_seed(data.seed if seed is None else seed)
        self._displacements = HeadDisplacements(
            model, data, self.methods, statistics=statistics, bins=bins, seed=self.seed, positions=positions
        )
        self.metrics = estimated_metrics(data)
        self._means = {
            (method.name, metric.name, what): [ClusteredMean() for _ in range(model.num_layers)]
            for method in self.methods
            for metric in self.metrics
            for what in ("heads", "neurons")
        }
        self.steps_done = 0

    @property
    def steps(self) -> int:
        return len(self.data)

    def step(self) -> None:
        """Run the next batch: its clean pass, and the passes back that all methods share."""
        rows = self.data.numbers(self.steps_done)
        lines = linearise(self.model, self.data.rows(rows), self.passes, (self.seed, self.steps_done))
        counts = lines.predictions.numpy()
        displacements = self._displacements.of(rows, lines.z_values)
        slopes = {
            of: self._displacements.products(lines.slope(of), displacements, len(counts))
            for of in {metric.slope_of: None for metric in self.metrics}
        }
        squares: dict = {}
        for gradients in lines.draws():
            for key, (heads, neurons) in self._displacements.products(gradients, displacements, len(counts)).items():
                before = squares.get(key, (0.0, 0.0))
                squares[key] = (before[0] + heads**2, before[1] + neurons**2)
        for (name, layer), parts in squares.items():
            for number, (what, square) in enumerate(zip(("heads", "neurons"), parts, strict=True)):
                curvature = square / (2 * lines.repeats)
                for metric in self.metrics:
                    assert metric.estimate is not None
                    slope = slopes[metric.slope_of][name, layer][number]
                    self._means[name, metric.name, what][layer].add(metric.estimate(slope, curvature), counts)
        self.steps_done += 1

    def finish(self, progress: Callable[[int, int], None] | None = None) -> "EstimateRun":
        """Run all batches that are left; `progress` is called with (batches done, batches) after each."""
        while self.steps_done < self.steps:
            self.step()
            if progress:
                progress(self.steps_done, self.steps)
        return self

    def result(self) -> EstimateResult:
        """The estimates over the batches done so far.

        Raises:
            DataError: no batch is done.
        """
        if not self.steps_done:
            raise DataError("Nothing has been estimated yet; run at least one step.")
        description = describe_run(self.model, self.data, self.statistics)
        first = next(iter(self._means.values()))[0]
        if not first.predictions:
            raise DataError(
                f"Nothing is scored in {self.data.ref}: every target is {IGNORED}, which stands for ignored."
            )
        description["data"] |= {"sequences": first.sequences, "predictions": int(first.predictions)}  # so far
        methods = tuple(
            MethodEstimate(method.name, {one.name: self._estimated(method.name, one.name) for one in self.metrics})
            for method in self.methods
        )
        made = describe_made(self.model, self.data)
        return EstimateResult(
            description, self.bins, str(self.positions), self.passes, self.model.shape, methods, self.seed, made
        )

    def _estimated(self, method: str, metric: str) -> Estimated:
        heads, neurons = (self._means[method, metric, what] for what in ("heads", "neurons"))
        return Estimated(
            _stacked([means.mean for means in heads]),
            _stacked([means.error for means in heads]),
            _stacked([means.mean for means in neurons]),
            _stacked([means.error for means in neurons]),
        )


def _stacked(layers: list[np.ndarray]) -> np.ndarray:
    """One array per layer, of (heads, …), as one array (layers, heads, …), filled up with NaN."""
    most = np.max([layer.shape for layer in layers], axis=0)
    stacked = np.full((len(layers), *most), np.nan)
    for number, layer in enumerate(layers):
        corner: tuple = (number, *map(slice, layer.shape))
        stacked[corner] = layer
    return stacked


@measures
def estimate(
    model: LoadedModel,
    data: Data,
    method: str | Sequence[str] = "peak",
    *,
    statistics: Statistics | str | Path | None = None,
    bins: int = DEFAULT_BINS,
    seed: int | None = None,
    positions: str | Positions = "all",
    passes: int = PASSES,
    progress: Progress | bool | None = None,
) -> EstimateResult:
    """Estimate what ablating each head, and each single neuron, would do by one or several methods.

    >>> from ablation_core import estimate, load_data, load_model
    >>> model = load_model("opt-mini")
    >>> result = estimate(model, load_data("python-docs", model, predictions=200), "mean", statistics="python-docs")
    >>> loss = result.methods[0].loss  # nats per prediction
    >>> loss.heads.shape, loss.heads_error.shape, loss.neurons.shape  # layers, heads, neurons per head
    ((6, 6), (6, 6), (6, 6, 32))
    >>> len(result.methods[0].largest(3))  # the heads of the greatest estimated change
    3

    Args:
        method: a name of `METHODS`, several, or `all`; none that is learned.
        statistics: for the methods that need them: themselves, their file, or the data set that they were made from.
        bins: the peak's binning.
        seed: of resampling sources and of the random gradients; by default the data's.
        positions: where the heads would be ablated.
        passes: random gradients per batch; more make the estimates less noisy and take as much longer.
        progress: called with (batches done, batches) after each; True for a bar.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    methods = choose_methods([method] if isinstance(method, str) else method, model.modality, data)
    run = EstimateRun(
        model,
        data,
        methods,
        statistics=as_statistics(statistics, model),
        bins=bins,
        seed=seed,
        positions=Positions.read(positions),
        passes=passes,
    )
    with reporting(progress, "estimate") as report:
        return run.finish(report).result()
