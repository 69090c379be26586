"""What measures the pieces of a long run: an engine takes tasks and yields what becomes of them, in any order.

The local engine runs them in this process. Another may run them elsewhere, as long as each is measured by
`measure_together`: then its numbers are the local engine's.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from ablation_core.activations.statistics import Statistics
from ablation_core.engine.clean_passes import Recording
from ablation_core.experiments.ablation import AblationRun, AblationSpec, step_together
from ablation_core.methods.registry import Method
from ablation_core.runs.ledger import Ledger
from ablation_core.runs.units import Piece, kept_rows, record_of

TOGETHER = 9  # pieces that share what a recording has no room for


@dataclass(frozen=True)
class Task:
    """A piece with the methods by which it is still to be measured."""

    piece: Piece
    methods: tuple[Method, ...]


@dataclass(frozen=True)
class News:
    """What has become of a task: the share of it that is done and, once it is whole, its record for the ledger."""

    task: int
    share: float
    record: dict | None = None


class Engine(Protocol):
    """Something that measures tasks on the model and the data of a recording."""

    def measure(
        self, tasks: Sequence[Task], bins: int, statistics: Statistics | None, recording: Recording
    ) -> Generator[News | None]:
        """Yields often, None where there is nothing new, so that the caller can end it soon; each record once.

        Raises:
            AblationError: one of its children, with a sentence for the user.
        """


@dataclass(frozen=True)
class Local:
    """This process: one task at a time, or several together where the recording has no room for what they share."""

    def measure(
        self, tasks: Sequence[Task], bins: int, statistics: Statistics | None, recording: Recording
    ) -> Generator[News]:
        first = 0
        while first < len(tasks):
            some = tasks[first : first + (1 if recording.keeps_all else TOGETHER)]
            for news in measure_together(some, bins, statistics, recording):
                yield replace(news, task=first + news.task)
            first += len(some)


LOCAL = Local()


def measure_together(
    tasks: Sequence[Task], bins: int, statistics: Statistics | None, recording: Recording
) -> Iterator[News]:
    """Measure some tasks, one after the other where the recording has room for all that they share.

    Where it has not, all go through each batch together, so that this is made once for all. The numbers are the same.
    """
    runs = [_begun(task, bins, statistics, recording) for task in tasks]
    together = [[number] for number in range(len(tasks))]
    if len(tasks) > 1 and not recording.keeps_all:
        together = [list(range(len(tasks)))]
    for numbers in together:
        group = [runs[number] for number in numbers]
        while any(run.steps_done < run.steps for run in group):
            step_together(group)
            for number in numbers:
                yield _news(number, tasks, runs)


def _begun(task: Task, bins: int, statistics: Statistics | None, recording: Recording) -> AblationRun:
    spec = AblationSpec(task.piece.selection, task.methods, bins, recording.data.seed)
    return AblationRun(recording.model, recording.data, spec, statistics, recording)


def _news(number: int, tasks: Sequence[Task], runs: list[AblationRun]) -> News:
    run = runs[number]
    whole = run.steps_done == run.steps
    return News(number, run.steps_done / run.steps, record_of(tasks[number].piece, run) if whole else None)


def measure_pieces(
    pieces: Sequence[Piece],
    methods: Sequence[Method],
    bins: int,
    statistics: Statistics | None,
    recording: Recording,
    ledger: Ledger,
    engine: Engine = LOCAL,
) -> Iterator[float]:
    """Measure what is missing; yields the share of the work that is done, at first what the ledger has, then often.

    A piece is in the ledger before the share that counts it is yielded. Ending the iteration anywhere loses at most the
    pieces under way.
    """
    there, tasks = kept_rows(ledger.done), []
    for piece in pieces:
        missing = tuple(method for method in methods if method.name not in there.get(piece.name, {}))
        if missing:
            tasks.append(Task(piece, missing))
    total, shares = sum(piece.cost for piece in pieces), [0.0] * len(tasks)
    done = total - sum(task.piece.cost for task in tasks)
    yield done / total if total else 1.0
    with closing(engine.measure(tasks, bins, statistics, recording)) as all_news:
        for news in all_news:
            if news is not None:
                shares[news.task], task = news.share, tasks[news.task]
                if news.record is not None:
                    names = " ".join(method.name for method in task.methods)
                    ledger.add(f"{task.piece.name}: {names}", news.record)
            running = sum(task.piece.cost * share for task, share in zip(tasks, shares, strict=True))
            yield (done + running) / total
