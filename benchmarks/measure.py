"""What the engine's benchmarks share: a clock, the machine's state, and the folder of results."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent / "results"


def seconds(act: Callable[[], object]) -> float:
    """Processor seconds of all threads while `act` runs. Other programs on the machine hardly change them, but they
    hold the spinning of threads that wait for each other: measure with one thread where the machine is busy."""
    started = time.process_time()
    act()
    return time.process_time() - started


def interleaved(acts: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """The median seconds of each, measured in turn, so that what changes on the machine meets all alike."""
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(runs):
        for name, act in acts.items():
            times[name].append(seconds(act))
    return {name: float(np.median(values)) for name, values in times.items()}


def machine() -> dict:
    return {
        "clock": "processor seconds",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processors": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }


def write(name: str, document: dict) -> None:
    """Print the document and keep it in benchmarks/results/."""
    text = json.dumps(document, indent=2)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
