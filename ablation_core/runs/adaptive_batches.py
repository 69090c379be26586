"""Many heads by many methods, one batch at a time: what an adaptive sweep runs on.

A batch is recorded once and serves every head that still needs it; the clean run's predictions are scored once for all
of them. What each head gives is kept as sums over each sequence, which is all that later looks need. Before any head
is run, one pass forwards and one back over each batch estimate what every head would give: gradient times displacement.
"""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
from torch import Tensor

from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import IGNORED, Batch, Data, predicted_rows
from ablation_core.data.positions import EVERYWHERE, Positions
from ablation_core.engine import clean_passes, forward, hooks, scoring
from ablation_core.engine.clean_pass import CleanPass
from ablation_core.engine.gradients import linearise
from ablation_core.engine.kept_bytes import kept_bytes
from ablation_core.engine.metrics import Metric, main_metric, metrics_of
from ablation_core.engine.nonfinite import no_numbers
from ablation_core.engine.scores import Scores
from ablation_core.errors import DataError
from ablation_core.experiments.ablation import WAITING_BYTES
from ablation_core.experiments.head_displacements import HeadDisplacements
from ablation_core.methods.optimal import training_data
from ablation_core.methods.positional import positional_means
from ablation_core.methods.registry import METHODS, Method, constant_values
from ablation_core.models.loaded import LoadedModel
from ablation_core.runs.kept.batch_records import fits_batch, read, written
from ablation_core.runs.ledger import Ledger
from ablation_core.runs.sweep_result import every_head
from ablation_core.selection import Head, Selection
from ablation_core.stats.intervals import sequence_sums
from ablation_core.stats.regression_estimator import drawing_order

LEAST_SIZE = 0.2  # of a sequence, against a mean of 1

Wanted = Sequence[tuple[int, Sequence[Method]]]  # a head's number, and by which methods it is to be run


class HeadMeasurements:
    """What each head gave in each sequence, sequences in an order drawn by the data's seed and their sizes.

    Args:
        batch_size: sequences run at once.
        heads: the heads by their numbers.
        positions: where in each sequence they are ablated.

    Attributes:
        metrics: those that apply to the data.
        judged: the metric that verdicts go by, and estimates are made of.
        sums: method → (metrics, heads, sequences), float64: sums over a sequence's predictions; NaN where not measured.
        baseline: the clean model's, (metrics, sequences).
        counts: predictions in each sequence estimated or measured so far, else 0; (sequences,).
        sizes: what the order was drawn by (`drawing_order`), (sequences,): all alike until `estimate` is done.
        first_order: method → (heads, sequences): first-order estimates of the changes of the sums of that metric; None
            before, and where the model cannot be differentiated or answers have several tokens.
        taken: how many ablated predictions were needed so far, those from the ledger included.
    """

    def __init__(
        self,
        model: LoadedModel,
        data: Data,
        batch_size: int,
        heads: Sequence[Head],
        methods: Sequence[Method],
        statistics: Statistics | None,
        bins: int,
        positions: Positions = EVERYWHERE,
    ) -> None:
        self.model, self.original, self.heads = model, data, heads
        self.statistics, self.bins, self.positions = statistics, bins, positions
        self._put_in_order(np.ones(data.sequences))
        self.data = replace(
            data, batch_size=batch_size, rows=lambda numbers: data.rows(self.order[list(numbers)].tolist())
        )
        self.metrics = metrics_of(data)
        self.judged = main_metric(metric.name for metric in self.metrics)
        self.sums = {m.name: np.full((len(self.metrics), len(heads), data.sequences), np.nan) for m in methods}
        self.baseline = np.full((len(self.metrics), data.sequences), np.nan)
        self.counts = np.zeros(data.sequences)
        self.first_order: dict[str, np.ndarray] | None = None
        self.taken = 0
        reused = not positions.everywhere
        # No batch is asked for twice.
        self._recording = clean_passes.CleanPassCache(model, self.data, limit=0, keys_values=reused)
        self._ledger: Ledger | None = None
        self._there: dict[str, dict] = {}  # what the ledger has, by head and method

    def attach(self, ledger: Ledger) -> None:
        """Take over what an earlier run left, as far as it is built as here, and keep there what is measured from now on."""
        self._ledger, heads = ledger, sum(self.model.shape.heads)
        for record in ledger.done.values():
            self._there |= {name: one for name, one in record.items() if fits_batch(name, one, self.data, heads)}

    def estimate(self, methods: Sequence[Method]) -> Generator[None]:
        """Estimate every head's changes in all sequences, a batch a step, and put these in order by what they show.

        What the ledger has is not run again. The order depends on no method that was asked for, so that a later sweep
        by others finds what was measured.

        Raises:
            ModelError: the clean model itself gives no numbers.
        """
        assert self._ledger is not None, "attach a ledger first"
        if not self.original.one_answer:
            return
        every = list({method.name: method for method in (METHODS["zero"], *methods)}.values())
        seed, records = self.original.seed, []
        displacements = HeadDisplacements(
            self.model,
            self.original,
            every,
            statistics=self.statistics,
            bins=self.bins,
            seed=seed,
            positions=self.positions,
        )
        for batch in range(len(self.data)):
            names = {method.name: f"batch {batch} guess {method.name}" for method in every}
            if not self._there.keys() >= set(names.values()):
                try:
                    estimated = self._estimated(batch, displacements)
                except RuntimeError:  # such as kernels of whole numbers, which have no gradient
                    return
                record = {names[name]: one for name, one in estimated.items() if names[name] not in self._there}
                self._ledger.add(" ".join(record), record)
                self._there |= record
            records.append({name: self._there[unit] for name, unit in names.items()})
            yield
        first_order = {m.name: np.concatenate([read(one[m.name]["guesses"]) for one in records], 1) for m in every}
        self._put_in_order(_sizes(first_order["zero"]))
        self.counts[:] = np.concatenate([one["zero"]["counts"] for one in records])[self.order]
        place = {head: place for place, head in enumerate(every_head(self.model))}
        places = [place[head] for head in self.heads]
        self.first_order = {m.name: first_order[m.name][places][:, self.order] for m in methods}

    def _clean(self, batch: int) -> str:
        """The ledger's name of a batch's clean run: with its sequences, which in another order are others."""
        numbers = self.order[list(self.data.numbers(batch))]
        return f"batch {batch} {hashlib.sha256(numbers.astype(np.int64).tobytes()).hexdigest()[:8]} clean"

    def _put_in_order(self, sizes: np.ndarray) -> None:
        self.order = drawing_order(sizes, self.original.seed)
        self.sizes = sizes[self.order]

    def _estimated(self, batch: int, displacements: HeadDisplacements) -> dict[str, dict]:
        """Method → the estimates of a batch, of the data's own order: (all heads, sequences); what the ledger keeps."""
        numbers = list(self.data.numbers(batch))
        lines = linearise(self.model, self.original.rows(numbers), 0, (self.original.seed, batch))
        moved = displacements.of(numbers, lines.z_values)
        products = displacements.products(lines.slope(self.judged.slope_of), moved, len(numbers))
        layers, counts = range(self.model.num_layers), [int(count) for count in lines.predictions]
        return {
            name: {
                "guesses": written(np.concatenate([products[name, layer][0].T for layer in layers])),
                "counts": counts,
            }
            for name in moved
        }

    def measure(self, batch: int, wanted: Wanted) -> Generator[None]:
        """Run heads on one batch, a layer a step; what the ledger has is not run again.

        A step is in the ledger before it is yielded.

        Raises:
            ModelError: the clean model itself gives no numbers.
            DataError: a sequence has no prediction.
        """
        places = list(self.data.numbers(batch))
        clean_pass: CleanPass | None = None
        resampled: dict[str, Mapping[int, Tensor]] = {}
        for _, group in groupby(sorted(wanted, key=lambda row: self.heads[row[0]]), lambda row: self.heads[row[0]][0]):
            missing = []
            for number, methods in group:
                for method in methods:
                    name = self._unit_name(batch, number, method)
                    if name in self._there and self._clean(batch) in self._there:
                        self.sums[method.name][:, number, places] = read(self._there[name]["sums"])
                        self.taken += sum(self._there[self._clean(batch)]["counts"])
                    else:
                        missing.append((number, method))
            if missing:
                if clean_pass is None:
                    clean_pass = replace(
                        self._recording[batch], keeps=clean_passes.ByteBudget(kept_bytes(self.model.device)[1])
                    )
                    resampled = self._donated(places, wanted)
                self._run(batch, clean_pass, missing, resampled)
            clean = self._there[self._clean(batch)]
            self.baseline[:, places], self.counts[places] = read(clean["sums"]), clean["counts"]
            yield

    def _donated(self, places: Sequence[int], wanted: Wanted) -> dict[str, Mapping[int, Tensor]]:
        """What is put in z's place in every layer, for those methods that have sources, or means by position."""
        numbers = [int(number) for number in self.order[places]]  # so that each sequence has the source it always has
        layers = range(self.model.num_layers)

        def z_values(method: Method) -> Mapping[int, Tensor]:
            assert method.source is not None
            source = method.source(self.model, self.original, numbers, self.original.seed)
            return forward.z_values(self.model, source, layers)

        def once(method: Method) -> Mapping[int, Tensor]:
            return self._recording.once(method.name, lambda: z_values(method))

        def means() -> Mapping[int, Tensor]:
            training = training_data(self.model, self.original)
            return self._recording.once(positional_means, lambda: positional_means(self.model, training, self.original))

        every = {method.name: method for _, methods in wanted for method in methods}
        sources = {name: method for name, method in every.items() if method.source}
        found = {name: once(method) if method.one_source else z_values(method) for name, method in sources.items()}
        return found | {name: means() for name, method in every.items() if method.positional}

    def _run(
        self,
        batch: int,
        clean_pass: CleanPass,
        missing: Sequence[tuple[int, Method]],
        resampled: Mapping[str, Mapping[int, Tensor]],
    ) -> None:
        assert self._ledger is not None, "attach a ledger first"
        sequences, places = predicted_rows(clean_pass.batch), list(self.data.numbers(batch))
        counts = np.bincount(sequences, minlength=len(places)).tolist()
        if not all(counts):
            raise DataError(
                f"Nothing is scored in a sequence of {self.data.ref}: every target is {IGNORED}, which stands for ignored. "
                f"An adaptive sweep needs a prediction in each; sweep without --adaptive."
            )
        at_once = max(1, WAITING_BYTES // hooks.hidden_of(clean_pass.outputs[-1]).nbytes)
        for first in range(0, len(missing), at_once):
            part = missing[first : first + at_once]
            starts = self.positions.firsts(clean_pass.batch)
            ablations = [
                clean_passes.Ablation(self._replacements(number, method, resampled, clean_pass.batch), starts)
                for number, method in part
            ]
            outputs: list[Any] = [None] * len(part)
            for number, found in clean_passes.ablated_together(self.model, clean_pass, ablations):
                outputs[number] = found[-1]
            together = clean_passes.most_together(self.model, clean_pass, starts)
            clean, *ablated = scoring.score_outputs(self.model, clean_pass, outputs, self.metrics, together)
            if not np.isfinite(clean.loss).all():
                raise no_numbers(self.model, self.data.ref, clean_pass.outputs)
            record = {self._clean(batch): {"sums": written(_sums(clean, sequences, self.metrics)), "counts": counts}}
            for (number, method), scores in zip(part, ablated, strict=True):
                sums = self.sums[method.name][:, number, places] = _sums(scores, sequences, self.metrics)
                record[self._unit_name(batch, number, method)] = {"sums": written(sums)}
                self.taken += len(sequences)
            self._ledger.add(" ".join(list(record)[1:]), record)  # one line for all: each line waits for the disk
            self._there |= record

    def _replacements(
        self, number: int, method: Method, resampled: Mapping[str, Mapping[int, Tensor]], batch: Batch
    ) -> dict[int, hooks.Replace]:
        selection = Selection.of_heads([self.heads[number]], self.model.shape)
        if method.name in resampled:
            replacements = clean_passes.resampled_replacements(selection, resampled[method.name])
        else:
            values = constant_values(method, self.statistics, selection, self.bins)
            replacements = clean_passes.constant_replacements(selection, values, self.model)
        if self.positions.everywhere:
            return replacements
        return clean_passes.at_positions(replacements, self.positions.mask(batch))

    def _unit_name(self, batch: int, number: int, method: Method) -> str:
        layer, head = self.heads[number]
        return self._clean(batch).removesuffix("clean") + f"head {layer}.{head} {method.name}"


def _sizes(first_order: np.ndarray) -> np.ndarray:
    """How much tends to happen in a sequence, (sequences,), mean about 1: the mean over heads of each one's |estimate|.

    Never little: what the estimates miss must not depend on a few sequences that count for many.
    """
    spread = first_order.std(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.nan_to_num(np.abs(first_order) / spread, posinf=0.0).mean(0)
    return LEAST_SIZE + (size / size.mean() if size.any() else np.ones(len(size)))


def _sums(scores: Scores, sequences: np.ndarray, metrics: Sequence[Metric]) -> np.ndarray:
    return sequence_sums(np.stack([scores[metric.name] for metric in metrics]), sequences)[0]
