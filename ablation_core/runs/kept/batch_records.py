"""What the ledger of an adaptive sweep keeps of a batch: sums over its sequences, as JSON.

A record by the name "batch 3 guess zero" has the `guesses` of every head of the model and the `counts` of predictions;
one by "batch 3 ab12cd34 clean" the `sums` of every metric and the `counts`; one of a head the `sums` alone.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ablation_core.data.dataset import Data
from ablation_core.engine.metrics import metrics_of
from ablation_core.storage import NUMBER_OR_NULL, as_number, matches_schema

_NAME = re.compile(r"batch ([0-9]{1,9}) (guess )?")


def written(sums: np.ndarray) -> list[list[float | None]]:
    """Rows of numbers; None for what is not a number."""
    return [[as_number(value) for value in row] for row in sums.tolist()]


def read(rows: Sequence[Sequence[float | None]]) -> np.ndarray:
    """The rows as they were before `written`; float64."""
    return np.array([[np.nan if value is None else value for value in row] for row in rows])


def fits_batch(name: str, record: Any, data: Data, heads: int) -> bool:
    """Whether a record is built as its name says: anything may stand in a file.

    Args:
        data: whose batches they are.
        heads: of the whole model.
    """
    place = _NAME.match(name)
    if place is None:
        return False
    field, height = ("guesses", heads) if place[2] else ("sums", len(metrics_of(data)))
    counted = {"counts": [int]} if place[2] or name.endswith(" clean") else {}
    if not matches_schema(record, {field: [[NUMBER_OR_NULL]]} | counted):
        return False
    rows, size = record[field], len(data.numbers(int(place[1])))
    right_size = len(rows) == height and all(len(row) == size for row in rows)
    return right_size and (not counted or len(record["counts"]) == size)
