"""What measures the units of a long run: an engine takes tasks and yields what becomes of them, in any order.

The local engine runs them in this process. Another may run them elsewhere, as long as each is measured by
`measure_together`: then its numbers are the local engine's.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from ablation_core.activations.statistics import Statistics
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.experiments.ablation import AblationRun, AblationSpec, step_together
from ablation_core.methods.registry import Method
from ablation_core.runs.ledger import Ledger
from ablation_core.runs.records import kept_rows
from ablation_core.runs.units import WorkUnit, record_of

TOGETHER = 9  # units that share what a recording has no room for


@dataclass(frozen=True)
class Task:
    """A unit with the methods by which it is still to be measured."""

    unit: WorkUnit
    methods: tuple[Method, ...]


@dataclass(frozen=True)
class UnitProgress:
    """What has become of a task: the share of it that is done and, once it is whole, its record for the ledger."""

    task: int
    share: float
    record: dict | None = None


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
    """This process: one task at a time, or several together where the recording has no room for what they share."""

    def measure(
        self, tasks: Sequence[Task], bins: int, statistics: Statistics | None, clean_cache: CleanPassCache
    ) -> Generator[UnitProgress]:
        first = 0
        while first < len(tasks):
            some = tasks[first : first + (1 if clean_cache.keeps_all else TOGETHER)]
            for news in measure_together(some, bins, statistics, clean_cache):
                yield replace(news, task=first + news.task)
            first += len(some)


LOCAL = Local()


def measure_together(
    tasks: Sequence[Task], bins: int, statistics: Statistics | None, clean_cache: CleanPassCache
) -> Iterator[UnitProgress]:
    """Measure some tasks, one after the other where the recording has room for all that they share.

    Where it has not, all go through each batch together, so that this is made once for all. The numbers are the same.
    """
    runs = [_begun(task, bins, statistics, clean_cache) for task in tasks]
    together = [[number] for number in range(len(tasks))]
    if len(tasks) > 1 and not clean_cache.keeps_all:
        together = [list(range(len(tasks)))]
    for numbers in together:
        group = [runs[number] for number in numbers]
        while any(run.steps_done < run.steps for run in group):
            step_together(group)
            for number in numbers:
                yield _news(number, tasks, runs)


def _begun(task: Task, bins: int, statistics: Statistics | None, clean_cache: CleanPassCache) -> AblationRun:
    unit, seed = task.unit, clean_cache.data.seed
    spec = AblationSpec(unit.selection, task.methods, bins, seed, unit.positions)
    return AblationRun(clean_cache.model, clean_cache.data, spec, statistics, clean_cache)


def _news(number: int, tasks: Sequence[Task], runs: list[AblationRun]) -> UnitProgress:
    run = runs[number]
    whole = run.steps_done == run.steps
    return UnitProgress(number, run.steps_done / run.steps, record_of(tasks[number].unit, run) if whole else None)


def measure_units(
    units: Sequence[WorkUnit],
    methods: Sequence[Method],
    bins: int,
    statistics: Statistics | None,
    clean_cache: CleanPassCache,
    ledger: Ledger,
    engine: Backend = LOCAL,
) -> Iterator[float]:
    """Measure what is missing; yields the share of the work that is done, at first what the ledger has, then often.

    A unit is in the ledger before the share that counts it is yielded. Ending the iteration anywhere loses at most the
    units under way.
    """
    there, tasks = kept_rows(ledger.done), []
    for unit in units:
        missing = tuple(method for method in methods if method.name not in there.get(unit.name, {}))
        if missing:
            tasks.append(Task(unit, missing))
    total, shares = sum(unit.cost for unit in units), [0.0] * len(tasks)
    done = total - sum(task.unit.cost for task in tasks)
    yield done / total if total else 1.0
    with closing(engine.measure(tasks, bins, statistics, clean_cache)) as all_news:
        for news in all_news:
            if news is not None:
                shares[news.task], task = news.share, tasks[news.task]
                if news.record is not None:
                    names = " ".join(method.name for method in task.methods)
                    ledger.add(f"{task.unit.name}: {names}", news.record)
            running = sum(task.unit.cost * share for task, share in zip(tasks, shares, strict=True))
            yield (done + running) / total
