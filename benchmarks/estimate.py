"""What the estimate costs and how well it agrees with exact values: `python -m benchmarks.estimate MODEL [--heads N]`.

Exact values come from ablating N heads one by one, a random sample of all (by default all), and are saved in the result
file beside this script: an interrupted run resumes, and a second run measures no head again. Costs are
processor time of one thread, as multiples of a plain pass: the clean forward and its scores on the same data.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ablation_core import ablate, find_statistics, load_data, load_model, load_statistics
from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data
from ablation_core.data.references import DEFAULT_DATA
from ablation_core.engine.forward import record
from ablation_core.engine.scoring import score_outputs
from ablation_core.experiments.estimate import EstimateRun
from ablation_core.experiments.estimate_result import MethodEstimate
from ablation_core.experiments.estimate_validation import agreement
from ablation_core.experiments.provenance import describe_run
from ablation_core.methods.registry import choose_methods
from ablation_core.models.loaded import LoadedModel
from ablation_core.runtime import keep_freed_memory
from benchmarks.measure import FOLDER

METHODS = ("zero", "mean", "median", "peak")
VARIANTS: dict[str, Callable[[MethodEstimate, str], np.ndarray]] = {
    "first order": lambda found, quantity: found.loss.heads - found["kl"].heads,
    "second order": lambda found, quantity: found["kl"].heads,
    "both": lambda found, quantity: getattr(found, quantity).heads,
}


def seconds(act: Callable[[], object]) -> float:
    started = time.process_time()
    act()
    return time.process_time() - started


def plain_pass(model: LoadedModel, data: Data) -> None:
    for batch in data:
        score_outputs(model, record(model, batch), [])


def measure_exactly(
    model: LoadedModel, data: Data, statistics: Statistics, count: int | None, kept: dict, path: Path
) -> None:
    """Ablate the sample's heads that are not in the file yet."""
    heads = [f"{layer}.{head}" for layer, heads in enumerate(model.shape.heads) for head in range(heads)]
    for number in np.random.default_rng(7).permutation(len(heads))[:count]:
        if heads[number] not in kept["exact"]:
            result = ablate(model, data, heads[number], METHODS, statistics=statistics)
            kept["exact"][heads[number]] = {
                row.method: {"kl": row.performance["kl"], "loss": row.change["loss"].mean} for row in result.results
            }
            path.write_text(json.dumps(kept, indent=1) + "\n")
            print(f"exact: {len(kept['exact'])} heads", flush=True)


def compare(found: tuple[MethodEstimate, ...], exact: dict) -> list[dict]:
    """Agreement of each variant and quantity, the mean over the methods."""
    rows = []
    for variant, read in VARIANTS.items():
        for quantity in ("kl", "loss"):
            agreements = [
                agreement(
                    [read(part, quantity)[tuple(map(int, head.split(".")))] for head in exact],
                    [values[part.method][quantity] for values in exact.values()],
                )
                for part in found
            ]
            figures = {
                name: round(float(np.mean([getattr(one, name) for one in agreements])), 3)
                for name in ("spearman", "slope", "ratio", "top")
                if all(getattr(one, name) is not None for one in agreements)
            }
            rows.append({"estimate": variant, "against": quantity, "heads": agreements[0].heads} | figures)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--heads", type=int, help="how many are ablated (default all)")
    parser.add_argument("--predictions", type=int, default=2000)
    parser.add_argument("--passes", type=int, nargs="+", default=(1, 3, 7))
    parsed = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    model = load_model(parsed.model)
    data = load_data(DEFAULT_DATA[model.modality], model, parsed.predictions)
    statistics = load_statistics(find_statistics(model, data.ref).path, model)
    path = FOLDER / f"estimate-{parsed.model}.json"
    run = describe_run(model, data, statistics)
    kept = json.loads(path.read_text()) if path.exists() else {}
    if kept.get("run") != run:
        kept = {"run": run, "exact": {}}

    plain = min(seconds(lambda: plain_pass(model, data)) for _ in range(2))
    kept["plain_pass_seconds"], kept["estimates"] = round(plain, 2), []
    for passes in parsed.passes:
        estimating = EstimateRun(
            model, data, choose_methods(METHODS, model.modality), statistics=statistics, passes=passes
        )
        cost = seconds(estimating.finish) / plain
        found = estimating.result().methods
        measure_exactly(model, data, statistics, parsed.heads, kept, path)
        rows = compare(found, kept["exact"])
        kept["estimates"].append({"passes": passes, "plain_passes": round(cost, 1), "agreement": rows})
        path.write_text(json.dumps(kept, indent=1) + "\n")
        for row in rows:
            print(f"passes {passes}, {cost:.1f} plain: {json.dumps(row)}", flush=True)


if __name__ == "__main__":
    main()
