"""A process of the race: holds contestants ready and times what it is asked to run, one line of JSON each way.

    python worker.py '{"model": …, "predictions": …, "seq_len": …, "contestants": […], "keep_memory": true}'

A request is `{"contestant": "ours", "layer": 3, "head": 1}`, without a layer the clean run; the answer has the seconds
on the clock (`wall`) and of the processor in all threads (`cpu`), and the means; `"exact": true` asks for exact ones.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", WANDB_MODE="disabled")
sys.path.insert(0, str(Path(__file__).parents[2]))  # the project itself
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # libraries print as they like; only answers go to standard output

import torch  # noqa: E402
from contestants import CONTESTANTS, Task, score_exactly  # noqa: E402

from ablation_core import find_statistics, load_data, load_model, load_statistics  # noqa: E402
from ablation_core.loading.folders import find_folder  # noqa: E402
from ablation_core.runtime import keep_freed_memory  # noqa: E402


def main(settings: dict) -> None:
    torch.set_num_threads(settings["threads"])
    if settings["keep_memory"]:
        keep_freed_memory(largest=1 << 30)  # more than the project's own: the others make all logits at once
    model = load_model(settings["model"], "cpu", "float32")
    ref = "fashion-mnist" if model.modality == "vision" else "python-docs"
    size = {} if model.modality == "vision" else {"seq_len": settings["seq_len"], "batch_size": 8}
    data = load_data(ref, model, settings["predictions"], **size)
    entry = find_statistics(model, ref)
    if entry is None:
        raise SystemExit(f"Compute the statistics first: python -m ablation_core stats {settings['model']}")
    values = torch.from_numpy(load_statistics(entry.path, model).mean.copy())
    task = Task(model, data, find_folder(settings["model"]), values)
    racing = {name: CONTESTANTS[name](task) for name in settings["contestants"]}
    shape = {"heads": list(model.shape.heads), "predictions": data.predictions}
    print(json.dumps(shape), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        run = racing[asked["contestant"]]
        score_exactly(asked.get("exact", False))
        wall, cpu = time.perf_counter(), time.process_time()
        means = run.head(asked["layer"], asked["head"]) if "layer" in asked else run.clean()
        took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps(took | {"means": means}), file=answers, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
