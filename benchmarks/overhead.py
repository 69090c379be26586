"""What statistics cost, and how near the peak comes to the mode: `python -m benchmarks.overhead [--model REF]`.

Writes `overhead.json`:

* `overhead`: counting every neuron against two plain passes over the same batches: `plain` is the model's own forward
  pass, blocks and unembedding, nothing scored: what a user runs. `blocks` is the same without the unembedding, which
  statistics do not need. Processor seconds a batch, interleaved, medians; shares are of the added time.
* `peaks`: from one layer's activations to its neurons' peaks in 100 bins: ours (range, moments, histogram, peak)
  against the paper's way, a Python loop with one numpy histogram a neuron.
* `modes`: the error of both ways' peaks on distributions whose mode is known, in their own standard deviations (those
  with outliers: of what is not one); the mean over 64 draws of 20,000 values.
"""

import argparse

import numpy as np
import torch

from ablation_core import load_data, load_model
from ablation_core.activations.accumulator import Accumulator
from ablation_core.activations.collect import StatisticsRun, gather_statistics
from ablation_core.runtime import keep_freed_memory
from benchmarks.measure import interleaved, machine, seconds, write

RUNS, BINS = 5, (128, 512, 600)
DRAWS, VALUES = 64, 20_000


def overhead(ref: str) -> dict:
    model = load_model(ref)
    data = load_data("python-docs", model, predictions=(RUNS + 2) * 8 * 127, split="statistics")
    runs = {bins: StatisticsRun(model, data, bins=bins) for bins in BINS}
    turn = {name: iter(data) for name in ("plain", "blocks")}

    @torch.inference_mode()
    def plain() -> None:
        model.module(**next(turn["plain"]).inputs, use_cache=False)

    @torch.inference_mode()
    def blocks() -> None:
        model.module.base_model(**next(turn["blocks"]).inputs, use_cache=False)

    acts = {"plain": plain, "blocks": blocks} | {f"{bins} bins": run.step for bins, run in runs.items()}
    first = interleaved(acts, 1)
    second = interleaved(acts, 1)  # with the calibration
    median = interleaved(acts, RUNS)
    counting = {name: value - median["blocks"] for name, value in median.items() if name.endswith("bins")}
    return {
        "model": ref,
        "neurons": model.shape.neurons,
        "tokens_a_batch": 8 * 128,
        "seconds_a_batch": median,
        "added_to_blocks": {name: value / median["blocks"] for name, value in counting.items()},
        "added_as_share_of_plain": {name: value / median["plain"] for name, value in counting.items()},
        "calibration_seconds": second["600 bins"] - median["600 bins"],
        "first_step_seconds": first["600 bins"],
    }


def ours(rows: torch.Tensor) -> np.ndarray:
    accumulator = Accumulator(rows.shape[1])
    for part in rows.split(1024):
        accumulator.update(part)
    return gather_statistics([accumulator], (1,), {}).peak(100)[0, 0]


def papers(rows: np.ndarray) -> np.ndarray:
    peaks = []
    for neuron in range(rows.shape[1]):
        counts, edges = np.histogram(rows[:, neuron], bins=100)
        best = counts.argmax()
        peaks.append((edges[best] + edges[best + 1]) / 2)
    return np.array(peaks)


def peaks(neurons: int = 576, tokens: int = 20_000) -> dict:
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(tokens, neurons)).astype(np.float32))
    stored = rows.numpy()
    median = interleaved({"ours": lambda: ours(rows), "papers": lambda: papers(stored)}, RUNS)
    statistics = gather_statistics([_counted(rows)], (1,), {})
    looked_up = float(np.median([seconds(lambda: statistics._find_peak(100)) for _ in range(RUNS)]))
    return {
        "neurons": neurons,
        "tokens": tokens,
        "seconds": median,
        "ratio_from_activations": median["papers"] / median["ours"],
        "seconds_from_statistics": looked_up,
        "ratio_once_counted": median["papers"] / looked_up,
    }


def _counted(rows: torch.Tensor) -> Accumulator:
    accumulator = Accumulator(rows.shape[1])
    accumulator.update(rows)
    return accumulator


def modes() -> dict:
    generator = np.random.default_rng(1)
    size = (VALUES, DRAWS)
    normal = generator.normal(size=size)
    outliers = np.where(generator.random(size) < 0.001, generator.normal(0, 300, size), normal)
    sides = np.where(generator.random(size) < 0.7, -2.0, 2.0)
    known = {  # values, mode, spread
        "normal": (normal, 0.0, 1.0),
        "skewed gamma (shape 3)": (generator.gamma(3, size=size), 2.0, 3**0.5),
        "bimodal (70% at -2, 30% at 2)": (
            sides + 0.5 * generator.normal(size=size),
            -2.0,
            float((sides + 0.5).std()),
        ),
        "heavy tails (Student, 2 degrees)": (generator.standard_t(2, size), 0.0, 1.0),
        "normal, 0.1% of it 300 times as wide": (outliers, 0.0, 1.0),
    }
    return {
        name: {
            "ours": float(np.abs(ours(torch.from_numpy(values.astype(np.float32))) - mode).mean() / spread),
            "papers": float(np.abs(papers(values) - mode).mean() / spread),
        }
        for name, (values, mode, spread) in known.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    keep_freed_memory()
    parsed = parser.parse_args()
    write("overhead", {"machine": machine(), "overhead": overhead(parsed.model), "peaks": peaks(), "modes": modes()})
