"""What measures the units of a long run: an engine takes tasks and yields what becomes of them, in any order.

The local engine runs them in this process. Another may run them elsewhere, as long as each is measured by
`measure_together`: then its numbers are the local engine's.
"""

from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from ablation_core.activations.statistics import Statistics
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.experiments.ablation import AblationRun, passes_shared, step_together
from ablation_core.experiments.spec import AblationSpec
from ablation_core.methods.registry import Method
from ablation_core.runs.kept.prediction_files import PredictionChanges, PredictionFiles
from ablation_core.runs.ledger import Ledger
from ablation_core.runs.records import kept_rows
from ablation_core.runs.units import WorkUnit, changes_of, record_of

TOGETHER = 9  # units that share passes, or what a recording has no room for


@dataclass(frozen=True)
class Task:
    """A unit with the methods by which it is still to be measured, and whether its single predictions are asked for."""

    unit: WorkUnit
    methods: tuple[Method, ...]
    keep_predictions: bool = False


@dataclass(frozen=True)
class UnitProgress:
    """What has become of a task: the share of it that is done and, once it is whole, its record for the ledger.

    Attributes:
        predictions: its changes of single predictions, where they are asked for.
    """

    task: int
    share: float
    record: dict | None = None
    predictions: PredictionChanges | None = None


class Backend(Protocol):
    """Something that measures tasks on the model and the data of a recording."""

    def measure(
        self, tasks: Sequence[Task], bins: int, statistics: Statistics | None, clean_cache: CleanPassCache
    ) -> Generator[UnitProgress | None]:
        """Yields often, None where there is nothing new, so that the caller can end it soon; each record once.

        Raises:
            AblationError: one of its children, with a sentence for the user.
        """


@dataclass(frozen=True)
class Local:
    """This process."""

    def measure(
        self, tasks: Sequence[Task], bins: int, statistics: Statistics | None, clean_cache: CleanPassCache
    ) -> Generator[UnitProgress]:
        yield from measure_together(tasks, bins, statistics, clean_cache)


LOCAL = Local()


def measure_together(
    tasks: Sequence[Task], bins: int, statistics: Statistics | None, clean_cache: CleanPassCache
) -> Generator[UnitProgress]:
    """Measure tasks, one after the other where the recording has room for all that they share and they share no passes.

    Else some go through each batch together. The numbers are the same, of those that share passes to float rounding
    (`engine/shared_passes.py`).
    """
    left = list(range(len(tasks)))
    while left:
        numbers = _next_group(tasks, left, clean_cache)
        runs = {number: _begun(tasks[number], bins, statistics, clean_cache) for number in numbers}
        while any(run.steps_done < run.steps for run in runs.values()):
            step_together(list(runs.values()))
            for number, run in runs.items():
                yield _news(number, tasks[number], run)
        left = [number for number in left if number not in runs]


def _next_group(tasks: Sequence[Task], left: Sequence[int], clean_cache: CleanPassCache) -> list[int]:
    """The first of the tasks that are left, and those that gain by being measured beside it."""
    if not clean_cache.keeps_all:
        return list(left[:TOGETHER])
    first = tasks[left[0]]
    most = passes_shared(clean_cache, first.unit.positions) // len(first.methods)
    alike = [number for number in left[: 2 * TOGETHER] if _begins_with(tasks[number], first)]
    return alike[: max(1, min(TOGETHER, most))]


def _begins_with(task: Task, other: Task) -> bool:
    """Whether two tasks begin in the same block at the same positions."""
    one, two = task.unit, other.unit
    return one.positions == two.positions and one.selection.layers[:1] == two.selection.layers[:1]


def _begun(task: Task, bins: int, statistics: Statistics | None, clean_cache: CleanPassCache) -> AblationRun:
    unit, seed = task.unit, clean_cache.data.seed
    spec = AblationSpec(unit.selection, task.methods, bins, seed, unit.positions)
    return AblationRun(clean_cache.model, clean_cache.data, spec, statistics, clean_cache)


def _news(number: int, task: Task, run: AblationRun) -> UnitProgress:
    if run.steps_done < run.steps:
        return UnitProgress(number, run.steps_done / run.steps)
    return UnitProgress(number, 1.0, record_of(task.unit, run), changes_of(run) if task.keep_predictions else None)


def measure_units(
    units: Sequence[WorkUnit],
    methods: Sequence[Method],
    bins: int,
    statistics: Statistics | None,
    clean_cache: CleanPassCache,
    ledger: Ledger,
    engine: Backend = LOCAL,
    keep: Collection[str] = (),
) -> Iterator[float]:
    """Measure what is missing; yields the share of the work that is done, at first what the ledger has, then often.

    A unit is in the ledger before the share that counts it is yielded. Ending the iteration anywhere loses at most the
    units under way.

    Args:
        keep: the units whose changes of single predictions are kept beside the ledger. What it has without them is measured
            again for them alone: its numbers stay.
    """
    there, files, tasks = kept_rows(ledger.done), PredictionFiles(ledger.path), []
    for unit in units:
        kept = set(there.get(unit.name, {}))
        if unit.name in keep:
            kept &= files.methods(unit.name)
        if missing := tuple(method for method in methods if method.name not in kept):
            tasks.append(Task(unit, missing, unit.name in keep))
    total, shares = sum(unit.cost for unit in units), [0.0] * len(tasks)
    done = total - sum(task.unit.cost for task in tasks)
    yield done / total if total else 1.0
    with closing(engine.measure(tasks, bins, statistics, clean_cache)) as all_news:
        for news in all_news:
            if news is not None:
                shares[news.task], task = news.share, tasks[news.task]
                if news.predictions is not None:
                    files.add(task.unit.name, news.predictions)
                if news.record is not None:
                    _add(ledger, task, news.record, there.get(task.unit.name, {}))
            running = sum(task.unit.cost * share for task, share in zip(tasks, shares, strict=True))
            yield (done + running) / total


def _add(ledger: Ledger, task: Task, record: dict, there: Collection[str]) -> None:
    """Keep a unit's record, but for the methods that the ledger has already."""
    new = [method.name for method in task.methods if method.name not in there]
    if new:
        rows = [row for row in record["results"] if row["method"] in new]
        ledger.add(f"{task.unit.name}: {' '.join(new)}", record | {"results": rows})
