"""Tiny models of ten families on a device: the engine's losses against plain hooks on the processor in float32."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablation_core.data.dataset import IGNORED, Batch
from ablation_core.engine import clean_passes, forward, scoring
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Selection
from tests import tiny

FAMILIES = ("gpt2", "opt", "llama", "gpt_neox", "gemma2", "qwen3", "bert", "roberta", "vit", "VisionTransformer")
LAYER, HEAD = 1, 1
ALLOWED = {"float32": 1e-4, "bfloat16": 0.03}  # nats, of any single prediction: bfloat16 has three digits
ALLOWED_RESUMED = {"float32": 1e-5, "bfloat16": 0.02}  # from whole passes of the same type on the same device


def conformance(device: torch.device) -> dict[str, dict]:
    """Per family and type: the largest differences of a prediction's loss, in nats, and whether they are allowed."""
    return {family: _family(family, device) for family in FAMILIES}


def _family(family: str, device: torch.device) -> dict[str, dict]:
    reference = tiny.build(family)
    batch = tiny.batch(reference)
    wanted = [_whole(reference, batch, ablated) for ablated in (False, True)]
    found = {}
    for name in ALLOWED:
        model = tiny.build(family)
        model.module.to(device, getattr(torch, name))
        here = Batch({key: _as(value, model, device) for key, value in batch.inputs.items()}, batch.targets)
        mine = _engine(model, here)
        whole = [_whole(model, here, ablated) for ablated in (False, True)]
        row = {
            "clean": _largest(mine[0], wanted[0]),
            "ablated": _largest(mine[1], wanted[1]),
            "resumed from whole": max(_largest(a, b) for a, b in zip(mine, whole, strict=True)),
            "effect of the ablation": _largest(wanted[1], wanted[0]),
        }
        allowed = max(row["clean"], row["ablated"]) <= ALLOWED[name]
        found[name] = row | {"passed": allowed and row["resumed from whole"] <= ALLOWED_RESUMED[name]}
    return found


def _as(value: Tensor, model: LoadedModel, device: torch.device) -> Tensor:
    return value.to(device, next(model.module.parameters()).dtype if value.is_floating_point() else value.dtype)


@torch.inference_mode()
def _engine(model: LoadedModel, batch: Batch) -> list[Tensor]:
    """Every prediction's loss by the engine: clean, and resumed with one head at zero."""
    selection = Selection.of_heads([(LAYER, HEAD)], model.shape)
    zeros = torch.zeros(model.shape.layers, max(model.shape.heads), model.shape.head_dim).numpy()
    clean_pass = forward.record(model, batch)
    output = clean_passes.ablated_output(model, clean_pass, clean_passes.constant_replacements(selection, zeros, model))
    return [torch.from_numpy(scores.loss) for scores in scoring.score_outputs(model, clean_pass, [output])]


@torch.inference_mode()
def _whole(model: LoadedModel, batch: Batch, ablated: bool) -> Tensor:
    """The same by one whole pass, a plain hook, and torch's cross-entropy."""
    size = model.shape.head_dim

    def put(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        changed = args[0].clone()
        changed[..., HEAD * size : (HEAD + 1) * size] = 0
        return (changed, *args[1:])

    handle = model.projections[LAYER].register_forward_pre_hook(put) if ablated else None
    try:
        output = model.module(**batch.inputs)
    finally:
        if handle is not None:
            handle.remove()
    logits, targets = (output if isinstance(output, Tensor) else output.logits).float().cpu(), batch.targets
    chosen = targets != IGNORED
    return F.cross_entropy(logits[chosen].double(), targets[chosen], reduction="none")


def _largest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())
