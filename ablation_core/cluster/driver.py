"""A sweep or curves on a cluster for the pages: a process of its own drives it, and the server only watches.

Ray ends a driver that loses its cluster; a server must not end with it. The process writes the ledger, from which the
pages draw, and says on its standard output how far it is, a line of JSON each time. It ends when its standard input is
closed: by the one who watches, or because the server is gone.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ablation_core.activations import files
from ablation_core.activations.statistics import Statistics
from ablation_core.cluster.backend import RayBackend
from ablation_core.data.dataset import Data
from ablation_core.data.load import load_data
from ablation_core.data.positions import Positions
from ablation_core.errors import AblationError, EngineError, StatisticsError
from ablation_core.loading.load import load_model
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.runs.pruning import CurveSpec, curve_steps
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.storage import CACHE

_LOOK = 0.5  # seconds to wait for a line before the caller is asked whether to go on
_ENDING = 20.0  # seconds for the process to let go of the cluster
_EVERY = 0.3  # seconds between two lines


@dataclass(frozen=True)
class Progress:
    """How far the run is; what it has finished is in its ledger."""

    share: float


def steps_at(
    address: str | None,
    model: LoadedModel,
    data: Data,
    spec: SweepSpec | CurveSpec,
    statistics: Statistics | None,
    folder: Path,
) -> Generator[SweepResult | CurveResult | Progress]:
    """The steps of a sweep or of curves, in this process, or on the cluster at an address.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    if address is not None:
        yield from steps_apart(model, data, spec, statistics, folder, address)
    elif isinstance(spec, SweepSpec):
        yield from sweep_steps(model, data, spec, statistics, folder)
    else:
        yield from curve_steps(model, data, spec, statistics, folder)


def steps_apart(
    model: LoadedModel,
    data: Data,
    spec: SweepSpec | CurveSpec,
    statistics: Statistics | None,
    folder: Path,
    address: str,
) -> Generator[Progress]:
    """Run a sweep or curves on the cluster at this address; ending the iteration ends the run.

    Args:
        statistics: as the cache folder keeps them.
        folder: the cache folder, where finished pieces are kept.

    Raises:
        AblationError: with the sentence that the run ended by.
    """
    own: dict[str, Any] = {"methods": [method.name for method in spec.methods], "bins": spec.bins}
    own |= {"positions": str(spec.positions), "keep_predictions": spec.keep_predictions}
    if isinstance(spec, SweepSpec):
        own |= {"kind": "sweep", "heads": spec.heads, "random_sets": spec.random_sets}
    else:
        own |= {"kind": "curve", "seeds": spec.seeds, "percents": spec.percents, "whole_heads": spec.whole_heads}
    read: dict[str, Any] = {"ref": data.ref, "predictions": data.predictions, "seq_len": data.seq_len or 128}
    read |= {"batch_size": data.batch_size, "seed": data.seed, "documents": bool(data.documents)}
    order: dict[str, Any] = {"model": model.ref, "dtype": model.dtype, "data": read, "spec": own, "statistics": None}
    if statistics is not None:
        order["statistics"] = _file_of(statistics, folder)
    order |= {"folder": str(folder), "address": address, "threads": torch.get_num_threads()}
    yield from _watched(order)


def _file_of(statistics: Statistics, folder: Path) -> str:
    """Where the cache folder, or the project's own, has these statistics."""
    found = [entry for place in (folder, CACHE) for entry in files.list_statistics(place)[0]]
    for entry in found:
        if entry.digest == statistics.digest:
            return str(entry.path)
    raise StatisticsError(
        "The statistics are not in the cache folder, from where a cluster takes them; compute them again."
    )


def _watched(order: dict) -> Generator[Progress]:
    project = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (project, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-m", "ablation_core.cluster.driver"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    said: queue.Queue[dict | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, said), daemon=True).start()
    share = 0.0
    try:
        _tell(process, order)
        while True:
            yield Progress(share)
            try:
                line = said.get(timeout=_LOOK)
            except queue.Empty:
                continue
            if line is None:
                break
            if "error" in line:
                raise EngineError(line["error"])
            share = line.get("share", share)
        if _ended_badly(process):
            raise EngineError(
                "The process that drove the cluster was lost; what is finished is kept. Begin again to go on."
            )
    finally:
        _end(process)


def _tell(process: subprocess.Popen, order: dict) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it is gone already, which its output tells
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()


def _read(process: subprocess.Popen, said: queue.Queue) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        with suppress(ValueError):  # another library's words
            news = json.loads(line)
            if isinstance(news, dict):
                said.put(news)
    said.put(None)


def _ended_badly(process: subprocess.Popen) -> bool:
    try:
        return process.wait(_ENDING) != 0
    except subprocess.TimeoutExpired:  # it has closed its output, and hangs
        return True


def _end(process: subprocess.Popen) -> None:
    assert process.stdin is not None
    with suppress(OSError):  # it is gone already
        process.stdin.close()
    try:
        process.wait(_ENDING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _run(order: dict) -> None:
    model = load_model(order["model"], dtype=order["dtype"])
    torch.set_num_threads(order["threads"])
    data, place = load_data(model=model, **order["data"]), order["statistics"]
    statistics = None if place is None else files.load_statistics(place, model)
    engine, folder, spec = RayBackend(order["address"]), Path(order["folder"]), dict(order["spec"])
    spec["methods"] = tuple(METHODS[name] for name in spec["methods"])
    spec["positions"] = Positions.parse(spec["positions"])
    run: Generator[Any]
    if spec.pop("kind") == "sweep":
        spec["heads"] = spec["heads"] and tuple(map(tuple, spec["heads"]))
        run = sweep_steps(model, data, SweepSpec(**spec), statistics, folder, engine=engine)
    else:
        run = curve_steps(model, data, CurveSpec(**spec), statistics, folder, engine=engine)
    said, share = 0.0, 0.0
    with closing(run):
        for result in run:
            share = result.share
            if time.monotonic() - said > _EVERY:
                said = time.monotonic()
                _say(share=share)
    _say(share=share)


def _say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not through sys.stdin, which could not be closed under it
        pass
    os.kill(os.getpid(), signal.SIGINT)


def main() -> int:
    """Read an order from standard input and carry it out."""
    # A server in the background has passed on that it ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        _run(order)
    except AblationError as error:
        _say(error=str(error))
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
