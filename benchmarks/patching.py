"""Heads by position against a plain patching loop: `python -m benchmarks.patching [--model REF | --random]`.

Writes `patching-MODEL.json`. The plain loop is what activation patching usually is: for every head (and position) one whole
forward pass of the model over all prompts with a hook that sets the head's z to zero there, and the answers' logit
difference read off its logits. Beside it the same ablations as this project runs them, with all metrics, displacements
and, in a column of their own, the intervals. Processor seconds of one process, on the same 32 prompts:

* `last`: all heads at the last position; `each`: all heads, one position at a time; `all`: all heads at all positions.

On a large model a part is measured and multiplied: heads of one layer cost the same, whichever they are. `--random` takes
random weights of SmolLM2-135M's size on 32 prompts of 16 random tokens, where no such model can be had.
"""

import argparse
import time

import numpy as np
import torch

from ablation_core import load_data, load_model
from ablation_core.data.dataset import Answers, Batch, Data
from ablation_core.data.made_for import reader_key
from ablation_core.data.positions import Positions
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.experiments.ablation import AblationRun, AblationSpec
from ablation_core.methods.registry import METHODS
from ablation_core.models.architectures import ARCHITECTURES
from ablation_core.models.loaded import LoadedModel, wrap
from ablation_core.runtime import keep_freed_memory
from ablation_core.selection import Selection
from benchmarks.measure import machine, write

PROMPTS, TOKENS = 32, 16
PLAIN_PASSES = 6  # the plain loop's passes all cost the same
LAYERS, POSITIONS = 6, 4  # of a large model, how many are measured
TARGETS = {"last": 0.10, "each": 0.30, "all": 0.50}


def random_smollm2() -> tuple[LoadedModel, Data]:
    """Random weights of SmolLM2-135M's size, and prompts of random tokens."""
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    module = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    model = wrap("random weights of SmolLM2-135M's size", module, ARCHITECTURES["llama"])
    ids = torch.randint(10, 49152, (PROMPTS, TOKENS))
    targets, others = torch.full_like(ids, -100), torch.full_like(ids, -100)
    targets[:, -1], others[:, -1] = ids[:, 1], ids[:, 2]

    def rows(numbers: object) -> Batch:
        index = torch.as_tensor(list(numbers))  # type: ignore[call-overload]
        answers = Answers(
            torch.arange(len(index)), torch.zeros(len(index), dtype=torch.bool), others[index],
            torch.full((len(index),), TOKENS),
        )  # fmt: skip
        inputs = {"input_ids": ids[index], "attention_mask": torch.ones_like(ids[index])}
        return Batch(inputs, targets[index], answers)

    data = Data(
        ref="random prompts", split="evaluation", seq_len=None, seed=0, batch_size=PROMPTS, sequences=PROMPTS, pool=PROMPTS,
        predictions=PROMPTS, fingerprint="", source="", notes=(), rows=rows, made_for=reader_key(model), longest=TOKENS,
        groups=np.arange(PROMPTS), lengths=np.full(PROMPTS, TOKENS),
    )  # fmt: skip
    return model, data


@torch.inference_mode()
def plain(model: LoadedModel, batch: Batch, layer: int, head: int, position: int | None) -> np.ndarray:
    """The logit difference of each prompt with a head's z set to zero at one position, counted from the end, or at all."""
    columns = slice(head * model.head_dim, (head + 1) * model.head_dim)
    ends, rows = batch.answers.ends, torch.arange(len(batch.targets))  # type: ignore[union-attr]

    def hook(_module: torch.nn.Module, inputs: tuple) -> tuple:
        z = inputs[0].clone()
        if position is None:
            z[:, :, columns] = 0
        else:
            z[rows, ends + position, columns] = 0
        return (z, *inputs[1:])

    handle = model.projections[layer].register_forward_pre_hook(hook)
    try:
        logits = model.module(**batch.inputs, use_cache=False).logits
    finally:
        handle.remove()
    at = logits[rows, ends - 1]
    right, wrong = batch.targets[rows, ends - 1], batch.answers.others[rows, ends - 1]  # type: ignore[union-attr]
    return (at[rows, right] - at[rows, wrong]).double().numpy()


def measured(
    model: LoadedModel, cache: CleanPassCache, layer: int, head: int, positions: Positions
) -> tuple[float, float, np.ndarray]:
    """Processor seconds of an ablation here, those of its intervals, and its logit differences."""
    selection = Selection.of_heads([(layer, head)], model.shape)
    begin = time.process_time()
    run = AblationRun(model, cache.data, AblationSpec(selection, (METHODS["zero"],), positions=positions), None, cache)
    _, ablated, _ = run.finish().scores()
    middle = time.process_time()
    run.result()
    return middle - begin, time.process_time() - middle, ablated["zero"]["logit_difference"]


def race(model: LoadedModel, data: Data, whole: bool, only: list[str]) -> dict:
    """Both ways of the three questions.

    Args:
        whole: measure everything; else some layers and positions.
        only: these questions.
    """
    batch, length = data.rows(range(data.sequences)), int(min(data.lengths))  # type: ignore[arg-type]
    layers = [layer for layer, heads in enumerate(model.shape.heads) if heads]
    some = layers if whole else layers[:: max(1, len(layers) // LAYERS)]
    places = (
        list(range(-length, 0))
        if whole
        else sorted({-1 - n * (length - 1) // (POSITIONS - 1) for n in range(POSITIONS)})
    )
    plain(model, batch, 0, 0, -1)
    begin = time.process_time()
    for _ in range(PLAIN_PASSES):
        plain(model, batch, 0, 0, -1)
    a_pass = (time.process_time() - begin) / PLAIN_PASSES
    asked = {"last": [-1], "each": places, "all": [None]}
    found = {}
    for name, wanted in ((name, asked[name]) for name in only):
        begin = time.process_time()
        cache = CleanPassCache(model, data, keys_values=name != "all")
        for number in range(len(data)):
            cache[number]
        clean = time.process_time() - begin
        measured(model, cache, layers[-1], 0, Positions())  # scores the clean run
        own, intervals, apart = [], [], 0.0
        for layer in some:
            for at in wanted:
                where = Positions() if at is None else Positions(((at, at),))
                taken, tested, difference = measured(model, cache, layer, 0, where)
                own.append(taken)
                intervals.append(tested)
                if layer in (some[0], some[-1]) and at in (wanted[0], wanted[-1]):
                    apart = max(apart, float(np.abs(difference - plain(model, batch, layer, 0, at)).max()))
        heads = sum(model.shape.heads)
        units = heads * (length if name == "each" else 1)
        seconds = clean + float(np.mean(own)) * units
        found[name] = {
            "ablations": units,
            "plain_seconds": a_pass * units,
            "seconds": seconds,
            "ratio": seconds / (a_pass * units),
            "ratio_with_intervals": (seconds + float(np.mean(intervals)) * units) / (a_pass * units),
            "target": TARGETS[name],
            "measured_ablations": len(own),
            "largest_difference_nats": apart,
        }
        print(name, {key: round(value, 5) for key, value in found[name].items()}, flush=True)
    return {"model": model.ref, "prompts": data.sequences, "tokens": [length, data.longest], "takes_prefix": model.takes_prefix, "takes_columns": model.takes_columns,
            "plain_seconds_a_pass": a_pass, "questions": found}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="opt-mini")
    parser.add_argument("--data", default="task:induction")
    parser.add_argument("--random", action="store_true", help="random weights of SmolLM2-135M's size")
    parser.add_argument("--only", nargs="+", choices=list(TARGETS), default=list(TARGETS), help="these questions")
    parsed = parser.parse_args()
    keep_freed_memory()
    if parsed.random:
        model, data = random_smollm2()
    else:
        model = load_model(parsed.model)
        data = load_data(parsed.data, model, predictions=PROMPTS, batch_size=PROMPTS)
    name = "random-smollm2" if parsed.random else parsed.model
    write(f"patching-{name}", {"machine": machine(), **race(model, data, model.num_layers < 12, parsed.only)})
