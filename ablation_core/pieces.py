"""The pieces of a long run: selections that are each ablated by several methods and kept as soon as they are measured.

What a piece gives does not depend on which other methods are measured beside it: a run that is asked for with more
methods later computes only those that are missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from ablation_core.engine import Recording
from ablation_core.experiment import AblationRun, AblationSpec
from ablation_core.ledger import Ledger
from ablation_core.methods import Method
from ablation_core.metrics import Scores, sequence_sums
from ablation_core.selection import Selection
from ablation_core.statistics import Statistics

TESTED = ("loss", "top1", "top10")  # a KL is never negative: whether it differs from 0 is no question


@dataclass(frozen=True)
class Piece:
    """A selection with the name it has in the ledger, and its cost: the blocks that are run for it."""

    name: str
    selection: Selection

    @property
    def cost(self) -> int:
        layers = self.selection.layers
        return self.selection.shape.layers - (layers[0] if layers else 0) + 1  # 1 for the scoring


Rows = dict[str, dict[str, dict]]  # piece → method → the method's row, as in the document of `ablate`


def kept_rows(done: Mapping[str, dict]) -> Rows:
    """The rows of a ledger's records, whichever methods each was measured by."""
    rows: Rows = {}
    for record in done.values():
        rows.setdefault(record["piece"], {}).update({row["method"]: row for row in record["results"]})
    return rows


def kept_baseline(done: Mapping[str, dict]) -> dict | None:
    """The clean model's performance, which all pieces share; None where there is no piece."""
    return next((record["baseline"] for record in done.values()), None)


def measure_pieces(
    pieces: Sequence[Piece],
    methods: Sequence[Method],
    bins: int,
    statistics: Statistics | None,
    recording: Recording,
    ledger: Ledger,
) -> Iterator[float]:
    """Measure what is missing, in this order; yields the share of the work that is done, after each batch.

    A piece is in the ledger before the share that counts it is yielded. Ending the iteration anywhere loses at most the
    piece under way.
    """
    total, done = sum(piece.cost for piece in pieces), 0
    yield 0.0
    for piece in pieces:
        there = kept_rows(ledger.done).get(piece.name, {})
        missing = tuple(method for method in methods if method.name not in there)
        if missing:
            spec = AblationSpec(piece.selection, missing, bins, recording.data.seed)
            run = AblationRun(recording.model, recording.data, spec, statistics, recording)
            while run.steps_done < run.steps:
                run.step()
                if run.steps_done < run.steps:
                    yield (done + piece.cost * run.steps_done / run.steps) / total
            names = " ".join(method.name for method in missing)
            ledger.add(f"{piece.name}: {names}", _record(piece, run))
        done += piece.cost
        yield done / total


def _record(piece: Piece, run: AblationRun) -> dict:
    document = run.finish().result().to_dict()
    baseline, ablated, sequences = run.scores()
    for row in document["results"]:
        row["p_values"] = _p_values(baseline, ablated[row["method"]], sequences)
    return {
        "piece": piece.name,
        "select": document["select"],
        "neurons": document["neurons"],
        "baseline": document["baseline"],
        "results": document["results"],
    }


def _p_values(baseline: Scores, ablated: Scores, sequences: np.ndarray) -> dict[str, float | None]:
    pairs = {metric: (getattr(ablated, metric), getattr(baseline, metric)) for metric in TESTED}
    return {metric: p_value(after - before, sequences) for metric, (after, before) in pairs.items()}


def p_value(differences: np.ndarray, sequences: np.ndarray) -> float | None:
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
