"""How time and memory grow: `python -m benchmarks.scaling [--model REF]`. Writes `scaling.json`.

* `time`: an ablation of one head by mean on tiny random models, twice and four times as much of one thing each: tokens,
  layers, heads (of 16 neurons), vocabulary. Processor seconds, medians.
* `memory`: the peak of a whole process that sweeps, beside that of one that makes one plain pass over one batch, each
  in its own process; what the sweep may take beyond it is the recorded outputs (`CleanPassCache.bytes`).
* `matmul`: which share of the machine's own matrix multiplication (float32, 2048 wide, the best of several) a plain pass
  reaches. Only products with weights and attention's two products are counted, two operations a multiply-add; of
  attention the whole square, as the causal mask's empty half is not skipped everywhere.
"""

import argparse
import subprocess
import sys

import numpy as np
import torch

from ablation_core import load_data, load_model
from ablation_core.data.dataset import Batch
from ablation_core.engine.clean_passes import ablated_output, constant_replacements
from ablation_core.engine.forward import record
from ablation_core.engine.scoring import score_outputs
from ablation_core.models.architectures import ARCHITECTURES
from ablation_core.models.loaded import LoadedModel, wrap
from ablation_core.runtime import keep_freed_memory
from ablation_core.selection import Selection
from benchmarks.measure import interleaved, machine, seconds, write

RUNS = 5
BASE = {"tokens": 1024, "layers": 4, "heads": 4, "vocabulary": 2000}

MEMORY = """
import resource, sys
from ablation_core import load_data, load_model
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.spec import AblationSpec
from ablation_core.methods.registry import METHODS
from ablation_core.selection import Selection
import torch
ref, kind = sys.argv[1:]
model = load_model(ref)
data = load_data("python-docs", model, predictions=4064)
kept = 0
if kind == "plain":
    with torch.inference_mode():
        model.module(**next(iter(data)).inputs, use_cache=False)
else:
    recording = CleanPassCache(model, data)
    for head in range(3):
        selection = Selection.of_heads([(model.num_layers // 2, head)], model.shape)
        AblationRun(model, data, AblationSpec(selection, (METHODS["zero"],)), None, recording).finish()
    kept = recording.bytes
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, kept)
"""


def tiny(layers: int, heads: int, vocabulary: int) -> LoadedModel:
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16 * heads,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=64 * heads,
    )
    module = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    return wrap("tiny", module, ARCHITECTURES["llama"])


def one_ablation(tokens: int, layers: int, heads: int, vocabulary: int) -> float:
    model = tiny(layers, heads, vocabulary)
    ids = torch.randint(0, vocabulary, (tokens // 64, 64))
    batch = Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids.roll(-1, 1))
    selection = Selection.of_heads([(0, 0)], model.shape)
    values = np.zeros((layers, heads, 16), np.float32)

    def run() -> None:
        clean_pass = record(model, batch)
        output = ablated_output(model, clean_pass, constant_replacements(selection, values, model))
        score_outputs(model, clean_pass, [output])

    run()
    return interleaved({"run": run}, RUNS)["run"]


def time() -> dict:
    grown = {}
    for name, start in BASE.items():
        grown[name] = {start * times: one_ablation(**BASE | {name: start * times}) for times in (1, 2, 4)}
    return grown


def memory(ref: str) -> dict:
    peak = {}
    for kind in ("plain", "sweep"):
        output = subprocess.run([sys.executable, "-c", MEMORY, ref, kind], capture_output=True, text=True, check=True)
        peak[kind], kept = map(int, output.stdout.split()[-2:])
    return {
        "model": ref,
        "peak_bytes": peak,
        "recorded_bytes": kept,
        "sweep_over_plain_and_recorded": peak["sweep"] / (peak["plain"] + kept),
    }


def matmul(ref: str) -> dict:
    model = load_model(ref)
    batch = next(iter(load_data("python-docs", model, predictions=8 * 127)))
    rows, length = batch.inputs["input_ids"].shape

    @torch.inference_mode()
    def plain() -> None:
        model.module(**batch.inputs, use_cache=False)

    linear = sum(m.weight.numel() for m in model.module.modules() if isinstance(m, torch.nn.Linear))
    attention = sum(2 * length * heads * model.head_dim for heads in model.shape.heads)
    operations = 2 * rows * length * (linear + attention)
    square = torch.randn(2048, 2048)

    @torch.inference_mode()
    def multiply() -> None:
        torch.mm(square, square)

    plain(), multiply()
    times = {"plain": [], "multiply": []}
    for _ in range(RUNS):
        times["plain"].append(seconds(plain))
        times["multiply"].append(seconds(multiply))
    limit = 2 * 2048**3 / min(times["multiply"])
    reached = operations / float(np.median(times["plain"]))
    return {
        "model": ref,
        "operations_a_pass": operations,
        "limit_per_second": limit,
        "reached_per_second": reached,
        "share": reached / limit,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parsed = parser.parse_args()
    keep_freed_memory()
    write(
        "scaling",
        {"machine": machine(), "time": time(), "memory": memory(parsed.model), "matmul": matmul(parsed.model)},
    )
