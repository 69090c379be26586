"""One ablated head, by each library: written as its users write it, every one giving the same four means.

A contestant is made from a `Task` and has two functions: `clean()` runs the model as it is and keeps what comparing
needs; `head(layer, head)` puts the means in one head's place. Both return the mean loss, top-1, top-10 and KL over the
same predictions. Each has its own copy of the same weights in float32 and runs under torch's inference mode.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablation_core.data.dataset import Data
from ablation_core.engine import clean_passes, scoring
from ablation_core.engine.metrics import METRICS
from ablation_core.engine.scores import Scores
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Selection

Means = dict[str, float]


@dataclass(frozen=True)
class Task:
    """What all contestants are given: the project's model and data, the folder of the weights, and the replacement
    values, float32 (layers, heads, head_dim)."""

    model: LoadedModel
    data: Data
    folder: Path
    values: Tensor

    def batches(self) -> list[tuple[dict[str, Tensor], Tensor]]:
        """Inputs and targets, as a user would hold them; of text every position but a window's last is scored."""
        return [(batch.inputs, batch.targets) for batch in self.data]


@dataclass(frozen=True)
class Contestant:
    clean: Callable[[], Means]
    head: Callable[[int, int], Means]


def ours(task: Task) -> Contestant:
    """The project's engine: a recording, resumed at the head's block, scored in chunks."""
    model, state = task.model, {}

    def means(parts: Sequence[Scores]) -> Means:
        whole = Scores.joined(parts, METRICS.values())
        return {name: float(whole[name].mean()) for name in METRICS}

    def clean() -> Means:
        state["recording"] = clean_passes.CleanPassCache(model, task.data)
        return means([scoring.score_outputs(model, state["recording"][n], [])[0] for n in range(len(task.data))])

    def head(layer: int, number: int) -> Means:
        selection = Selection.of_heads([(layer, number)], model.shape)
        replacements = clean_passes.constant_replacements(selection, task.values.numpy(), model)
        parts = []
        for batch in range(len(task.data)):
            clean_pass = state["recording"][batch]
            output = clean_passes.ablated_output(model, clean_pass, replacements)
            parts.append(scoring.score_outputs(model, clean_pass, [output])[1])
        return means(parts)

    return Contestant(clean, head)


def naive(task: Task) -> Contestant:
    """A forward pre-hook on the output projection, the whole forward pass, all logits."""
    return _naive(task, _Scorer(task))


def naive_loss(task: Task) -> Contestant:
    """The same for a user who wants the loss alone: nothing else is computed."""
    return _naive(task, _LossScorer(task))


def _naive(task: Task, scorer: "_Scorer") -> Contestant:
    if task.model.modality == "vision":
        module, projections = task.model.module, [block.attn.proj for block in task.model.module.blocks]
    else:
        module = _causal_model(task.folder)
        projections = [layer.self_attn.o_proj for layer in module.model.layers]

    def logits(inputs: dict[str, Tensor]) -> Tensor:
        return module(**inputs) if task.model.modality == "vision" else module(**inputs, use_cache=False).logits

    def head(layer: int, number: int) -> Means:
        size = task.values.shape[-1]
        place, value = slice(number * size, (number + 1) * size), task.values[layer, number]

        def put(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            changed = args[0].clone()
            changed[..., place] = value
            return (changed, *args[1:])

        handle = projections[layer].register_forward_pre_hook(put)
        try:
            return scorer.means(logits)
        finally:
            handle.remove()

    return Contestant(lambda: scorer.keep(logits), head)


def nnsight(task: Task) -> Contestant:
    """nnsight: a trace that writes into the projection's input."""
    return _nnsight(task, resume=False)


def nnsight_skip(task: Task) -> Contestant:
    """nnsight by a user who resumes by hand: clean block outputs are saved, and earlier blocks skipped with them."""
    return _nnsight(task, resume=True)


def _nnsight(task: Task, resume: bool) -> Contestant:
    from nnsight import TransformersModel, save

    model = TransformersModel(str(task.folder), task="text-generation", dispatch=True, dtype=torch.float32)
    scorer, saved, size = _Scorer(task), [], task.values.shape[-1]

    def clean_logits(inputs: dict[str, Tensor]) -> Tensor:
        saved.clear()
        with model.trace(inputs["input_ids"], use_cache=False):
            outputs = save([layer.output for layer in model.model.layers] if resume else [])
            logits = model.output.logits.save()
        saved.extend(outputs)
        return logits

    def head(layer: int, number: int) -> Means:
        value = task.values[layer, number]

        def logits(inputs: dict[str, Tensor]) -> Tensor:
            with model.trace(inputs["input_ids"], use_cache=False):
                for block in range(layer if resume else 0):
                    model.model.layers[block].skip(saved[block])
                model.model.layers[layer].self_attn.o_proj.input[:, :, number * size : (number + 1) * size] = value
                logits = model.output.logits.save()
            return logits

        return scorer.means(logits)

    return Contestant(lambda: scorer.keep(clean_logits), head)


def transformer_lens(task: Task) -> Contestant:
    """TransformerLens' bridge: `run_with_hooks` on `hook_z`. Its `start_at_layer` is no help: it computes the earlier
    blocks all the same. It switches the model to eager attention."""
    from transformer_lens.model_bridge import TransformerBridge

    model = TransformerBridge.boot_transformers(str(task.folder), dtype=torch.float32, device="cpu")
    scorer = _Scorer(task)

    def head(layer: int, number: int) -> Means:
        def put(z: Tensor, hook: object) -> Tensor:
            z[:, :, number, :] = task.values[layer, number]
            return z

        hooks = [(f"blocks.{layer}.attn.hook_z", put)]
        return scorer.means(lambda inputs: model.run_with_hooks(inputs["input_ids"], fwd_hooks=hooks, use_cache=False))

    return Contestant(lambda: scorer.keep(lambda inputs: model(inputs["input_ids"], use_cache=False)), head)


def taker(task: Task) -> Contestant:
    """taker, the paper's own library: a mask and an offset at the hook point before the projection."""
    from taker.model import Model

    model = Model(str(task.folder), dtype="fp32", model_device="cpu")
    scorer, shape = _Scorer(task), task.values.shape[1:]

    def logits(inputs: dict[str, Tensor]) -> Tensor:
        return model.get_logits(input_ids=inputs["input_ids"], use_cache=False)

    def head(layer: int, number: int) -> Means:
        mask = model.hooks.neuron_masks[f"layer_{layer}_attn_pre_out"]
        keep, offset = torch.ones(shape), torch.zeros(shape)
        keep[number], offset[number] = 0, task.values[layer, number]
        mask.set_mask(keep)
        mask.set_offset(offset)
        result = scorer.means(logits)
        mask.reset()
        return result

    return Contestant(lambda: scorer.keep(logits), head)


CONTESTANTS = {
    function.__name__: function
    for function in (ours, naive, naive_loss, nnsight, nnsight_skip, transformer_lens, taker)
}


class _Scorer:
    """Loss, top-1, top-10 and KL from all logits, in torch's plain words; the clean log-probabilities are kept.

    Attributes:
        exact: for runs that are not timed. torch adds up the exponentials in single precision one after the other, which
            is off by up to 2e-5 nats with 49,152 classes; here what the probabilities then miss of 1 is put right.
    """

    exact = False

    def __init__(self, task: Task) -> None:
        self._batches = task.batches()
        self._clean: list[Tensor] = []

    @torch.inference_mode()
    def keep(self, logits: Callable[[dict[str, Tensor]], Tensor]) -> Means:
        self._clean = [_scored(logits(inputs), targets)[0].log_softmax(-1) for inputs, targets in self._batches]
        return self._joined(
            [
                self._score(clean, _wanted(targets), clean)
                for clean, (_, targets) in zip(self._clean, self._batches, strict=True)
            ]
        )

    @torch.inference_mode()
    def means(self, logits: Callable[[dict[str, Tensor]], Tensor]) -> Means:
        parts = []
        for clean, (inputs, targets) in zip(self._clean, self._batches, strict=True):
            scored, wanted = _scored(logits(inputs), targets)
            parts.append(self._score(scored.log_softmax(-1), wanted, clean))
        return self._joined(parts)

    @classmethod
    def _score(cls, log_probs: Tensor, wanted: Tensor, clean: Tensor) -> dict[str, Tensor]:
        loss = F.nll_loss(log_probs, wanted, reduction="none")
        if cls.exact:
            loss = loss + torch.cat([rows.double().logsumexp(-1) for rows in log_probs.split(128)])
        return {
            "loss": loss,
            "top1": (log_probs.argmax(-1) == wanted).float(),
            "top10": (log_probs.topk(10).indices == wanted[:, None]).any(-1).float(),
            "kl": F.kl_div(log_probs, clean, log_target=True, reduction="none").sum(-1),
        }

    @staticmethod
    def _joined(parts: list[dict[str, Tensor]]) -> Means:
        return {name: float(torch.cat([part[name] for part in parts]).double().mean()) for name in parts[0]}


class _LossScorer(_Scorer):
    """The loss alone, by torch's fused cross-entropy; nothing clean is kept."""

    @torch.inference_mode()
    def means(self, logits: Callable[[dict[str, Tensor]], Tensor]) -> Means:
        losses = [
            F.cross_entropy(*_scored(logits(inputs), targets), reduction="none") for inputs, targets in self._batches
        ]
        return {} if self.exact else {"loss": float(torch.cat(losses).double().mean())}

    keep = means


def score_exactly(exact: bool) -> None:
    """How all contestants but the engine, which has no other way, score from now on."""
    _Scorer.exact = exact


def _scored(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The logits (predictions, classes) and targets (predictions,): of text, all positions of a window but the last."""
    return logits if targets.ndim == 1 else logits[:, :-1].flatten(0, 1), _wanted(targets)


def _wanted(targets: Tensor) -> Tensor:
    return targets if targets.ndim == 1 else targets[:, :-1].flatten()


def _causal_model(folder: Path) -> nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
