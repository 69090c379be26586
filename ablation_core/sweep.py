"""Every head, one at a time, by one or several methods, on the same predictions.

Clean passes are shared, each head resumes from its layer, and finished heads are kept: an interrupted sweep goes on
where it stopped and ends with the same numbers.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import false_discovery_control, t

from ablation_core.data import Data
from ablation_core.describe import describe_run
from ablation_core.engine import Recording
from ablation_core.experiment import AblationRun, AblationSpec
from ablation_core.ledger import open_ledger
from ablation_core.methods import Method
from ablation_core.metrics import sequence_sums
from ablation_core.models import LoadedModel
from ablation_core.selection import Head, Selection
from ablation_core.statistics import Statistics

FALSE_DISCOVERIES = 0.05


@dataclass(frozen=True)
class SweepResult:
    """One record a head, in order of layer and head; see `to_dict`."""

    description: dict
    baseline: dict
    heads: tuple[dict, ...]

    def to_dict(self) -> dict:
        """The JSON document of `python -m ablation_core sweep --json`.

        For each method of each head: its performance, its changes with intervals, `p` (a t-test of the change of loss
        against 0, over sequences), `q` (p after Benjamini and Hochberg over the heads of the method) and
        `told_from_no_effect`, which is whether q is at most 5 %.
        """
        document = self.description | {"baseline": self.baseline, "heads": [_copied(head) for head in self.heads]}
        for number in range(len(self.heads[0]["results"]) if self.heads else 0):
            rows = [head["results"][number] for head in document["heads"]]
            adjusted = false_discovery_control([1.0 if row["p"] is None else row["p"] for row in rows])
            for row, q in zip(rows, adjusted, strict=True):
                row["q"] = None if row["p"] is None else float(q)
                row["told_from_no_effect"] = row["p"] is not None and bool(q <= FALSE_DISCOVERIES)
        return document


def _copied(head: dict) -> dict:
    return head | {"results": [dict(row) for row in head["results"]]}


def every_head(model: LoadedModel) -> list[Head]:
    return [(layer, head) for layer, count in enumerate(model.shape.heads) for head in range(count)]


def sweep(
    model: LoadedModel,
    data: Data,
    methods: Iterable[Method],
    statistics: Statistics | None,
    bins: int,
    folder: Path,
    heads: list[Head] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SweepResult:
    """Ablate each head by itself.

    Args:
        folder: the cache folder, where finished heads are kept.
        heads: these only; by default all.
        progress: called with (heads done, heads) after each.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    methods, heads = tuple(methods), heads or every_head(model)
    description = describe_run(model, data, statistics) | {"bins": bins, "methods": [m.name for m in methods]}
    recording = Recording(model, data)
    with open_ledger(folder, "sweep", description) as ledger:
        for done, head in enumerate(heads, 1):
            selection = Selection.of_heads([head], model.shape)
            if str(selection) not in ledger.done:
                spec = AblationSpec(selection, methods, bins, data.seed)
                ledger.add(str(selection), _measure(AblationRun(model, data, spec, statistics, recording)))
            progress(done, len(heads))
        records = [ledger.done[str(Selection.of_heads([head], model.shape))] for head in heads]
    return SweepResult(description, records[0]["baseline"], tuple(records))


def _measure(run: AblationRun) -> dict:
    document = run.finish().result().to_dict()
    baseline, ablated, sequences = run.scores()
    for row in document["results"]:
        row["p"] = _p_value(ablated[row["method"]].loss - baseline.loss, sequences)
    return {"head": document["select"], "baseline": document["baseline"], "results": document["results"]}


def _p_value(differences: np.ndarray, sequences: np.ndarray) -> float | None:
    """Whether the mean change is 0: a t-test of the ratio of sums, linearised, so that a last window scored in part
    counts as its part (Cochran 1977, section 6.3). None where there are fewer than two sequences or no numbers.
    """
    (sums,), counts = sequence_sums(differences[None], sequences)
    mean, size = sums.sum() / counts.sum(), len(counts)
    if size < 2 or not np.isfinite(mean):
        return None
    error = np.sqrt(((sums - mean * counts) ** 2).sum() * size / (size - 1)) / counts.sum()
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * t.sf(abs(mean) / error, size - 1))
