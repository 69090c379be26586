"""Heads together: what ablating two of them does beyond what each does by itself.

    result = interact(model, data, "3.2 5.0 7.1", "mean", statistics=statistics)
    result.to_dict()["pairs"][0]   # {"pair": ["3.2", "5.0"], "interaction": {"mean": …, "low": …, "high": …}, …}

The **interaction** of two heads is the change of their joint ablation minus both single changes, on the same predictions:

    I(a, b) = change(a and b) − change(a) − change(b)

of the loss or, on a task, of its logit difference; any metric can be chosen. Where the joint harm is more than the single changes
add up to (the loss: I above 0; the logit difference: below), each head covers for the other: they are **redundant**, and neither's
single effect shows what the two do. Where it is less, each needs the other, the first ablation has already spoiled what the
second would: they are **synergistic**. Where the interval of I lies within a tenth of the larger single
change they are **independent**; else this sample cannot tell. With p-values over all pairs after Benjamini and Hochberg.

An ablation of a set is run like any other; clean passes are shared, so that k heads cost k(k + 1)/2 + 1 resumed passes
per method.
"""

from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from ablation_core.activations.files import as_statistics
from ablation_core.activations.statistics import Statistics
from ablation_core.data.arguments import measures
from ablation_core.data.dataset import Data, checked_seed
from ablation_core.data.positions import EVERYWHERE, Positions
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.engine.metrics import Metric, main_metric, metrics_of
from ablation_core.errors import MethodError, SelectionError
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.interaction_result import InteractionResult, PairInteraction
from ablation_core.experiments.provenance import describe_run
from ablation_core.experiments.spec import DEFAULT_BINS, AblationSpec
from ablation_core.methods.registry import Method, choose_method
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import Progress, reporting
from ablation_core.selection import Head, Selection
from ablation_core.stats.intervals import Interval, mean_tests
from ablation_core.stats.sequential import FALSE_DISCOVERIES, adjusted

MOST_HEADS = 24  # 300 ablations
INDEPENDENT = 0.1  # of the larger single change: an interaction surely smaller is of no account


@measures
def interact(
    model: LoadedModel,
    data: Data,
    select: str | Selection | Iterable[Head],
    method: str = "mean",
    *,
    statistics: Statistics | str | Path | None = None,
    bins: int = DEFAULT_BINS,
    seed: int | None = None,
    positions: str | Positions = "all",
    metric: str | None = None,
    progress: Progress | bool | None = None,
) -> InteractionResult:
    """Ablate each of several heads, every pair of them, and all together, by one method.

    >>> from ablation_core import interact, load_data, load_model
    >>> model = load_model("opt-mini")
    >>> data = load_data("python-docs", model, predictions=700)
    >>> result = interact(model, data, "0.4 1.3 5.0", statistics="python-docs")
    >>> [pair.pair for pair in result.pairs]
    [('0.4', '1.3'), ('0.4', '5.0'), ('1.3', '5.0')]
    >>> pair = result.pairs[0]  # nats per prediction
    >>> alone = result.singles["0.4"].mean + result.singles["1.3"].mean
    >>> abs(pair.interaction.mean - (pair.joint.mean - alone)) < 1e-12
    True

    Args:
        select: two to `MOST_HEADS` heads, or neurons of so many heads; each head's neurons make one part.
        statistics: for a method that needs them: themselves, their file, or the data set that they were made from.
        bins: the peak's binning.
        seed: of resampling and intervals; by default the data's.
        positions: where in each sequence, as `ablate` has it.
        metric: what changes, such as `"top1"`; by default the logit difference on a task, else the loss.
        progress: called with (ablations done, ablations) after each; True for a bar.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    run = InteractionRun(
        model,
        data,
        Selection.read(select, model.shape),
        choose_method(method, model.modality, data),
        statistics=as_statistics(statistics, model),
        bins=bins,
        seed=seed,
        positions=Positions.read(positions),
        metric=metric,
    )
    with reporting(progress, "interactions") as report:
        for done in run.steps():
            if report:
                report(done, run.ablations)
    return run.result()


class InteractionRun:
    """An experiment on several heads under way: one ablation a step, a result at the end."""

    def __init__(
        self,
        model: LoadedModel,
        data: Data,
        selection: Selection,
        method: Method,
        *,
        statistics: Statistics | None,
        bins: int = DEFAULT_BINS,
        seed: int | None = None,
        positions: Positions = EVERYWHERE,
        metric: str | None = None,
    ) -> None:
        if not 2 <= len(selection.chosen) <= MOST_HEADS:
            raise SelectionError(
                f"Interactions need 2 to {MOST_HEADS} heads, not {len(selection.chosen)}: name them, such as 3.2 5.0 7.1."
            )
        self.model, self.data, self.statistics, self.bins = model, data, statistics, bins
        self.method, self.positions, self.metric = method, positions, _metric(metric, data)
        self.seed = checked_seed(data.seed if seed is None else seed)
        self.clean_cache = CleanPassCache(model, data)
        self.parts = {f"{head[0]}.{head[1]}": (head, neurons) for head, neurons in selection.chosen}
        names = tuple(self.parts)
        self.sets: list[tuple[str, ...]] = [(name,) for name in names]
        self.sets += [*combinations(names, 2), *([names] if len(names) > 2 else [])]
        self._changes: dict[tuple[str, ...], np.ndarray] = {}
        self._baseline = self._sequences = np.zeros(0)

    @property
    def ablations(self) -> int:
        return len(self.sets)

    def steps(self) -> Iterator[int]:
        """Run all ablations that are left; yields how many are done after each."""
        for names in self.sets[len(self._changes) :]:
            chosen = Selection(self.model.shape, tuple(self.parts[name] for name in names))
            spec = AblationSpec(chosen, (self.method,), self.bins, self.seed, self.positions)
            run = AblationRun(self.model, self.data, spec, self.statistics, self.clean_cache).finish()
            baseline, ablated, self._sequences = run.scores()
            self._baseline = baseline[self.metric.name]
            self._changes[names] = ablated[self.method.name].change(self.metric, baseline)
            yield len(self._changes)

    def result(self) -> InteractionResult:
        """What was found, once all ablations are done."""
        names, changes, sequences = tuple(self.parts), self._changes, self._sequences
        pairs = list(combinations(names, 2))
        beyond = [changes[pair] - changes[pair[:1]] - changes[pair[1:]] for pair in pairs]
        whole = changes[names] - sum(changes[name,] for name in names)
        rows = np.stack(
            [*(changes[name,] for name in names), *(changes[pair] for pair in pairs), *beyond, changes[names], whole]
        )
        tests = iter(mean_tests(rows, sequences, self.seed))
        singles = {name: next(tests).interval for name in names}
        joints, interactions = ([next(tests) for _ in pairs] for _ in range(2))
        q = adjusted(np.array([np.nan if test.p is None else test.p for test in interactions]))
        found = tuple(
            PairInteraction(
                pair,
                joint.interval,
                test.interval,
                test.p,
                None if test.p is None else float(level),
                _verdict(
                    test.interval,
                    singles[pair[0]],
                    singles[pair[1]],
                    None if test.p is None else float(level),
                    self.metric.worse,
                ),
            )
            for pair, joint, test, level in zip(pairs, joints, interactions, q, strict=True)
        )
        return InteractionResult(
            describe_run(self.model, self.data, self.statistics),
            self.method.name,
            self.bins,
            self.seed,
            str(self.positions),
            float(self._baseline.mean()),
            singles,
            found,
            next(tests).interval,
            next(tests).interval,
            {"sequence": sequences} | {" ".join(part): change for part, change in changes.items()},
            self.metric.name,
        )


def _metric(name: str | None, data: Data) -> Metric:
    """The metric of this name, or the one that this data is looked at by first."""
    offered = {
        metric.name: metric for metric in metrics_of(data) if not metric.divergence
    }  # a divergence does not add up
    if name is not None and name not in offered:
        raise MethodError(f"Interactions on {data.ref} have no metric {name!r}; choose from {', '.join(offered)}.")
    return main_metric(offered) if name is None else offered[name]


def _verdict(interaction: Interval, one: Interval, other: Interval, q: float | None, worse: int = 1) -> str:
    if interaction.low is None or interaction.high is None or q is None:
        return "undecided"
    if q <= FALSE_DISCOVERIES and interaction.shows_effect:
        return "redundant" if worse * interaction.mean > 0 else "synergistic"
    bound = INDEPENDENT * max(abs(one.mean), abs(other.mean))
    return "independent" if max(abs(interaction.low), abs(interaction.high)) <= bound else "undecided"
