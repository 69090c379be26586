"""The engine for a Ray cluster: workers that load a model once and measure tasks that resume from the same block.

The driver, this process, alone writes the ledger. A worker that is lost is replaced and its unfinished tasks are given
out again; a driver that is lost takes its workers along, and the next one continues from the ledger. Ray is imported only
when the engine is used: `pip install -r requirements-cluster.txt`.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ablation_core.activations.file_format import statistics_bytes
from ablation_core.activations.statistics import Statistics
from ablation_core.cluster.connection import AUTO, connected
from ablation_core.cluster.payload import Payload, pack_data, pack_model
from ablation_core.cluster.worker import Assignment, Order, Worker, assignment, statistics_payload
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.errors import AblationError, EngineError, first_line
from ablation_core.loading.load import SPLIT
from ablation_core.runs.backends import Task, UnitProgress
from ablation_core.storage import CACHE

UNIT = 8  # tasks given out at once, at most: what a lost worker costs
UNITS_A_WORKER = 8  # so many at least where there are enough tasks, so that no worker waits long for the last
LOSSES = 3  # of the same task, or of workers that never became ready: then it is no accident
_LOOK = 0.5  # seconds to wait for news before the caller is asked whether to go on
_ROOM_EVERY = 1.0  # seconds between two questions for room in the cluster
_GB = 1_000_000_000


@dataclass(frozen=True)
class RayBackend:
    """A running Ray cluster that this machine is part of.

    Attributes:
        address: HOST:PORT of its head, or `auto`: the one that was started on this machine.
        workers: at most so many; by default as many as there is room for.
        cpus, gpus: what each takes, fractions allowed; by default as many CPUs as this process has threads, as far as a
            machine has so many, and no GPU. With GPUs, one CPU.
        memory: GB that each takes; of a split model so much lies in memory at most.
        split: spread each worker's model over its devices, memory and disk.
        cache_dir: where this machine keeps fetched models.

    Raises:
        EngineError: such workers cannot be.
    """

    address: str = AUTO
    workers: int | None = None
    cpus: float | None = None
    gpus: float = 0.0
    memory: float | None = None
    split: bool = False
    cache_dir: Path = CACHE

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise EngineError(f"A cluster needs at least 1 worker, not {self.workers}.")
        for name, value in (("CPUs", self.cpus), ("GPUs", self.gpus), ("GB of memory", self.memory)):
            if value is not None and not 0 <= value < math.inf:
                raise EngineError(f"A worker cannot take {value:g} {name}; give a number of 0 or more.")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise EngineError(f"A worker takes a part of one GPU or whole ones, not {self.gpus:g}.")

    def measure(
        self, tasks: Sequence[Task], bins: int, statistics: Statistics | None, clean_cache: CleanPassCache
    ) -> Generator[UnitProgress | None]:
        """As `Backend.measure`; nothing is computed here, only the model and the data are described.

        Raises:
            EngineError: Ray is missing, the cluster cannot be reached, has no room, or keeps losing workers.
            AblationError: what a worker said of the model, the data or the statistics.
        """
        if not tasks:
            return
        model, data = clean_cache.model, clean_cache.data
        payloads = {"model": pack_model(model.ref, self.cache_dir), "data": pack_data(data.ref)}
        if statistics is not None:
            payloads["statistics"] = statistics_payload(statistics_bytes(statistics))
        sent = {name: payload for name, payload in payloads.items() if payload is not None}
        device = SPLIT if self.split else "cuda" if self.gpus else "cpu"
        memory = None if self.memory is None or not self.split else int(self.memory * _GB)
        reused = any(not task.unit.positions.everywhere for task in tasks)
        given = replace(assignment(model, data, bins, device, memory, sent), keys_values=reused)
        with connected(self.address) as ray:
            crew = _WorkerPool(ray, self, given, sent, tasks)
            try:
                yield from crew.run()
            finally:
                crew.end()


@dataclass(eq=False)
class _PooledWorker:
    """A worker and what it is doing.

    Attributes:
        stream: what it yields next.
        ready: whether it has loaded everything.
        unit: the numbers of the tasks that it was given and has not finished.
    """

    actor: Any
    stream: Any
    ready: bool = False
    unit: list[int] = field(default_factory=list)


class _WorkerPool:
    """The workers of one run."""

    def __init__(
        self, ray: Any, engine: RayBackend, given: Assignment, payloads: dict[str, Payload], tasks: Sequence[Task]
    ) -> None:
        self.ray, self.engine, self.given, self.tasks = ray, engine, given, tasks
        self.needs = self._needs()
        self._check_room()
        self.most = engine.workers or len(tasks)
        self.at_first = min(self._room(), self.most)
        self.units = deque(units_of(tasks, self.at_first))
        self.payloads = [ray.put(payload) for payload in payloads.values()]
        self.hands: list[_PooledWorker] = []
        self.lost_tasks: Counter[int] = Counter()
        self.never_ready = 0
        self.look_again = 0.0  # by the clock: when to ask the cluster for room

    def run(self) -> Generator[UnitProgress | None]:
        while self.units or any(hand.unit for hand in self.hands):
            self._fill()
            streams = [hand.stream for hand in self.hands]
            ready, _ = self.ray.wait(streams, timeout=_LOOK) if streams else ([], [])
            if not ready:
                yield None
                time.sleep(0 if streams else _LOOK)
            for hand in [hand for hand in self.hands if hand.stream in ready]:
                yield self._listen(hand)

    def end(self) -> None:
        for hand in self.hands:
            self.ray.kill(hand.actor)

    def _listen(self, hand: _PooledWorker) -> UnitProgress | None:
        """What a worker has to say. One that is done gets the next unit, and goes where there is none."""
        try:
            said = self.ray.get(next(hand.stream))
        except StopIteration:
            if hand.unit:
                self._replace(hand, EngineError("it ended before its tasks did"))
            else:
                self._next_unit(hand)
            return None
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, AblationError):
                raise error.cause from None
            raise EngineError(f"A worker failed: {first_line(error.cause)}") from error
        except self.ray.exceptions.RayError as error:  # the worker or its machine is gone, or what it said is
            self._replace(hand, error)
            return None
        if not isinstance(said, UnitProgress):  # the machine's name
            hand.ready, self.never_ready = True, 0
            return None
        if said.record is not None:
            hand.unit.remove(said.task)
        return said

    def _next_unit(self, hand: _PooledWorker) -> None:
        if not self.units:
            self.hands.remove(hand)
            self.ray.kill(hand.actor)
            return
        hand.unit = list(self.units.popleft())
        orders = [Order.of(number, self.tasks[number]) for number in hand.unit]
        hand.stream = hand.actor.measure.options(num_returns="streaming").remote(orders)

    def _fill(self) -> None:
        """Begin workers while there is room and work for them.

        Raises:
            EngineError: nobody works, and no machine is left that could.
        """
        if time.monotonic() < self.look_again:
            return
        self.look_again = time.monotonic() + _ROOM_EVERY
        busy, room = sum(bool(hand.unit) for hand in self.hands), self._room()
        most = min(self.most, busy + len(self.units))
        if room == 0 and not busy:
            self._check_room()
        for _ in range(min(room, most) - len(self.hands)):
            options = {"num_cpus": self.needs["CPU"], "num_gpus": self.needs["GPU"], "max_restarts": 0}
            if self.needs["memory"]:
                options["memory"] = self.needs["memory"]
            actor = self.ray.remote(Worker).options(**options).remote()
            stream = actor.prepare.options(num_returns="streaming").remote(self.given, *self.payloads)
            self.hands.append(_PooledWorker(actor, stream))

    def _replace(self, hand: _PooledWorker, error: Exception) -> None:
        """Give out again what a lost worker has not finished.

        Raises:
            EngineError: it happens again and again.
        """
        self.hands.remove(hand)
        self.ray.kill(hand.actor)
        if hand.unit:
            self.units.appendleft(hand.unit)
            self.lost_tasks[hand.unit[0]] += 1
            again = self.lost_tasks[hand.unit[0]] >= LOSSES
        else:
            self.never_ready += not hand.ready
            again = self.never_ready >= LOSSES * self.at_first
        if again:
            raise EngineError(
                f"Workers were lost {LOSSES} times at the same place, perhaps for want of memory; what is finished is kept. "
                f"Give each more room (--memory-per-worker, fewer --workers). The last: {_reason(error)}"
            ) from error

    def _needs(self) -> dict[str, float]:
        """What a worker takes, in Ray's words."""
        engine, largest = self.engine, max((machine.get("CPU", 0.0) for machine in self._machines()), default=0.0)
        cpus = engine.cpus
        if cpus is None:
            cpus = 1.0 if engine.gpus else max(1.0, min(float(torch.get_num_threads()), largest))
        return {"CPU": cpus, "GPU": engine.gpus, "memory": int((engine.memory or 0) * _GB)}

    def _machines(self) -> list[dict[str, float]]:
        """The resources of each machine that is there."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _room(self) -> int:
        """How many workers all machines hold, whoever uses them now."""
        asked = {name: amount for name, amount in self.needs.items() if amount}
        if not asked:
            return len(self.tasks)
        return sum(
            min(int(machine.get(name, 0.0) / amount + 1e-9) for name, amount in asked.items())
            for machine in self._machines()
        )

    def _check_room(self) -> None:
        if self._room():
            return
        machines = self._machines()
        has = "; ".join(", ".join(_amounts(machine)) for machine in machines) or "none"
        raise EngineError(
            f"No machine of the cluster has room for a worker with {', '.join(_amounts(self.needs))}. Machines there: {has}. "
            f"Ask for less (--cpus-per-worker, --gpus-per-worker, --memory-per-worker), or add a machine."
        )


def units_of(tasks: Sequence[Task], workers: int) -> list[list[int]]:
    """The tasks' numbers in units that share a resumed prefix: their first ablated block is the same.

    A unit stands where its first task stood, so that what was wanted first comes first.
    """
    size = max(1, min(UNIT, math.ceil(len(tasks) / (UNITS_A_WORKER * workers))))
    units: list[list[int]] = []
    filling: dict[int | None, list[int]] = {}
    for number, task in enumerate(tasks):
        first = next(iter(task.unit.selection.layers), None)
        if first not in filling or len(filling[first]) == size:
            filling[first] = []
            units.append(filling[first])
        filling[first].append(number)
    return units


def _amounts(resources: dict[str, float]) -> list[str]:
    words = [f"{resources.get(name, 0.0):g} {name}" for name in ("CPU", "GPU")]
    memory = resources.get("memory", 0.0)
    return [*words, f"{memory / _GB:.1f} GB of memory"] if memory else words


def _reason(error: Exception) -> str:
    """The line of Ray's message that tells why an actor died."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line for line in lines if "died" in line and "because" in line), lines[0])[:300]
