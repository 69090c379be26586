"""What happens on a machine of a cluster: the model, data and statistics once, checked against the driver's; then tasks.

A worker needs the project, the model reference and what it is sent; no disk is shared. Knows nothing of the cluster.
"""

import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch

from ablation_core.activations import files
from ablation_core.cluster.payload import Payload, unpack, unpacked_data_ref
from ablation_core.data.dataset import Data
from ablation_core.data.load import load_data
from ablation_core.data.positions import Positions
from ablation_core.data.references import Split
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.errors import AblationError, DataError, EngineError, ModelError
from ablation_core.loading.load import load_model
from ablation_core.methods.registry import METHODS
from ablation_core.models.info import same_weights
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.own_code import hooks_of
from ablation_core.runs.backends import Task, UnitProgress, measure_together
from ablation_core.runs.units import WorkUnit
from ablation_core.runtime import prepare_process
from ablation_core.selection import Selection

SECONDS_BETWEEN_NEWS = 0.5
_STATISTICS = "statistics.safetensors"


@dataclass(frozen=True)
class Assignment:
    """What a worker must have to give the driver's numbers; plain values only.

    Attributes:
        threads: as many as the driver computes with, since float results can depend on it.
        split_memory: bytes that a model split over memory and disk may fill.
        digests: of what is sent: `model`, `data`, `statistics`.
        keys_values: whether clean passes keep them, for ablations that begin in the middle of a sequence.
    """

    model: str
    model_fingerprint: str
    device: str
    dtype: str
    split_memory: int | None
    data: str
    data_fingerprint: str
    split: str
    predictions: int
    seq_len: int | None
    batch_size: int
    seed: int
    bins: int
    threads: int
    python: str
    digests: dict[str, str]
    documents: bool = False
    keys_values: bool = False


@dataclass(frozen=True)
class Order:
    """A task in plain values."""

    number: int
    name: str
    select: str
    methods: tuple[str, ...]
    positions: str = "all"
    keep_predictions: bool = False

    @classmethod
    def of(cls, number: int, task: Task) -> "Order":
        methods = tuple(method.name for method in task.methods)
        where = str(task.unit.positions)
        return cls(number, task.unit.name, str(task.unit.selection), methods, where, task.keep_predictions)


def assignment(
    model: LoadedModel, data: Data, bins: int, device: str, split_memory: int | None, payloads: dict[str, Payload]
) -> Assignment:
    """What workers need for pieces of this model and data.

    Raises:
        EngineError: the model has hooks of a person's own, which no worker would put on.
    """
    if hooks_of(model.module):
        raise EngineError(
            f"{model.ref} has hooks of your own, and workers load it without them: take them off, or measure on this machine."
        )
    return Assignment(
        model=model.ref,
        model_fingerprint=model.fingerprint,
        device=device,
        dtype=model.dtype,
        split_memory=split_memory,
        data=data.ref,
        data_fingerprint=data.fingerprint,
        split=data.split,
        predictions=data.predictions,
        seq_len=data.seq_len,
        batch_size=data.batch_size,
        seed=data.seed,
        bins=bins,
        threads=torch.get_num_threads(),
        python=_python(),
        digests={name: payload.digest for name, payload in payloads.items()},
        documents=bool(data.documents),
    )


class Worker:
    """One process that computes. Its model stays loaded until the process ends."""

    def prepare(self, given: Assignment, *payloads: Payload) -> Iterator[str]:
        """Load everything and compare it with the driver's; yields the machine's name.

        Raises:
            AblationError: something is missing or differs; the sentence says what, and on which machine.
        """
        try:
            self._load(given, dict(zip(given.digests, payloads, strict=True)))
        except AblationError as error:
            raise type(error)(f"On the machine {socket.gethostname()}: {error}") from error
        yield socket.gethostname()

    def _load(self, given: Assignment, payloads: dict[str, Payload]) -> None:
        prepare_process()
        torch.set_num_threads(given.threads)
        places = {name: unpack(payload, given.digests[name]) for name, payload in payloads.items()}
        model = _load_model(given, str(places.get("model", given.model)))
        data = _load_data(
            given, model, unpacked_data_ref(given.data, places["data"]) if "data" in places else given.data
        )
        statistics = None
        if "statistics" in places:
            statistics = files.load_statistics(places["statistics"] / _STATISTICS, model)
        self._recording = CleanPassCache(model, data, keys_values=given.keys_values)
        self._bins, self._statistics = given.bins, statistics

    def measure(self, orders: Sequence[Order]) -> Iterator[UnitProgress]:
        """News of these tasks, by their numbers: every finished one, and how far the others are twice a second.

        Raises:
            AblationError: one of its children, with a sentence for the user.
        """
        shape, said = self._recording.model.shape, time.monotonic()
        tasks = [
            Task(
                WorkUnit(order.name, Selection.parse(order.select, shape), Positions.parse(order.positions)),
                tuple(METHODS[name] for name in order.methods),
                order.keep_predictions,
            )
            for order in orders
        ]
        for news in measure_together(tasks, self._bins, self._statistics, self._recording):
            if news.record is not None or time.monotonic() - said > SECONDS_BETWEEN_NEWS:
                said = time.monotonic()
                yield replace(news, task=orders[news.task].number)


def statistics_payload(content: bytes) -> Payload:
    return Payload({_STATISTICS: content})


def _load_model(given: Assignment, ref: str) -> LoadedModel:
    model = load_model(ref, given.device, given.dtype, split_memory=given.split_memory)
    if model.fingerprint != given.model_fingerprint:
        same = same_weights(model.fingerprint, given.model_fingerprint)
        what = "settings (config.json, or how this version of timm reads it)" if same else "weights"
        raise ModelError(
            f"the {what} of {given.model} differ from the driver's (fingerprint {model.fingerprint}, there "
            f"{given.model_fingerprint}). Name a revision (owner/name@revision), or put the same folder there."
        )
    return model


def _load_data(given: Assignment, model: LoadedModel, ref: str) -> Data:
    data = load_data(
        ref,
        model,
        given.predictions,
        given.seq_len or 128,
        given.batch_size,
        given.seed,
        cast(Split, given.split),
        given.documents,
    )
    if data.fingerprint != given.data_fingerprint:
        other = "" if _python() == given.python else f" It is Python {_python()} here and {given.python} there."
        raise DataError(
            f"{given.data} is not what the driver has (fingerprint {data.fingerprint}, there {given.data_fingerprint}): "
            f"its text comes with Python or with the system and changes with their version.{other} Use the same version "
            f"on all machines, or a file of your own (text:PATH), which is sent along."
        )
    return data


def _python() -> str:
    return sys.version.split()[0]
