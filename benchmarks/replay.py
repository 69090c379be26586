"""The rule of adaptive sweeps on recorded changes: `python -m benchmarks.replay MODEL [--method NAME] [--predictions N]`.

Every head is measured on every sequence once, and kept in the cache folder's `runs/`. Then the looks are replayed on these
numbers, with the sequences in many random orders, and compared with what the whole sweep of the same sequences says.
Writes `replay-MODEL.json`: means over the orders, and the worst of them.
"""

import argparse

import numpy as np

from ablation_core import load_data, load_model, load_statistics
from ablation_core.activations.files import find_statistics
from ablation_core.data.references import DEFAULT_DATA
from ablation_core.engine.metrics import METRICS
from ablation_core.experiments.provenance import describe_run
from ablation_core.experiments.spec import DEFAULT_BINS
from ablation_core.methods.registry import choose_methods
from ablation_core.runs.adaptive_batches import HeadMeasurements
from ablation_core.runs.ledger import open_ledger
from ablation_core.runs.sweep_result import every_head
from ablation_core.runtime import keep_freed_memory
from ablation_core.stats.regression_estimator import RegressionEstimator, drawing_order
from ablation_core.stats.sequential import GroupSequentialTest, at_once, plan_interim_looks, significant
from ablation_core.storage import CACHE
from benchmarks.measure import write

PREDICTIONS = {"opt-mini": 8128, "roberta-mini": 8000, "vit-mini": 2000}  # and of any other model 2,048


def measured(ref: str, names: list[str], predictions: int, seq_len: int) -> tuple[HeadMeasurements, int]:
    """All heads on all sequences, and how many sequences an adaptive sweep of them takes at once."""
    model = load_model(ref)
    data = load_data(DEFAULT_DATA[model.modality], model, predictions, seq_len)
    statistics = load_statistics(find_statistics(model, data.ref).path, model)
    methods, heads = tuple(choose_methods(names, model.modality)), every_head(model)
    runs = HeadMeasurements(model, data, data.batch_size, heads, methods, statistics, DEFAULT_BINS)
    description = describe_run(model, data, statistics) | {"bins": DEFAULT_BINS}
    with open_ledger(CACHE, "replay", description) as ledger:
        runs.attach(ledger)
        for _ in runs.estimate(methods):
            pass
        for batch in range(len(runs.data)):
            for _ in runs.measure(batch, [(number, methods) for number in range(len(heads))]):
                pass
    return runs, at_once(data.sequences, data.batch_size)


def replayed(runs: HeadMeasurements, size: int, method: str, order: np.ndarray, guessed: bool) -> dict:
    """One map's looks, its sequences in this order; `guessed`: with the estimates of every sequence."""
    changes = (runs.sums[method] - runs.baseline[:, None])[list(METRICS).index("loss")][:, order]
    counts = runs.counts[order]
    first_order = runs.first_order[method][:, order] if guessed and runs.first_order is not None else None
    sizes = runs.sizes[order] if guessed else None
    whole = significant(RegressionEstimator.make(changes, counts).p())
    looks, shares = plan_interim_looks(len(counts), size)
    looking = GroupSequentialTest(len(changes), shares)
    for look in looks:
        if len(looking.open):
            seen = min(look * size, len(counts))
            looking.look(changes[looking.open, :seen], counts, first_order, sizes)
    taken = np.cumsum(counts)[looking.seen - 1] / counts.sum()
    blocks = np.array([runs.model.num_layers - layer for layer, _ in runs.heads])
    same = (np.array(looking.verdicts) == "told") == whole
    return {
        "told_by_the_whole_sweep": whole.mean(),
        "same_verdict": same.mean(),
        "predictions_taken": taken.mean(),
        "blocks_run": (taken * blocks).sum() / blocks.sum(),
    }


def replay(runs: HeadMeasurements, size: int, method: str, orders: int, guessed: bool) -> dict:
    """Means over the orders, and the fewest same verdicts in any."""
    results = []
    for seed in range(orders):
        order = drawing_order(runs.sizes if guessed else np.ones_like(runs.sizes), seed)
        results.append(replayed(runs, size, method, order, guessed))
    means = {name: float(np.mean([result[name] for result in results])) for name in results[0]}
    return means | {"same_verdict_in_the_worst_order": float(min(result["same_verdict"] for result in results))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--method", action="append", help="repeat for several; by default mean")
    parser.add_argument("--predictions", type=int)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--orders", type=int, default=20)
    parsed = parser.parse_args()
    keep_freed_memory()
    names = parsed.method or ["mean"]
    runs, size = measured(
        parsed.model, names, parsed.predictions or PREDICTIONS.get(parsed.model, 2048), parsed.seq_len
    )
    document = {
        "model": parsed.model,
        "heads": len(runs.heads),
        "sequences": len(runs.counts),
        "predictions": int(runs.counts.sum()),
        "orders": parsed.orders,
        "with_estimates": {name: replay(runs, size, name, parsed.orders, True) for name in names},
        "looks_alone": {name: replay(runs, size, name, parsed.orders, False) for name in names},
    }
    write(f"replay-{parsed.model.replace('/', '-')}", document)
