"""The records that a ledger keeps of finished units, read back: which are whole, and which are tested alike.

Needs no model, so that a page can show a saved run before anything heavy is imported.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

from ablation_core.engine.metrics import figures, metrics_in
from ablation_core.runs.ledger import KeptRun, find_runs
from ablation_core.storage import NUMBER_OR_NULL, matches_schema

Result = TypeVar("Result")
TESTED_BY = "BCa interval"  # what a record's p-values belong to; in older ones they are t-tests, and nothing says so

_SPAN: dict[str, Any] = {"mean": NUMBER_OR_NULL, "low": NUMBER_OR_NULL, "high": NUMBER_OR_NULL}
_ROW: dict[str, Any] = {"method": str, "change": {"loss": _SPAN}, "p_values": dict}
_RECORD: dict[str, Any] = {"piece": str, "baseline": {"loss": NUMBER_OR_NULL}, "results": [_ROW]}
_MADE: dict[str, Any] = {
    "model": {"ref": str, "fingerprint": str, "dtype": str},
    "data": {"ref": str, "fingerprint": str, "predictions": int, "seq_len": (int, NoneType), "seed": int},
}
_RUN: dict[str, Any] = _MADE | {"bins": int, "statistics": (dict, NoneType)}


def kept_runs(folder: Path, kind: str, model_fingerprint: str, data_ref: str | None = None) -> list[KeptRun]:
    """The runs that `find_runs` finds, as far as they are built as this program builds them; none of a hooked model."""
    kept = []
    for run in find_runs(folder, kind, model_fingerprint, data_ref):
        statistics = run.run.get("statistics") or {"digest": ""}
        done = {name: record for name, record in run.done.items() if _is_record(record)}
        if (
            "hooks" not in run.run
            and matches_schema(run.run, _RUN)
            and matches_schema(statistics, {"digest": str})
            and done
        ):
            kept.append(replace(run, done=done))
    return kept


Rows = dict[str, dict[str, dict]]  # unit → method → the method's row, as in the document of `ablate`


def kept_rows(done: Mapping[str, dict]) -> Rows:
    """The rows of a ledger's records, whichever methods each was measured by."""
    rows: Rows = {}
    for record in done.values():
        if _is_record(record):  # else it is measured again
            rows.setdefault(record["piece"], {}).update({row["method"]: row for row in record["results"]})
    return rows


def kept_baseline(done: Mapping[str, dict]) -> dict | None:
    """The clean model's performance, which all units share; None where there is no unit."""
    return next((record["baseline"] for record in done.values() if _is_record(record)), None)


def _is_record(record: Any) -> bool:
    """Whether a record is built as `record_of` builds it. It need not have every metric: some are younger than it."""
    if not matches_schema(record, _RECORD):
        return False
    metrics = metrics_in(record["results"][0]["change"]) if record["results"] else ()
    names = dict.fromkeys(figures({metric.name: 0.0 for metric in metrics}), NUMBER_OR_NULL)
    row = names | {
        "change": {metric.name: _SPAN for metric in metrics},
        "p_values": {metric.name: NUMBER_OR_NULL for metric in metrics if metric.tested},
    }
    clean = dict.fromkeys(figures({m.name: 0.0 for m in metrics}, divergences=False), NUMBER_OR_NULL)
    return matches_schema(record, {"baseline": clean, "results": [row]})


def tested_alike(done: Mapping[str, dict]) -> dict[str, dict]:
    """The records whose p-values belong to their intervals; the others are to be measured again."""
    return {
        name: record
        for name, record in done.items()
        if matches_schema(record, {"tested_by": str}) and record["tested_by"] == TESTED_BY
    }


def results_so_far(
    shares: Iterable[float], done: Mapping[str, dict], result_of: Callable[[Mapping[str, dict]], Result]
) -> Iterator[tuple[Result, float]]:
    """With each share of the work, the result of what is done by then; it is built again only when there is more."""
    count, result = len(done), result_of(done)
    for share in shares:
        if len(done) != count:
            count, result = len(done), result_of(done)
        yield result, share
