"""The pieces of a long run: selections that are each ablated by several methods and kept as soon as they are measured.

What a piece gives does not depend on which other methods are measured beside it: a run that is asked for with more
methods later computes only those that are missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from ablation_core.engine.metrics import METRICS, Scores
from ablation_core.experiments.ablation import AblationRun
from ablation_core.runs.ledger import KeptRun, find_runs
from ablation_core.selection import Selection
from ablation_core.stats.intervals import p_value
from ablation_core.storage import NUMBER_OR_NULL, matches_schema

TESTED = ("loss", "top1", "top10")  # a KL is never negative: whether it differs from 0 is no question


@dataclass(frozen=True)
class WorkUnit:
    """A selection with the name it has in the ledger, and its cost: the blocks that are run for it."""

    name: str
    selection: Selection

    @property
    def cost(self) -> int:
        layers = self.selection.layers
        return self.selection.shape.layers - (layers[0] if layers else 0) + 1  # 1 for the scoring


_SPAN: dict[str, Any] = {"mean": NUMBER_OR_NULL, "low": NUMBER_OR_NULL, "high": NUMBER_OR_NULL}
_PERFORMANCE: dict[str, Any] = dict.fromkeys(("loss", "perplexity", "top1", "top10"), NUMBER_OR_NULL)
_TESTS: dict[str, Any] = {"p_values": dict.fromkeys(TESTED, NUMBER_OR_NULL)}
_ROW: dict[str, Any] = (
    _PERFORMANCE | _TESTS | {"method": str, "kl": NUMBER_OR_NULL, "change": dict.fromkeys(METRICS, _SPAN)}
)
_RECORD: dict[str, Any] = {"piece": str, "baseline": _PERFORMANCE, "results": [_ROW]}
_MADE: dict[str, Any] = {
    "model": {"ref": str, "fingerprint": str, "dtype": str},
    "data": {"ref": str, "fingerprint": str, "predictions": int, "seq_len": (int, NoneType), "seed": int},
}
_RUN: dict[str, Any] = _MADE | {"bins": int, "statistics": (dict, NoneType)}


def kept_runs(folder: Path, kind: str, model_fingerprint: str) -> list[KeptRun]:
    """The runs that `find_runs` finds, as far as they are built as this program builds them."""
    kept = []
    for run in find_runs(folder, kind, model_fingerprint):
        statistics = run.run.get("statistics") or {"digest": ""}
        done = {name: record for name, record in run.done.items() if matches_schema(record, _RECORD)}
        if matches_schema(run.run, _RUN) and matches_schema(statistics, {"digest": str}) and done:
            kept.append(replace(run, done=done))
    return kept


Rows = dict[str, dict[str, dict]]  # piece → method → the method's row, as in the document of `ablate`


def kept_rows(done: Mapping[str, dict]) -> Rows:
    """The rows of a ledger's records, whichever methods each was measured by."""
    rows: Rows = {}
    for record in done.values():
        if matches_schema(record, _RECORD):  # else it is measured anew
            rows.setdefault(record["piece"], {}).update({row["method"]: row for row in record["results"]})
    return rows


def kept_baseline(done: Mapping[str, dict]) -> dict | None:
    """The clean model's performance, which all pieces share; None where there is no piece."""
    return next((record["baseline"] for record in done.values() if matches_schema(record, _RECORD)), None)


def record_of(unit: WorkUnit, run: AblationRun) -> dict:
    """What the ledger keeps of a piece: the run's rows, with the p-values of its tests."""
    document = run.finish().result().to_dict()
    baseline, ablated, sequences = run.scores()
    for row in document["results"]:
        row["p_values"] = _p_values(baseline, ablated[row["method"]], sequences)
    return {
        "piece": unit.name,
        "select": document["select"],
        "neurons": document["neurons"],
        "baseline": document["baseline"],
        "results": document["results"],
    }


def _p_values(baseline: Scores, ablated: Scores, sequences: np.ndarray) -> dict[str, float | None]:
    pairs = {metric: (getattr(ablated, metric), getattr(baseline, metric)) for metric in TESTED}
    return {metric: p_value(after - before, sequences) for metric, (after, before) in pairs.items()}
