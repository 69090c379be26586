"""What a cluster costs: the same sweep by this process and by one and two workers of a Ray cluster on this machine.

`OMP_NUM_THREADS=1 python -m benchmarks.cluster [--model REF] [--predictions N]`, on a quiet machine: several processes
compute, so that the clock on the wall is what counts. Writes `cluster.json`.

All heads and 24 random sets by five methods, one thread a process, beside this process with two threads. `first` is the
time until the first finished piece (loading included), `rest` the time from there to the end, in which the pieces but
the first are measured; overhead is against the local engine's time, for one worker of the rest, and of the whole.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

import ablation_core
from ablation_core import load_data, load_model
from ablation_core.activations.file_format import statistics_bytes
from ablation_core.activations.files import find_statistics, load_statistics
from ablation_core.cluster.backend import RayBackend
from ablation_core.methods.registry import METHODS
from ablation_core.runs.backends import LOCAL, Backend
from ablation_core.runs.ledger import find_runs
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from benchmarks.measure import machine, write

ADDRESS = "127.0.0.2"
SPEC = SweepSpec(tuple(METHODS[name] for name in ("zero", "mean", "median", "peak", "resample-dataset")))


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """A cluster of this machine alone with two processors, on the loopback device; yields its address."""
    with socket.socket() as free:
        free.bind((ADDRESS, 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets lie in it, and their paths must be short
    ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--head", "--block"]
    ray += ["--num-cpus=2", "--object-store-memory=200000000", "--disable-usage-stats", "--include-dashboard=false"]
    ray += [f"--node-ip-address={ADDRESS}", f"--port={port}", f"--temp-dir={folder}"]
    process = subprocess.Popen(ray, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(15)  # until it is at rest
        yield f"{ADDRESS}:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def timed(name: str, engine: Backend, threads: int, ref: str, predictions: int) -> tuple[dict, str]:
    """One sweep from nothing: its figures, and its document."""
    torch.set_num_threads(threads)
    model = load_model(ref)
    data = load_data("python-docs", model, predictions=predictions)
    statistics = load_statistics(find_statistics(model, data.ref).path, model)
    with tempfile.TemporaryDirectory() as folder:
        started, first, largest = time.perf_counter(), 0.0, 0
        for result in sweep_steps(model, data, SPEC, statistics, Path(folder), engine=engine):
            if result.rows and not first:
                first = time.perf_counter() - started
                largest = max(map(resident, psutil.process_iter(["cmdline"])), default=0)
        whole = time.perf_counter() - started
        (run,) = find_runs(Path(folder), "sweep", model.fingerprint)
        kept = run.path.stat().st_size
    figures = {"engine": name, "threads": threads, "seconds": whole, "first": first, "rest": whole - first}
    figures |= {
        "pieces": len(run.done),
        "bytes_of_results": kept,
        "bytes_of_statistics": len(statistics_bytes(statistics)),
    }
    if largest:
        figures["bytes_resident_a_worker"] = largest
    return figures, json.dumps(result.to_dict())


def resident(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        if (process.info["cmdline"] or [""])[0].startswith("ray::Worker"):
            return process.memory_info().rss
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="opt-mini")
    parser.add_argument("--predictions", type=int, default=1500)
    parsed = parser.parse_args()
    what = parsed.model, parsed.predictions
    runs = [timed("local", LOCAL, 1, *what), timed("local", LOCAL, 2, *what)]
    with cluster() as address:
        for workers in (1, 2):
            engine = RayBackend(address, workers=workers, cpus=1)
            runs.append(timed(f"ray, {workers} worker{'s' * (workers > 1)}", engine, 1, *what))
    (local, document), _, (one, first), (two, second) = runs
    package = Path(ablation_core.__file__).parent
    write(
        "cluster",
        machine()
        | {"clock": "seconds on the wall", "model": parsed.model, "predictions": parsed.predictions}
        | {
            "runs": [figures for figures, _ in runs],
            "same_documents": document == first == second,
            "overhead_one_worker_rest_per_cent": 100 * (one["rest"] / local["rest"] - 1),
            "overhead_one_worker_whole_per_cent": 100 * (one["seconds"] / local["seconds"] - 1),
            "speedup_two_workers_rest": local["rest"] / two["rest"],
            "speedup_two_workers_whole": local["seconds"] / two["seconds"],
            "bytes_of_the_project": sum(
                path.stat().st_size for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts
            ),
        },
    )


if __name__ == "__main__":
    main()
