"""What another program on the machine costs an ablation: `python -m benchmarks.contention`, on an otherwise quiet machine.

One head of opt-mini by five methods on 1,000 predictions, alone and beside one program that keeps a core busy, as a
browser does; with the spinning that the project asks for (`ablation_core.runtime`), with OpenMP's own, with none, and
with one thread. Seconds on the wall, medians of twelve heads, each setting in a process of its own. Writes `contention.json`.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from ablation_core import AblationSpec, find_statistics, load_data, load_model, load_statistics
from ablation_core.experiments.ablation import AblationRun
from ablation_core.methods.registry import METHODS, USUAL
from ablation_core.runtime import SPINS
from ablation_core.selection import Selection
from benchmarks.measure import machine, write

HEADS = [f"{layer}.{head}" for layer in range(6) for head in (0, 3)]
SETTINGS = {
    f"the project's: {SPINS} spins": {},
    "OpenMP's own": {
        "GOMP_SPINCOUNT": "300000"
    },  # libgomp's default where no policy is set and no core is oversubscribed
    "no spinning": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
_BUSY = [sys.executable, "-c", "while True: pass"]


def one_head() -> float:
    """The median seconds of an ablation, in this process."""
    model = load_model("opt-mini")
    data = load_data("python-docs", model, predictions=1000)
    counted = load_statistics(find_statistics(model, data.ref).path, model)
    methods = tuple(METHODS[name] for name in USUAL if model.modality in METHODS[name].modalities)
    taken = []
    for head in HEADS:
        run = AblationRun(model, data, AblationSpec(Selection.parse(head, model.shape), methods), counted)
        started = time.perf_counter()
        while run.steps_done < run.steps:
            run.step()
        run.result()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def measured(setting: dict[str, str]) -> float:
    command = [sys.executable, "-m", "benchmarks.contention", "--one"]
    environment = os.environ | setting
    root = Path(__file__).parent.parent
    return float(subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    if "--one" in sys.argv:
        print(one_head())
        return
    rows = {name: {"alone": measured(setting)} for name, setting in SETTINGS.items()}
    with subprocess.Popen(_BUSY, start_new_session=True) as busy:  # as other programs are
        try:
            for name, setting in SETTINGS.items():
                rows[name]["beside a busy program"] = measured(setting)
        finally:
            busy.kill()
    write("contention", machine() | {"clock": "seconds on the wall", "seconds": rows})


if __name__ == "__main__":
    main()
