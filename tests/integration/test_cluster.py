"""A real Ray cluster of two machines, which are two loopback addresses: what it gives is what this process gives.

Nothing leaves the loopback device. Each machine has one processor, so that each runs one worker.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
import transformers

from ablation_core import bundled, load_data, load_model
from ablation_core.activations.files import find_statistics, load_statistics
from ablation_core.cluster.backend import RayBackend
from ablation_core.cluster.connection import connected
from ablation_core.cluster.driver import Progress, steps_apart
from ablation_core.data.dataset import Data
from ablation_core.errors import DataError, EngineError
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import finished
from ablation_core.runs.ledger import find_runs
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from tests import tiny
from tests.conftest import numbers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]

PATIENCE = 180.0  # seconds: machines may be slow
SPEC = SweepSpec((METHODS["zero"], METHODS["mean"]), heads=((5, 1), (2, 0), (2, 1), (0, 3), (4, 4)), random_sets=7)
ENVIRONMENT = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}


class Machine:
    """One node of the cluster, all its processes in one group."""

    def __init__(self, *options: str) -> None:
        small = ("--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats", "--block")
        ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start"]
        self.process = subprocess.Popen(
            [*ray, *small, *options],
            env=ENVIRONMENT,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def workers(self, doing: str = "") -> list[psutil.Process]:
        """Its processes that are workers of ours, and are just doing this."""
        return [process for process in self._processes() if _title(process).startswith(f"ray::Worker{doing}")]

    def _processes(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def drivers() -> list[psutil.Process]:
    return [process for process in psutil.Process().children() if "ablation_core.cluster.driver" in _title(process)]


class TwoMachines:
    def __init__(self, folder: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.2", 0))
            self.address = f"127.0.0.2:{free.getsockname()[1]}"
        port = self.address.rpartition(":")[2]
        self.head = Machine(
            "--head",
            "--node-ip-address=127.0.0.2",
            f"--port={port}",
            "--include-dashboard=false",
            f"--temp-dir={folder}",
        )
        wait_until(self._answers)
        self.second = self.another()
        with connected(self.address) as ray:
            wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) == 2)

    def another(self) -> Machine:
        return Machine(f"--address={self.address}", "--node-ip-address=127.0.0.3")

    def _answers(self) -> bool:
        host, _, port = self.address.rpartition(":")
        with contextlib.suppress(OSError):
            socket.create_connection((host, int(port)), 1).close()
            return True
        return False

    def end(self) -> None:
        self.second.kill()
        self.head.kill()


def wait_until(true: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def machines() -> Iterator[TwoMachines]:
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets lie in it, and their paths must be short
    machines = TwoMachines(folder)
    try:
        yield machines
    finally:
        machines.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def data(opt_mini: LoadedModel) -> Data:
    return load_data("python-docs", opt_mini, predictions=1200, seq_len=32)


@pytest.fixture(scope="module")
def statistics_path(opt_mini: LoadedModel) -> Path:
    return find_statistics(opt_mini, "python-docs").path


@pytest.fixture(scope="module")
def here(opt_mini: LoadedModel, data: Data, statistics_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the local engine gives."""
    statistics = load_statistics(statistics_path, opt_mini)
    return numbers(finished(sweep_steps(opt_mini, data, SPEC, statistics, tmp_path_factory.mktemp("here"))))


def records(model: LoadedModel, folder: Path) -> int:
    return sum(len(run.done) for run in find_runs(folder, "sweep", model.fingerprint))


def test_a_killed_worker_and_a_killed_machine_cost_no_number(
    machines: TwoMachines, opt_mini: LoadedModel, data: Data, statistics_path: Path, here: dict, tmp_path: Path
) -> None:
    statistics = load_statistics(statistics_path, opt_mini)
    engine, killed, shares = RayBackend(machines.address), [], []
    for result in sweep_steps(opt_mini, data, SPEC, statistics, tmp_path, engine=engine):
        shares.append(result.share)
        measured = len(result.rows)
        if not killed and measured >= 2 and (busy := machines.head.workers(".measure")):
            busy[0].kill()  # SIGKILL
            killed.append(measured)
        elif len(killed) == 1 and measured >= 4 and machines.second.workers(".measure"):
            machines.second.kill()
            killed.append(measured)
    assert len(killed) == 2 and killed[1] < 12, "both were killed in the middle"
    assert json.dumps(numbers(result)) == json.dumps(here)
    assert shares[0] == 0 and shares[-1] == 1
    assert not machines.head.workers(), "they end with the run"
    machines.second = machines.another()


def test_with_its_driver_killed_and_then_stopped_a_run_goes_on_from_its_ledger(
    machines: TwoMachines, opt_mini: LoadedModel, data: Data, statistics_path: Path, here: dict, tmp_path: Path
) -> None:
    """As a page runs it: the driver is a process of its own."""
    statistics = load_statistics(statistics_path, opt_mini)

    def steps() -> Generator[Progress]:
        return steps_apart(opt_mini, data, SPEC, statistics, tmp_path, machines.address)

    with pytest.raises(EngineError, match="what is finished is kept"):
        for _ in steps():
            if records(opt_mini, tmp_path):
                for driver in drivers():
                    driver.kill()
    killed = records(opt_mini, tmp_path)
    assert 1 <= killed < 12
    wait_until(lambda: not machines.head.workers() and not machines.second.workers())  # they go with their driver

    with closing(steps()) as running:
        for _ in running:
            if records(opt_mini, tmp_path) > killed:
                break
    assert killed < records(opt_mini, tmp_path) < 12
    assert not drivers()
    result = finished(
        sweep_steps(opt_mini, data, SPEC, statistics, tmp_path)
    )  # the rest without a cluster: the ledger is the same
    assert json.dumps(numbers(result)) == json.dumps(here)


def test_a_model_split_over_memory_and_disk_in_a_worker_gives_the_same(machines: TwoMachines, tmp_path: Path) -> None:
    """The model is a folder of this machine and the text a file of it: both are sent along."""
    torch.manual_seed(0)
    settings = tiny.LLAMA | {"vocab_size": 4096, "hidden_size": 64, "intermediate_size": 512}
    config = transformers.LlamaConfig(**settings, tie_word_embeddings=False)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    transformers.AutoTokenizer.from_pretrained(bundled.FOLDER / "opt-mini").save_pretrained(tmp_path / "model")
    (tmp_path / "mine.txt").write_text("\n".join(f"this is line {n} of my own text" for n in range(400)))
    model = load_model(str(tmp_path / "model"), device="cpu")
    fits = int(1.5 * max(weight.nbytes for weight in model.module.parameters()))
    split = load_model(str(tmp_path / "model"), device="split", split_memory=fits)
    assert any(weight.is_meta for weight in split.module.parameters()), "with so much memory a part lies on disk"
    data = load_data(f"text:{tmp_path / 'mine.txt'}", model, predictions=60, seq_len=32)
    spec = SweepSpec((METHODS["zero"], METHODS["resample-dataset"]), heads=((1, 2), (2, 0)), random_sets=1)
    engine = RayBackend(machines.address, memory=fits / 1e9, split=True)
    there = finished(sweep_steps(model, data, spec, None, tmp_path / "there", engine=engine))
    assert json.dumps(numbers(there)) == json.dumps(
        numbers(finished(sweep_steps(model, data, spec, None, tmp_path / "here")))
    )


def test_other_data_or_no_room_is_a_sentence(
    machines: TwoMachines, opt_mini: LoadedModel, data: Data, tmp_path: Path
) -> None:
    zero = SweepSpec((METHODS["zero"],), heads=((0, 0),), random_sets=0)
    other = replace(data, fingerprint="of another Python")
    with pytest.raises(DataError, match=r"On the machine .* python-docs is not what the driver has"):
        finished(sweep_steps(opt_mini, other, zero, None, tmp_path, engine=RayBackend(machines.address, workers=1)))
    with pytest.raises(EngineError, match="No machine of the cluster has room for a worker with 1 CPU, 2 GPU"):
        finished(sweep_steps(opt_mini, data, zero, None, tmp_path, engine=RayBackend(machines.address, gpus=2)))
    for address, words in (("127.0.0.2:1", "No Ray cluster answers"), ("ray://here:1", "write HOST:PORT")):
        with pytest.raises(EngineError, match=words):
            finished(sweep_steps(opt_mini, data, zero, None, tmp_path, engine=RayBackend(address)))
    assert records(opt_mini, tmp_path) == 0
