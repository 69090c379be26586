"""Who gets which tasks, and what happens when workers or machines are lost: against a stand-in for Ray that is told when."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from ablation_core.cluster import backend
from ablation_core.cluster.backend import LOSSES, RayBackend, _WorkerPool
from ablation_core.errors import DataError, EngineError
from ablation_core.runs.backends import Task, UnitProgress
from ablation_core.runs.units import WorkUnit
from ablation_core.selection import ModelShape, Selection

SHAPE = ModelShape((4,) * 6, 8)
TASKS = [Task(WorkUnit(f"{at}.{n}", Selection.of_heads([(at, n)], SHAPE)), ()) for at in range(6) for n in range(4)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting before the stand-in is asked again."""
    monkeypatch.setattr(backend, "_ROOM_EVERY", 0.0)


class Died(Exception):
    pass


class Failed(Exception):
    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class StandIn:
    """As much of Ray as the crew uses. An item of a stream that is an exception is raised when it is got."""

    exceptions = SimpleNamespace(RayError=Died, RayTaskError=Failed)

    def __init__(
        self, machines: list[dict], measure: Callable, prepare: Callable = lambda: iter(["a machine"])
    ) -> None:
        self.machines, self.begun, self.killed = machines, [], []
        self._measure, self._prepare = measure, prepare

    def nodes(self) -> list[dict]:
        return [{"Alive": True, "Resources": machine} for machine in self.machines]

    def put(self, value: object) -> object:
        return value

    def get(self, value: object) -> object:
        if isinstance(value, Exception):
            raise value
        return value

    def wait(self, streams: list, timeout: float) -> tuple[list, list]:
        return list(streams), []

    def kill(self, actor: object) -> None:
        self.killed.append(actor)

    def remote(self, _kind: type) -> SimpleNamespace:
        return SimpleNamespace(options=lambda **asked: SimpleNamespace(remote=lambda: self._actor(asked)))

    def _actor(self, asked: dict) -> SimpleNamespace:
        def method(act: Callable) -> SimpleNamespace:
            return SimpleNamespace(options=lambda num_returns: SimpleNamespace(remote=act))

        self.begun.append(asked)
        return SimpleNamespace(prepare=method(lambda given, *payloads: self._prepare()), measure=method(self._measure))


def measured(orders: list) -> Iterator[UnitProgress]:
    return (UnitProgress(order.number, 1.0, {"piece": order.name}) for order in orders)


def records(ray: StandIn, **engine) -> dict[int, dict]:
    found: dict[int, dict] = {}
    crew = _WorkerPool(ray, RayBackend(**({"cpus": 1.0} | engine)), None, {}, TASKS)
    for news in crew.run():
        if news is not None and news.record is not None:
            assert news.task not in found, "each record once"
            found[news.task] = news.record
    crew.end()
    assert len(ray.killed) == len(ray.begun), "none is left behind"
    return found


WANTED = {number: {"piece": task.unit.name} for number, task in enumerate(TASKS)}


def test_every_task_is_measured_once_by_as_many_workers_as_have_room() -> None:
    ray = StandIn([{"CPU": 2.0}, {"CPU": 1.0, "GPU": 1.0}], measured)
    assert records(ray) == WANTED and len(ray.begun) == 3
    ray = StandIn([{"CPU": 8.0, "GPU": 2.0}], measured)
    assert records(ray, gpus=0.5) == WANTED and len(ray.begun) == 4
    assert ray.begun[0] == {"num_cpus": 1.0, "num_gpus": 0.5, "max_restarts": 0}
    ray = StandIn([{"CPU": 8.0}], measured)
    assert records(ray, workers=2) == WANTED and len(ray.begun) == 2


def test_what_a_lost_worker_had_not_finished_is_given_out_again() -> None:
    seen: list[int] = []

    def dying(orders: list) -> Iterator[object]:
        for order in orders:
            seen.append(order.number)
            if len(seen) in (3, 10, 15):
                yield Died("killed")
            yield UnitProgress(order.number, 1.0, {"piece": order.name})

    ray = StandIn([{"CPU": 1.0}], dying)
    assert records(ray) == WANTED
    assert len(ray.begun) == 4 and len(seen) == len(TASKS) + 3
    short = iter([1])
    ray = StandIn([{"CPU": 1.0}], lambda orders: measured(orders[next(short, 0) :]))
    assert records(ray) == WANTED, "nor is what a worker forgot lost"


def test_a_piece_that_ends_every_worker_ends_the_run_with_a_sentence() -> None:
    def poisoned(orders: list) -> Iterator[object]:
        for news in measured(orders):
            yield Died("The actor died because of its memory") if news.task == 5 else news

    ray = StandIn([{"CPU": 1.0}], poisoned)
    with pytest.raises(EngineError, match=r"lost 3 times .*died because of its memory"):
        records(ray)
    ray = StandIn([{"CPU": 2.0}], measured, lambda: iter([Died("no memory for the model")]))
    with pytest.raises(EngineError, match="no memory for the model"):
        records(ray)
    assert len(ray.begun) <= 2 * LOSSES + 1


def test_machines_may_come_and_go_but_one_must_be_left() -> None:
    ray = StandIn([{"CPU": 1.0}], measured)
    crew = _WorkerPool(ray, RayBackend(cpus=1.0), None, {}, TASKS)
    running = crew.run()
    next(running)
    ray.machines.append({"CPU": 2.0})
    assert list(running) and len(ray.begun) == 3, "a machine that joins gets workers"

    def lost(orders: list) -> Iterator[object]:
        if orders[-1].number == len(TASKS) - 1:  # the last of all
            ray.machines.clear()
            yield Died("its machine is gone")
        yield from measured(orders)

    ray = StandIn([{"CPU": 1.0}], lost)
    with pytest.raises(EngineError, match="Machines there: none"):
        records(ray)


def test_what_a_worker_says_reaches_the_user_as_it_is() -> None:
    ray = StandIn([{"CPU": 1.0}], measured, lambda: iter([Failed(DataError("On the machine b: other data."))]))
    with pytest.raises(DataError, match=r"^On the machine b: other data\.$"):
        records(ray)
    ray = StandIn([{"CPU": 1.0}], lambda orders: iter([Failed(ValueError("a defect\nwith more lines"))]))
    with pytest.raises(EngineError, match=r"A worker failed: a defect$"):
        records(ray)
