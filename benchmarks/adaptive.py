"""What an adaptive sweep saves: `python -m benchmarks.adaptive [MODEL …] [--predictions N] [--every N]`.

Compares it with the whole sweep of the same heads, methods and predictions: processor seconds, ablated predictions, and
on how many heads both give the same verdict (told from no effect, or not). Writes `adaptive.json`.
"""

import argparse
import tempfile
from pathlib import Path

from ablation_core import load_data, load_model, load_statistics
from ablation_core.adaptive import AdaptiveSpec, adaptive_sweep
from ablation_core.allocator import keep_freed_memory
from ablation_core.cache import find_statistics
from ablation_core.data import DEFAULT_DATA
from ablation_core.methods import choose_methods
from ablation_core.sweep import SweepSpec, every_head, sweep
from benchmarks.measure import machine, seconds, write


def compare(ref: str, names: list[str], predictions: int, every: int) -> dict:
    model = load_model(ref)
    data = load_data(DEFAULT_DATA[model.modality], model, predictions)
    statistics = load_statistics(find_statistics(model, data.ref).path, model)
    methods, heads = tuple(choose_methods(names, model.modality)), tuple(every_head(model)[::every])
    results = {}
    with tempfile.TemporaryDirectory() as folder:

        def adaptive() -> None:
            spec = AdaptiveSpec(methods, heads=heads)
            results["adaptive"] = adaptive_sweep(model, data, spec, statistics, Path(folder))

        def whole() -> None:
            results["whole"] = sweep(
                model, data, SweepSpec(methods, heads=heads, random_sets=0), statistics, Path(folder)
            )

        times = {"adaptive": seconds(adaptive), "whole": seconds(whole)}
    documents = {name: result.to_dict() for name, result in results.items()}
    told = {
        name: {
            (head["head"], row["method"]): row["told_from_no_effect"]
            for head in document["heads"]
            for row in head["results"]
        }
        for name, document in documents.items()
    }
    same = [told["adaptive"][key] == verdict for key, verdict in told["whole"].items()]
    return {
        "model": ref,
        "heads": len(heads),
        "methods": names,
        "predictions": data.predictions,
        "sequences": data.sequences,
        "seconds": times,
        "share_of_time": times["adaptive"] / times["whole"],
        "share_of_predictions": results["adaptive"].taken,
        "same_verdict": sum(same) / len(same),
        "told_by_the_whole_sweep": sum(told["whole"].values()) / len(same),
        "told_by_the_adaptive_one": sum(told["adaptive"].values()) / len(same),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=["opt-mini", "roberta-mini", "vit-mini"])
    parser.add_argument("--method", action="append")
    parser.add_argument("--predictions", type=int, default=8128)
    parser.add_argument("--every", type=int, default=1, help="of the heads, in order, every how many-th")
    parsed = parser.parse_args()
    keep_freed_memory()
    runs = []
    for ref in parsed.models:
        runs.append(compare(ref, parsed.method or ["mean"], parsed.predictions, parsed.every))
        write("adaptive", {"machine": machine(), "runs": runs})
