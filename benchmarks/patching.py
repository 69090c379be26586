"""Heads by position against activation patching as it is usually done: `python -m benchmarks.patching`.

Every head takes the values it has on the counterfactual prompts (activation patching), on 32 prompts of `task:ioi`:

* `last`: all heads at each prompt's last position; `each`: all heads, one position at a time; `all`: all heads at all positions.

A plain loop with a hook, TransformerLens's `generic_activation_patch` and nnsight's traces run one whole forward pass
for each head (and position) and read the logit difference off the logits. Beside them stands what this project does for a
sweep, with all metrics, displacements and intervals. All take turns within one process, with an allocator that keeps
freed memory; processor seconds. Each peer has its own environment in the folder `--environments`, made by `python
benchmarks/peers.py --install`, and a process of its own in which everything else is measured again; what is not there is left out.

Some layers and positions are measured, evenly spread, so that their mean stands for all. Every answer of a peer is
compared with the project's, prompt by prompt. Leaves `patching-MODEL.json`.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablation_core import load_data, load_model
from ablation_core.data.dataset import Data
from ablation_core.data.positions import Positions
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.experiments.ablation import AblationRun, step_together
from ablation_core.experiments.spec import AblationSpec
from ablation_core.loading.folders import find_folder
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.runtime import keep_freed_memory
from ablation_core.selection import Selection
from ablation_core.storage import CACHE
from benchmarks.measure import machine, write

PROMPTS = 32
LAYERS = {"last": 4, "each": 2, "all": 4}  # how many are measured
POSITIONS = 3  # of them for `each`
HEADS = {"last": None, "each": None, "all": 3}  # of a layer; None: all of them, which then share passes
TARGETS = {"last": 0.10, "each": 0.30, "all": 0.50}
PEERS = {"transformer_lens": "env-tlens", "nnsight": "env-nnsight"}

Patch = Callable[[int, int, "int | None"], Tensor]  # layer, head, position → each prompt's logit difference
LAST = -1


@dataclass(frozen=True)
class Prompts:
    """What the peers are given: tokens, padded on the right, (prompts, positions), and where and by what each is answered."""

    ids: Tensor
    others: Tensor
    ends: Tensor
    right: Tensor
    wrong: Tensor
    head_dim: int
    folder: Path

    @classmethod
    def of(cls, model: LoadedModel, data: Data, folder: Path) -> "Prompts":
        assert data.counterfactual is not None
        batch, other = data.rows(range(PROMPTS)), data.counterfactual(range(PROMPTS))
        assert batch.answers is not None
        ends = batch.answers.ends
        rows = torch.arange(len(ends))
        right, wrong = batch.targets[rows, ends - 1], batch.answers.others[rows, ends - 1]
        ids = (batch.inputs["input_ids"], other.inputs["input_ids"])
        return cls(*ids, ends, right, wrong, model.head_dim, folder)

    def difference(self, logits: Tensor) -> Tensor:
        rows = torch.arange(len(self.ends))
        at = logits[rows, self.ends - 1]
        return at[rows, self.right] - at[rows, self.wrong]

    def columns(self, head: int) -> slice:
        return slice(head * self.head_dim, (head + 1) * self.head_dim)

    def place(self, position: int | None) -> tuple:
        """The rows and positions of z that are replaced."""
        if position is None:
            return slice(None), slice(None)
        return (torch.arange(len(self.ends)), self.ends - 1) if position == LAST else (slice(None), position)


def plain(prompts: Prompts) -> Patch:
    """A forward pre-hook on the output projection of transformers' model, the whole forward pass, all logits."""
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(prompts.folder, dtype=torch.float32).eval()
    projections = [layer.self_attn.o_proj for layer in module.model.layers]
    values: dict[int, Tensor] = {}
    keeping = [
        one.register_forward_pre_hook(lambda _m, args, number=number: values.update({number: args[0]}))
        for number, one in enumerate(projections)
    ]
    module(prompts.others, use_cache=False)
    for handle in keeping:
        handle.remove()

    def patch(layer: int, head: int, position: int | None) -> Tensor:
        place = (*prompts.place(position), prompts.columns(head))

        def put(_module: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            z = args[0].clone()
            z[place] = values[layer][place]
            return (z, *args[1:])

        handle = projections[layer].register_forward_pre_hook(put)
        try:
            return prompts.difference(module(prompts.ids, use_cache=False).logits)
        finally:
            handle.remove()

    return patch


def transformer_lens(prompts: Prompts) -> Patch:
    """TransformerLens's own loop, `patching.generic_activation_patch`, over one row of indices at a time."""
    import pandas
    from transformer_lens import patching
    from transformer_lens.model_bridge import TransformerBridge

    model = TransformerBridge.boot_transformers(str(prompts.folder), dtype=torch.float32, device="cpu")
    model.eval()
    patching.tqdm = lambda rows: rows
    _, cache = model.run_with_cache(prompts.others, names_filter=lambda name: name.endswith("hook_z"))

    def at_last(z: Tensor, index: list[int], other: Tensor) -> Tensor:
        place = (torch.arange(len(z)), prompts.ends - 1, index[2])
        z[place] = other[place]
        return z

    def patch(layer: int, head: int, position: int | None) -> Tensor:
        index = pandas.DataFrame({"layer": [layer], "pos": [position or 0], "head_index": [head]})
        setter = at_last if position == LAST else patching.layer_pos_head_vector_patch_setter
        if position is None:
            index, setter = index.drop(columns="pos"), patching.layer_head_vector_patch_setter
        found = patching.generic_activation_patch(
            model, prompts.ids, cache, prompts.difference, setter, "z", index_df=index, reduce="none"
        )
        return found.values[0]

    return patch


def nnsight(prompts: Prompts) -> Patch:
    """nnsight: a trace that writes into the projection's input."""
    from nnsight import TransformersModel, save

    model = TransformersModel(str(prompts.folder), task="text-generation", dispatch=True, dtype=torch.float32)
    with model.trace(prompts.others, use_cache=False):
        values = save([layer.self_attn.o_proj.input for layer in model.model.layers])

    def patch(layer: int, head: int, position: int | None) -> Tensor:
        place = (*prompts.place(position), prompts.columns(head))
        value = values[layer][place]
        with model.trace(prompts.ids, use_cache=False):
            model.model.layers[layer].self_attn.o_proj.input[place] = value
            logits = model.output.logits.save()
        return prompts.difference(logits)

    return patch


class Ours:
    """The project: all heads of a layer together, as a sweep measures them, each with its result."""

    def __init__(self, model: LoadedModel, data: Data, keys_values: bool) -> None:
        self.cache = CleanPassCache(model, data, keys_values=keys_values)
        # Clean passes and scores, the counterfactual's pass, and what is tried once.
        self.setup, _ = timed(self.heads, model.num_layers - 1, LAST if keys_values else None, 1)

    def heads(self, layer: int, position: int | None, count: int | None = None) -> np.ndarray:
        """The logit differences, (heads, prompts)."""
        model, where = self.cache.model, Positions() if position is None else Positions(((position, position),))
        count = count or model.shape.heads[layer]
        heads = [Selection.of_heads([(layer, head)], model.shape) for head in range(count)]
        specs = [AblationSpec(head, (METHODS["counterfactual"],), positions=where) for head in heads]
        runs = [AblationRun(model, self.cache.data, spec, None, self.cache) for spec in specs]
        step_together(runs)  # the data is one batch
        for run in runs:
            run.result()  # means and intervals
        return np.stack([run.scores()[1]["counterfactual"]["logit_difference"] for run in runs])


def timed(act: Callable[..., Any], *given: Any) -> tuple[float, Any]:
    """Processor seconds of all threads, and what came of it."""
    started = time.process_time()
    found = act(*given)
    return time.process_time() - started, found


def spread(count: int, many: int) -> list[int]:
    """So many of the numbers below `count`, evenly spread around their middle."""
    return [int(count / many * (number + 0.5)) for number in range(min(many, count))]


@torch.inference_mode()
def race(model: LoadedModel, data: Data, folder: Path | None, peer: str) -> dict:
    """All three questions; the project, the plain loop and a peer (empty: none) take turns."""
    assert folder is not None, "the model was loaded from it"
    prompts = Prompts.of(model, data, folder)
    makers = {"plain": plain} | (
        {peer: {"transformer_lens": transformer_lens, "nnsight": nnsight}[peer]} if peer else {}
    )
    others = {name: make(prompts) for name, make in makers.items()}
    for patch in others.values():
        patch(0, 0, LAST)  # to warm up
    longest, heads = prompts.ids.shape[1], sum(model.shape.heads)
    asked: dict[str, list] = {"last": [LAST], "each": spread(longest, POSITIONS), "all": [None]}
    found = {}
    for question, positions in asked.items():
        ours = Ours(model, data, question != "all")
        times: dict[str, list[float]] = {name: [] for name in ("ours", *others)}
        apart = dict.fromkeys(others, 0.0)
        for layer in spread(model.num_layers, LAYERS[question]):
            for position in positions:
                took, expected = timed(ours.heads, layer, position, HEADS[question])
                times["ours"].append(took / len(expected))
                for name, patch in others.items():
                    head = len(times[name]) % len(expected)
                    took, answer = timed(patch, layer, head, position)
                    times[name].append(took)
                    apart[name] = max(apart[name], float(np.abs(answer.double().numpy() - expected[head]).max()))
        units = heads * (longest if question == "each" else 1)
        whole = {name: float(np.mean(one)) * units for name, one in times.items()}
        whole["ours"] += ours.setup
        found[question] = {
            "ablations": units,
            "measured": len(times["ours"]),
            "seconds": whole,
            "target": TARGETS[question],
        }
        found[question]["ratio"] = {name: whole["ours"] / whole[name] for name in others}
        found[question]["largest_difference_nats"] = apart
        print(peer or "plain alone", question, found[question], file=sys.stderr, flush=True)
    lengths = [int(prompts.ends.min()), int(prompts.ends.max())]
    return {"machine": machine(), "model": model.ref, "prompts": PROMPTS, "tokens": lengths, "questions": found}


def main(arguments: argparse.Namespace) -> None:
    there = {name: arguments.environments / inside / "bin" / "python" for name, inside in PEERS.items()}
    results = {}
    for name, python in there.items():
        if arguments.peer is None and python.exists():
            options = [
                "--model",
                arguments.model,
                "--cache-dir",
                str(arguments.cache_dir),
                "--threads",
                str(arguments.threads),
            ]
            ran = subprocess.run(
                [str(python), "-m", "benchmarks.patching", "--peer", name, *options],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            results[name] = json.loads(ran.stdout.splitlines()[-1])
    if not results:
        torch.set_num_threads(arguments.threads)
        keep_freed_memory(largest=1 << 30)  # more than the project's own: the others make all logits at once
        model = load_model(arguments.model, "cpu", "float32", cache_dir=arguments.cache_dir)
        data = load_data("task:ioi", model, predictions=PROMPTS, batch_size=PROMPTS)
        results["plain"] = race(model, data, find_folder(arguments.model, arguments.cache_dir), arguments.peer or "")
    if arguments.peer is not None:
        print(json.dumps(results["plain"]))
    else:
        write(f"patching-{arguments.model}", results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m", help="a Llama-like model (default %(default)s)")
    parser.add_argument("--cache-dir", type=Path, default=CACHE, help="where fetched models are kept")
    parser.add_argument(
        "--environments", type=Path, default=Path(__file__).parents[2], help="where env-nnsight and so on lie"
    )
    parser.add_argument("--threads", type=int, default=2, help="of all that are compared (default %(default)s)")
    parser.add_argument("--peer", choices=PEERS, help="measure this one in this process, and print the result")
    main(parser.parse_args())
