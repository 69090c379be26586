"""How well second-order scores tell the interactions of all pairs of heads: `python -m benchmarks.interactions MODEL`.

To second order the interaction of two heads is d_a' F d_b, with d their displacements and F the Fisher information: the mean
over random gradients of the product of both heads' directional derivatives, which the estimate squares for a single head
(`experiments/estimate.py`). The exact value is the change of loss of both minus both single changes, by ablation, of every
pair that is drawn. The result file is `interactions-MODEL.json`.
"""

import argparse
import time
from itertools import combinations

import numpy as np
import torch

from ablation_core import find_statistics, load_data, load_model, load_statistics
from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data
from ablation_core.data.references import DEFAULT_DATA
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.engine.gradients import linearise
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.head_displacements import HeadDisplacements
from ablation_core.experiments.provenance import describe_run
from ablation_core.experiments.spec import AblationSpec
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.runs.sweep import every_head
from ablation_core.runtime import keep_freed_memory
from ablation_core.selection import Head, Selection
from ablation_core.stats.correlation import rank_agreement
from benchmarks.measure import write

MOST = 20  # the largest interactions, whose share among the largest estimates is counted


def estimated(model: LoadedModel, data: Data, statistics: Statistics, method: str, passes: int) -> np.ndarray:
    """The estimate of every pair, nats per prediction; (heads, heads)."""
    displacements = HeadDisplacements(model, data, [METHODS[method]], statistics=statistics, bins=100, seed=data.seed)
    total, predictions = 0.0, 0.0
    for number in range(len(data)):
        rows = data.numbers(number)
        lines = linearise(model, data.rows(rows), passes, (data.seed, number))
        moved = displacements.of(rows, lines.z_values)
        for gradients in lines.draws():
            parts = displacements.products(gradients, moved, len(rows))
            heads = np.concatenate([parts[method, layer][0] for layer in range(model.num_layers)], axis=1)
            total = total + heads.T @ heads / lines.repeats
        predictions += float(lines.predictions.sum())
    return np.asarray(total) / predictions


def exact(
    model: LoadedModel, data: Data, statistics: Statistics, method: str, pairs: list[tuple[Head, Head]]
) -> np.ndarray:
    """Each pair's interaction by ablation, nats per prediction; (pairs,)."""
    cache, changes = CleanPassCache(model, data), {}

    def change(*heads: Head) -> float:
        if heads not in changes:
            spec = AblationSpec(Selection.of_heads(heads, model.shape), (METHODS[method],), seed=data.seed)
            baseline, ablated, _ = AblationRun(model, data, spec, statistics, cache).finish().scores()
            changes[heads] = float((ablated[method].loss - baseline.loss).mean())
        return changes[heads]

    return np.array([change(one, other) - change(one) - change(other) for one, other in pairs])


def agreement(estimates: np.ndarray, values: np.ndarray) -> dict:
    """How well estimates of pairs agree with exact interactions; both (pairs,)."""
    size = min(MOST, len(values) // 4)
    large = np.argsort(-abs(values))[:size]
    return {
        "spearman": round(rank_agreement(estimates, values).mean, 3),
        "spearman_of_sizes": round(rank_agreement(abs(estimates), abs(values)).mean, 3),
        f"largest_{size}_in_common": len(set(large) & set(np.argsort(-abs(estimates))[:size])),
        f"sign_right_among_largest_{size}": int((np.sign(estimates[large]) == np.sign(values[large])).sum()),
        "slope": round(float(np.polyfit(estimates, values, 1)[0]), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--predictions", type=int, default=500)
    parser.add_argument("--methods", nargs="+", default=["mean", "zero"])
    parser.add_argument("--passes", type=int, nargs="+", default=[7, 70])
    parser.add_argument(
        "--pairs", type=int, default=150, help="how many are ablated, drawn at random (default %(default)s)"
    )
    parsed = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    model = load_model(parsed.model)
    data = load_data(DEFAULT_DATA[model.modality], model, parsed.predictions)
    statistics = load_statistics(find_statistics(model, data.ref).path, model)
    heads, document = every_head(model), {"run": describe_run(model, data, statistics)}
    pairs = list(combinations(heads, 2))
    drawn = np.random.default_rng(7).permutation(len(pairs))[: parsed.pairs]
    chosen = [pairs[number] for number in sorted(drawn)]
    for method in parsed.methods:
        values = exact(model, data, statistics, method, chosen)
        document[method] = {
            "pairs": len(chosen),
            "exact_range": [round(float(values.min()), 5), round(float(values.max()), 5)],
            "estimates": [],
        }
        for passes in parsed.passes:
            started = time.process_time()
            scores = estimated(model, data, statistics, method, passes)
            cost = time.process_time() - started
            estimates = np.array([scores[heads.index(one), heads.index(other)] for one, other in chosen])
            found = {"passes": passes, "processor_seconds": round(cost, 1)} | agreement(estimates, values)
            document[method]["estimates"].append(found)
    write(f"interactions-{parsed.model}", document)


if __name__ == "__main__":
    main()
