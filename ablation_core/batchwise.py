"""Many heads by many methods, one batch at a time: what an adaptive sweep runs on.

A batch is recorded once and serves every head that still needs it; the clean run's predictions are scored once for all
of them. What each head gives is kept as sums over each sequence, which is all that later looks need.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from torch import Tensor

from ablation_core import engine
from ablation_core.data import IGNORED, Batch, Data
from ablation_core.errors import ModelError
from ablation_core.ledger import Ledger
from ablation_core.methods import Method, constant_values
from ablation_core.metrics import METRICS, Scores, sequence_sums
from ablation_core.models import LoadedModel
from ablation_core.results import as_number
from ablation_core.selection import Head, Selection
from ablation_core.statistics import Statistics

OUTPUT_BYTES = 1 << 28  # ablated outputs that wait to be scored together

Wanted = Sequence[tuple[int, Sequence[Method]]]  # a head's number, and by which methods it is to be run


class Batchwise:
    """What each head gave in each sequence, sequences in an order drawn by the data's seed.

    Args:
        batch_size: sequences run at once.
        heads: the heads by their numbers.

    Attributes:
        sums: method → (metrics, heads, sequences), float64: sums over a sequence's predictions; NaN where not measured.
        baseline: the clean model's, (metrics, sequences).
        counts: predictions in each sequence measured so far, else 0; (sequences,).
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
    ) -> None:
        self.model, self.original, self.heads = model, data, heads
        self.statistics, self.bins = statistics, bins
        self.order = np.random.default_rng(data.seed).permutation(data.sequences)
        self.data = replace(data, batch_size=batch_size, rows=lambda numbers: data.rows(self.order[list(numbers)]))
        self.sums = {m.name: np.full((len(METRICS), len(heads), data.sequences), np.nan) for m in methods}
        self.baseline = np.full((len(METRICS), data.sequences), np.nan)
        self.counts = np.zeros(data.sequences)
        self.taken = 0
        self._recording = engine.Recording(model, self.data, limit=0)  # no batch is asked for twice
        self._ledger: Ledger | None = None
        self._there: dict[str, dict] = {}  # what the ledger has, by head and method

    def attach(self, ledger: Ledger) -> None:
        """Take over what an earlier run left, and keep there what is measured from now on."""
        self._ledger = ledger
        for record in ledger.done.values():
            self._there |= record

    def measure(self, batch: int, wanted: Wanted) -> Generator[None]:
        """Run heads on one batch, a layer a step; what the ledger has is not run again.

        A step is in the ledger before it is yielded.

        Raises:
            ModelError: the clean model itself gives no numbers.
        """
        places = list(self.data.numbers(batch))
        recorded: engine.Recorded | None = None
        donated: dict[str, Mapping[int, Tensor]] = {}
        for _, group in groupby(sorted(wanted, key=lambda row: self.heads[row[0]]), lambda row: self.heads[row[0]][0]):
            missing = []
            for number, methods in group:
                for method in methods:
                    name = self._piece(batch, number, method)
                    if name in self._there:
                        self.sums[method.name][:, number, places] = _read(self._there[name]["sums"])
                        self.taken += sum(self._there[_clean(batch)]["counts"])
                    else:
                        missing.append((number, method))
            if missing:
                if recorded is None:
                    recorded = self._recording[batch]
                    donated = self._donated(places, wanted)
                self._run(batch, recorded, missing, donated)
            clean = self._there[_clean(batch)]
            self.baseline[:, places], self.counts[places] = _read(clean["sums"]), clean["counts"]
            yield

    def _donated(self, places: Sequence[int], wanted: Wanted) -> dict[str, Mapping[int, Tensor]]:
        """The donors' pre-outs of every layer, for those methods that have donors."""
        numbers = [int(number) for number in self.order[places]]  # so that each sequence has the donor it always has
        layers = range(self.model.num_layers)

        def pre_outs(method: Method) -> Mapping[int, Tensor]:
            donor = method.donor(self.model, self.original, numbers, self.original.seed)
            return engine.pre_outs(self.model, donor, layers)

        def once(method: Method) -> Mapping[int, Tensor]:
            return self._recording.once(method.name, lambda: pre_outs(method))

        donors = {method.name: method for _, methods in wanted for method in methods if method.donor}
        return {name: once(method) if method.one_donor else pre_outs(method) for name, method in donors.items()}

    def _run(
        self,
        batch: int,
        recorded: engine.Recorded,
        missing: Sequence[tuple[int, Method]],
        donated: Mapping[str, Mapping[int, Tensor]],
    ) -> None:
        sequences, places = _sequences(recorded.batch), list(self.data.numbers(batch))
        at_once = max(1, OUTPUT_BYTES // max(1, recorded.bytes // len(recorded.outputs)))
        for first in range(0, len(missing), at_once):
            part = missing[first : first + at_once]
            outputs = [
                engine.ablated_output(self.model, recorded, self._replacements(number, method, donated))
                for number, method in part
            ]
            clean, *ablated = engine.score_outputs(self.model, recorded, outputs)
            if not np.isfinite(clean.loss).all():
                raise ModelError(
                    f"{self.model.ref} in {self.model.dtype} gives losses that are NaN or infinite on {self.data.ref}, "
                    f"even unablated; try --dtype float32, or another model."
                )
            counts = np.bincount(sequences).tolist()
            record = {_clean(batch): {"sums": _written(_sums(clean, sequences)), "counts": counts}}
            for (number, method), scores in zip(part, ablated, strict=True):
                sums = self.sums[method.name][:, number, places] = _sums(scores, sequences)
                record[self._piece(batch, number, method)] = {"sums": _written(sums)}
                self.taken += len(sequences)
            self._ledger.add(" ".join(list(record)[1:]), record)  # one line for all: each line waits for the disk
            self._there |= record

    def _replacements(
        self, number: int, method: Method, donated: Mapping[str, Mapping[int, Tensor]]
    ) -> dict[int, engine.Replace]:
        selection = Selection.of_heads([self.heads[number]], self.model.shape)
        if method.donor:
            return engine.donor_replacements(selection, donated[method.name])
        values = constant_values(method, self.statistics, selection, self.bins)
        return engine.constant_replacements(selection, values, self.model)

    def _piece(self, batch: int, number: int, method: Method) -> str:
        layer, head = self.heads[number]
        return f"batch {batch} head {layer}.{head} {method.name}"


def _clean(batch: int) -> str:
    return f"batch {batch} clean"


def _sequences(batch: Batch) -> np.ndarray:
    """The row of each scored prediction, in the order in which they are scored."""
    targets = batch.targets.cpu().numpy()
    return np.arange(len(targets)) if targets.ndim == 1 else np.nonzero(targets != IGNORED)[0]


def _sums(scores: Scores, sequences: np.ndarray) -> np.ndarray:
    return sequence_sums(np.stack([getattr(scores, name) for name in METRICS]), sequences)[0]


def _written(sums: np.ndarray) -> list[list[float | None]]:
    return [[as_number(value) for value in row] for row in sums.tolist()]


def _read(written: Sequence[Sequence[float | None]]) -> np.ndarray:
    return np.array([[np.nan if value is None else value for value in row] for row in written])
