"""What an adaptive sweep saves: `python -m benchmarks.adaptive MODEL [--predictions N] [--seq-len N] [--every N]`.

Compares it with the whole sweep of the same heads, methods and predictions, in one process: processor seconds and wall
clock, ablated predictions, and on how many heads both give the same verdict (significant, or not). Writes
`adaptive-MODEL.json`. The statistics must be there; SmolLM2's are looked for in the folder named by ABLATION_CACHE.
"""

import argparse
import tempfile
import time
from pathlib import Path

from ablation_core import load_data, load_model, load_statistics
from ablation_core.activations.files import find_statistics
from ablation_core.data.references import DEFAULT_DATA
from ablation_core.methods.registry import choose_methods
from ablation_core.progress import finished
from ablation_core.runs.adaptive import AdaptiveSpec, adaptive_steps
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from ablation_core.runs.sweep_result import every_head
from ablation_core.runtime import keep_freed_memory
from benchmarks.measure import machine, seconds, write

PREDICTIONS = {"opt-mini": 8128, "roberta-mini": 8000, "vit-mini": 4000}  # and of any other model 8,128


def compare(ref: str, names: list[str], predictions: int, seq_len: int, every: int) -> dict:
    model = load_model(ref)
    data = load_data(DEFAULT_DATA[model.modality], model, predictions, seq_len)
    statistics = load_statistics(find_statistics(model, data.ref).path, model)
    methods, heads = tuple(choose_methods(names, model.modality)), tuple(every_head(model)[::every])
    results, processor, clock = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:

        def adaptive() -> None:
            spec = AdaptiveSpec(methods, heads=heads)
            results["adaptive"] = finished(adaptive_steps(model, data, spec, statistics, Path(folder)))

        def whole() -> None:
            spec = SweepSpec(methods, heads=heads, random_sets=0)
            results["whole"] = finished(sweep_steps(model, data, spec, statistics, Path(folder)))

        for batch in data:  # what is read or computed once is not the first one's cost
            model.module(**batch.inputs)
            break
        for name, act in {"adaptive": adaptive, "whole": whole}.items():
            started = time.perf_counter()
            processor[name] = seconds(act)
            clock[name] = time.perf_counter() - started
    documents = {name: result.to_dict() for name, result in results.items()}
    significant = {
        name: {
            (head["head"], row["method"]): row["told_from_no_effect"]
            for head in document["heads"]
            for row in head["results"]
        }
        for name, document in documents.items()
    }
    same = [significant["adaptive"][key] == verdict for key, verdict in significant["whole"].items()]
    return {
        "model": ref,
        "heads": len(heads),
        "methods": names,
        "predictions": data.predictions,
        "sequences": data.sequences,
        "processor_seconds": processor,
        "wall_clock_seconds": clock,
        "share_of_processor_time": processor["adaptive"] / processor["whole"],
        "share_of_wall_clock": clock["adaptive"] / clock["whole"],
        "share_of_predictions": results["adaptive"].taken,
        "first_order_estimates": documents["adaptive"]["first_order_estimates"],
        "looks_after_sequences": documents["adaptive"]["looks_after_sequences"],
        "same_verdict": sum(same) / len(same),
        "told_by_the_whole_sweep": sum(significant["whole"].values()) / len(same),
        "told_by_the_adaptive_one": sum(significant["adaptive"].values()) / len(same),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--method", action="append", help="repeat for several; by default mean")
    parser.add_argument("--predictions", type=int)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--every", type=int, default=1, help="of the heads, in order, every how many-th")
    parsed = parser.parse_args()
    keep_freed_memory()
    size = parsed.predictions or PREDICTIONS.get(parsed.model, 8128)
    run = compare(parsed.model, parsed.method or ["mean"], size, parsed.seq_len, parsed.every)
    write(f"adaptive-{parsed.model.replace('/', '-')}", {"machine": machine()} | run)
