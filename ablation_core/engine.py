"""Runs a model over data with replacements, computing nothing twice.

A clean pass records every block's output once a batch. An ablation that begins in block L resumes from the recorded
input of block L: the earlier blocks are skipped, everything else is the model's own code, and the result is the same
bit for bit. Logits are computed only for scored predictions, some windows at a time: what stands behind the blocks
works on single positions, so scored positions are packed together and sent through it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablation_core.data import IGNORED, Batch, Data
from ablation_core.hooks import Replace, capture_pre_out, record_outputs, replace_pre_out, skip_blocks
from ablation_core.metrics import Scores, score
from ablation_core.models import LoadedModel
from ablation_core.selection import Selection

KEPT_BYTES = 1 << 30  # recorded block outputs kept for further ablations of the same data
LOGIT_VALUES = 1 << 24  # at most this many logits at once (64 MiB in float32, several times over while scored)


@dataclass(frozen=True, eq=False)
class Recorded:
    """A clean pass over one batch: the batch on the model's device and each block's output."""

    batch: Batch
    outputs: list[Any]

    @property
    def bytes(self) -> int:
        return sum(_hidden(output).nbytes for output in self.outputs)


class Recording:
    """The clean passes over a data set, made when first asked for and kept while they fit into `limit` bytes."""

    def __init__(self, model: LoadedModel, data: Data, limit: int = KEPT_BYTES) -> None:
        self.model, self.data, self.limit = model, data, limit
        self._kept: dict[int, Recorded] = {}

    def __getitem__(self, number: int) -> Recorded:
        """The clean pass over batch `number`."""
        if number in self._kept:
            return self._kept[number]
        recorded = record(self.model, self.data.rows(self.data.numbers(number)))
        if self.bytes + recorded.bytes <= self.limit:
            self._kept[number] = recorded
        return recorded

    @property
    def bytes(self) -> int:
        """What is kept, at most `limit`: the blocks' outputs of every batch that found room."""
        return sum(kept.bytes for kept in self._kept.values())


@torch.inference_mode()
def record(model: LoadedModel, batch: Batch) -> Recorded:
    """Run the clean model's blocks over a batch."""
    batch = _moved(batch, model)
    with model.lock, record_outputs(model.blocks) as outputs:
        _run_blocks(model, batch)
    return Recorded(batch, outputs)


@torch.inference_mode()
def pre_outs(model: LoadedModel, batch: Batch, layers: Sequence[int]) -> dict[int, Tensor]:
    """The clean pre-out of these layers: layer → (batch, position, heads * head_dim)."""
    with model.lock, capture_pre_out(model, layers) as captured:
        _run_blocks(model, _moved(batch, model))
    return captured


@torch.inference_mode()
def ablated_output(model: LoadedModel, recorded: Recorded, replacements: Mapping[int, Replace]) -> Any:
    """The last block's output with these layers' pre-outs replaced, resumed from the first of them."""
    if not replacements:
        return recorded.outputs[-1]
    first = min(replacements)
    with (
        model.lock,
        skip_blocks(model, recorded.outputs[:first]),
        replace_pre_out(model, replacements),
        record_outputs(model.blocks[-1:]) as outputs,
    ):
        _run_blocks(model, recorded.batch)
    return outputs[-1]


@torch.inference_mode()
def score_outputs(model: LoadedModel, recorded: Recorded, outputs: Sequence[Any]) -> list[Scores]:
    """Scores of the clean run, and then of each of these runs of the batch, given as last-block outputs."""
    scored = recorded.batch.targets != IGNORED
    wanted = recorded.batch.targets[scored]
    clean = recorded.outputs[-1]
    parts: list[list[Scores]] = [[] for _ in (clean, *outputs)]
    with model.lock:
        for rows, chunk in _chunks(model, recorded, scored):
            baseline = chunk(clean)
            parts[0].append(score(baseline, wanted[rows], baseline))
            for part, output in zip(parts[1:], outputs, strict=True):  # one at a time: logits are large
                part.append(score(chunk(output), wanted[rows], baseline))
    return [Scores.joined(part) for part in parts]


def _chunks(model: LoadedModel, recorded: Recorded, scored: Tensor) -> Iterator[tuple[slice, Callable[[Any], Tensor]]]:
    """Runs of scored predictions, each with a function from a last-block output to their log-probabilities.

    Images are few enough to go through at once. Of text, scored positions are packed into windows, so that the model's
    own code behind its blocks sees the shapes it is used to.
    """
    inputs = recorded.batch.inputs
    if model.modality == "vision":
        yield slice(None), lambda output: _log_probs(model, inputs, [*recorded.outputs[:-1], output])
        return
    rows, length = scored.shape
    length = max(1, min(length, LOGIT_VALUES // model.module.config.vocab_size))
    windows = max(1, min(rows, LOGIT_VALUES // (length * model.module.config.vocab_size)))
    total = int(scored.sum())
    for first in range(0, total, windows * length):
        here = slice(first, min(first + windows * length, total))
        count = here.stop - first

        def log_probs(output: Any, here: slice = here, count: int = count) -> Tensor:
            packed = _pack(_hidden(output)[scored][here], length)
            some = {name: tensor[: len(packed), :length] for name, tensor in inputs.items()}
            return _log_probs(model, some, [_like(output, packed)] * len(model.blocks)).flatten(0, 1)[:count]

        yield here, log_probs


def constant_replacements(
    selection: Selection, values: np.ndarray, model: LoadedModel, spared: int = 0
) -> dict[int, Replace]:
    """Replacements by constants, float32 (layers, heads, head_dim), but for the first `spared` positions."""
    replacements = {}
    for layer in selection.layers:
        value = torch.from_numpy(values[layer, : selection.shape.heads[layer]].reshape(-1).copy())
        replacements[layer] = _swapper(selection, layer, value.to(model.device), spared)
    return replacements


def donor_replacements(selection: Selection, donated: Mapping[int, Tensor], spared: int = 0) -> dict[int, Replace]:
    """Replacements by a donor run's pre-outs, position by position, but for the first `spared` positions."""
    return {layer: _swapper(selection, layer, donated[layer], spared) for layer in selection.layers}


def _swapper(selection: Selection, layer: int, value: Tensor, spared: int) -> Replace:
    mask = torch.from_numpy(selection.mask(layer)).to(value.device)

    def swap(pre_out: Tensor) -> Tensor:
        # Layers may lie on several devices; moving to where a tensor already is costs nothing.
        here = mask.to(pre_out.device)
        if spared:
            here = here & (torch.arange(pre_out.shape[1], device=pre_out.device) >= spared)[:, None]
        return torch.where(here, value.to(pre_out.device, pre_out.dtype), pre_out)

    return swap


def _run_blocks(model: LoadedModel, batch: Batch) -> None:
    """Run the model at least as far as its last block; a language model stops before its unembedding."""
    module = model.module if model.modality == "vision" else model.module.base_model
    module(**batch.inputs, **_options(model))


def _log_probs(model: LoadedModel, inputs: dict[str, Tensor], outputs: Sequence[Any]) -> Tensor:
    """The model's log-probabilities, float32, if its blocks gave these outputs."""
    with skip_blocks(model, outputs):
        result = model.module(**inputs, **_options(model))
    logits = result if isinstance(result, Tensor) else result.logits
    return logits.float().log_softmax(-1)


def _options(model: LoadedModel) -> dict[str, bool]:
    return {"use_cache": False} if model.modality == "causal" else {}


def _pack(hidden: Tensor, length: int) -> Tensor:
    """(scored, width) → (windows, length, width), the last window filled up with zeros."""
    missing = -len(hidden) % length
    return torch.nn.functional.pad(hidden, (0, 0, 0, missing)).unflatten(0, (-1, length))


def _hidden(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _like(output: Any, hidden: Tensor) -> Any:
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def _moved(batch: Batch, model: LoadedModel) -> Batch:
    dtype = next(model.module.parameters()).dtype
    inputs = {
        name: tensor.to(model.device, dtype if tensor.is_floating_point() else None)
        for name, tensor in batch.inputs.items()
    }
    return Batch(inputs, batch.targets.to(model.device))
