"""Where in the prompt a head matters: heads, or whole layers, ablated at one position at a time.

    result = position_map(model, data, "zero", select="4.5 3.*", positions="-8--1")
    result.changes("zero", "logit_difference")["4.5", -1]

Each cell is an experiment of its own, on all sequences: those that are too short to have its position are not changed, and
count as unchanged. A cell is judged among all cells of the map.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from ablation_core.activations.files import as_statistics
from ablation_core.activations.statistics import Statistics
from ablation_core.data.arguments import measures
from ablation_core.data.dataset import Data
from ablation_core.data.positions import EVERYWHERE, Positions, sequence_lengths
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.errors import DataError, SelectionError
from ablation_core.experiments.provenance import describe_made
from ablation_core.experiments.spec import DEFAULT_BINS
from ablation_core.methods.registry import Method, choose_methods
from ablation_core.models.loaded import LoadedModel
from ablation_core.presentation import Presented
from ablation_core.progress import ShareProgress, finished, reporting_share
from ablation_core.runs.backends import LOCAL, Backend, measure_units
from ablation_core.runs.kept.prediction_files import kept_predictions
from ablation_core.runs.ledger import open_ledger
from ablation_core.runs.records import kept_baseline, kept_rows, kept_runs, results_so_far, tested_alike
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.runs.units import WorkUnit, describe_work
from ablation_core.selection import Selection
from ablation_core.storage import CACHE

Cell = tuple[str, int]  # a row of the map (a head or a layer), and a position


@dataclass(frozen=True)
class PositionMapSpec:
    """What is decided before a map is measured.

    Attributes:
        rows: what is ablated, each a head (`4.5`) or a layer (`3.*`).
        positions: which positions, one at a time; by default every one, counted from the start.
        keep_predictions: whether the cells' changes of single predictions are kept too (`kept/prediction_files.py`).
    """

    methods: tuple[Method, ...]
    rows: tuple[str, ...]
    bins: int = DEFAULT_BINS
    positions: Positions = EVERYWHERE
    keep_predictions: bool = False


@dataclass(frozen=True)
class PositionMapResult(Presented):
    """A map after any number of finished cells.

    Attributes:
        cells: each under the name `cell_name` gives it, as a sweep's heads.
        rows, positions: of the map; negative positions are counted from the end.
        sequences: how many sequences have each position.
    """

    cells: SweepResult
    rows: tuple[str, ...]
    positions: tuple[int, ...]
    sequences: tuple[int, ...]
    share: float = 1.0
    provenance: dict = field(default_factory=dict)

    @property
    def description(self) -> dict:
        return self.cells.description

    @property
    def methods(self) -> list[str]:
        return self.cells.methods

    @property
    def metrics(self) -> list[str]:
        return self.cells.metrics

    @cached_property
    def _places(self) -> dict[str, Cell]:
        return {cell_name(row, position): (row, position) for row in self.rows for position in self.positions}

    def changes(self, method: str, metric: str) -> dict[Cell, float]:
        """Measured cell → mean change over all sequences."""
        return {self._places[name]: value for name, value in self.cells.changes(method, metric).items()}

    def adjusted(self, method: str, metric: str) -> dict[Cell, float | None]:
        """Measured cell → its p-value after Benjamini and Hochberg (1995) over the whole map."""
        return {self._places[name]: q for name, q in self.cells.adjusted(method, metric).items()}

    def significant(self, method: str, metric: str) -> set[Cell]:
        """The cells whose change is significant at 5% false discoveries over the map."""
        return {self._places[name] for name in self.cells.significant(method, metric)}

    def row_of(self, cell: Cell, method: str) -> dict:
        """A measured cell by a method, as in the document of `ablate`, with its `p_values`."""
        return self.cells.rows[cell_name(*cell)][method]

    def to_dict(self) -> dict:
        """The JSON document of `python -m ablation_core sweep --by-position --json`."""
        document = self.cells.to_dict()
        measured = {entry["head"]: entry["results"] for entry in document["heads"]}
        kept = {name: document[name] for name in self.description}
        return kept | {
            "provenance": self.provenance,
            "baseline": document["baseline"],
            "rows": list(self.rows),
            "positions": [
                {"position": position, "sequences": count}
                for position, count in zip(self.positions, self.sequences, strict=True)
            ],
            "cells": [
                {"select": row, "position": position, "results": measured[name]}
                for name, (row, position) in self._places.items()
                if name in measured
            ],
        }


def cell_name(row: str, position: int) -> str:
    """A cell's name in the ledger."""
    return f"{row} @ {position}"


def every_row(model: LoadedModel, whole_layers: bool = False) -> tuple[str, ...]:
    """All heads of a model, or all its layers that have heads, as rows of a map."""
    having = [(layer, heads) for layer, heads in enumerate(model.shape.heads) if heads]
    if whole_layers:
        return tuple(f"{layer}.*" for layer, _ in having)
    return tuple(f"{layer}.{head}" for layer, heads in having for head in range(heads))


def chosen_rows(select: str, model: LoadedModel, whole_layers: bool = False) -> tuple[str, ...]:
    """The heads of a selection, or its layers, as rows of a map.

    Raises:
        SelectionError: nothing is selected, or only some neurons of a head.
    """
    selection = Selection.parse(select, model.shape)
    if not selection.chosen:
        raise SelectionError("Nothing is selected: name the heads of the map, such as 3.2, or leave the selection out.")
    for (layer, head), neurons in selection.chosen:
        if len(neurons) < model.shape.size(layer):
            raise SelectionError(
                f"A map by position is of whole heads; of {layer}.{head} only some neurons are selected."
            )
    if whole_layers:
        return tuple(f"{layer}.*" for layer in selection.layers)
    return tuple(f"{layer}.{head}" for layer, head in selection.heads)


def position_map_steps(
    model: LoadedModel,
    data: Data,
    spec: PositionMapSpec,
    statistics: Statistics | None,
    folder: Path,
    clean_cache: CleanPassCache | None = None,
    engine: Backend = LOCAL,
) -> Generator[PositionMapResult]:
    """Measure a map; yields the result so far, at first with what an earlier run left, then after each batch.

    Args:
        folder: the cache folder, where finished cells are kept.
        clean_cache: clean passes of the same model and data to share with other experiments.
        engine: what measures them; the result does not depend on it.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    positions = spec.positions.single(longest(data))
    sequences = _having(data, positions)
    # The last positions first: in a causal model they leave most to be reused, so that they are soonest done.
    units = [
        WorkUnit(cell_name(row, at), Selection.parse(row, model.shape), Positions(((at, at),)))
        for at in reversed(positions)
        for row in spec.rows
    ]
    description = describe_work(model, data, statistics, spec.bins)
    clean_cache = clean_cache or CleanPassCache(model, data, keys_values=True)
    made = describe_made(model, data)
    with open_ledger(folder, "positions", description) as ledger:
        ledger.done = tested_alike(ledger.done)
        keep = {unit.name for unit in units} if spec.keep_predictions else ()
        shares = measure_units(units, spec.methods, spec.bins, statistics, clean_cache, ledger, engine, keep)
        so_far = results_so_far(shares, ledger.done, lambda done: _cells(description, spec, positions, done))
        for cells, share in so_far:
            kept = replace(cells, predictions=kept_predictions(ledger.path, cells.heads))
            yield PositionMapResult(kept, spec.rows, positions, sequences, share, made)


def kept_position_map(
    model: LoadedModel, data: Data, spec: PositionMapSpec, statistics: Statistics | None, folder: Path
) -> PositionMapResult | None:
    """What earlier runs have left of a map in the cache folder; None where there is nothing."""
    description = describe_work(model, data, statistics, spec.bins)
    kept = next((run for run in kept_runs(folder, "positions", model.fingerprint) if run.run == description), None)
    if kept is None or not kept.done:
        return None
    positions = spec.positions.single(longest(data))
    cells = _cells(description, spec, positions, tested_alike(kept.done))
    cells = replace(cells, predictions=kept_predictions(kept.path, cells.heads))
    return PositionMapResult(cells, spec.rows, positions, _having(data, positions))


def _cells(description: dict, spec: PositionMapSpec, positions: Iterable[int], done: Mapping[str, dict]) -> SweepResult:
    """What a ledger has of a map, as a sweep whose heads are the cells."""
    names = tuple(cell_name(row, at) for row in spec.rows for at in positions)
    described = description | {"methods": [method.name for method in spec.methods]}
    return SweepResult(described, kept_baseline(done), kept_rows(done), names)


@measures
def position_map(
    model: LoadedModel,
    data: Data,
    method: str | Sequence[str] = "mean",
    *,
    select: str | None = None,
    whole_layers: bool = False,
    positions: str | Positions = "all",
    statistics: Statistics | str | Path | None = None,
    bins: int = DEFAULT_BINS,
    keep_predictions: bool = False,
    cache: str | Path = CACHE,
    backend: Backend = LOCAL,
    progress: ShareProgress | bool | None = None,
) -> PositionMapResult:
    """Ablate heads, or whole layers, at one position at a time, by one or several methods.

    >>> from tempfile import TemporaryDirectory
    >>> from ablation_core import load_data, load_model, position_map
    >>> model = load_model("opt-mini")
    >>> data = load_data("task:induction", model, predictions=10)
    >>> with TemporaryDirectory() as folder:  # leave `cache` out to keep what is measured
    ...     result = position_map(model, data, "zero", select="4.5", positions="-2--1", cache=folder)
    >>> list(result.changes("zero", "logit_difference"))  # (head, position) → change in nats
    [('4.5', -2), ('4.5', -1)]

    Args:
        method: a name of `METHODS`, several, or `all` that need no learning.
        select: the heads of the map, as text (`"3.2 5.*"`); by default all.
        whole_layers: ablate each layer of them as a whole.
        positions: which ones: all (from the start), 3-7, -8--1 (counted from the end), several by commas.
        statistics: for the methods that need them: themselves, their file, or the data set that they were made from.
        bins: the peak's binning.
        keep_predictions: keep every cell's changes of single predictions too, for `to_frame("predictions")`: 4 bytes for
            each cell, method and prediction.
        cache: the folder where finished cells are kept.
        backend: what measures them: this process, or a cluster; the result does not depend on it.
        progress: called with the share done; True for a bar.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    rows = every_row(model, whole_layers) if select is None else chosen_rows(select, model, whole_layers)
    methods = tuple(choose_methods([method] if isinstance(method, str) else method, model.modality, data))
    spec = PositionMapSpec(methods, rows, bins, Positions.read(positions), keep_predictions)
    known = as_statistics(statistics, model, Path(cache))
    with reporting_share(progress, "map by position") as report:
        return finished(position_map_steps(model, data, spec, known, Path(cache), engine=backend), report)


def longest(data: Data) -> int:
    """Tokens of the longest sequence, of tasks the longest prompt."""
    if not data.is_task and data.seq_len is None:
        raise DataError("A map by position is of texts and tasks; images have no positions to name.")
    return max(sequence_lengths(data))


def _having(data: Data, positions: Iterable[int]) -> tuple[int, ...]:
    """How many sequences have each of these positions."""
    found = []
    for at in positions:
        count = 0
        for batch in data:
            rows, length = batch.inputs["input_ids"].shape
            there = Positions(((at, at),)).mask(batch)(torch.empty(rows, length, 1)).flatten(1).any(1)
            count += int(there.sum()) if batch.answers is None else len(batch.answers.item[there].unique())
        found.append(count)
    return tuple(found)
