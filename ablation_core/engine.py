"""Runs a model over data with replacements, computing nothing twice.

A clean pass records every block's output once a batch. An ablation that begins in block L resumes from the recorded
input of block L: the earlier blocks are skipped, everything else is the model's own code, and the result is the same
bit for bit. Logits are computed only for scored predictions, some windows at a time: what stands behind the blocks
works on single positions, so scored positions are packed together and sent through it.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablation_core.data import IGNORED, Batch, Data
from ablation_core.hooks import Replace, capture_pre_out, join_pre_out, record_outputs, replace_pre_out, skip_blocks
from ablation_core.metrics import Scores, score
from ablation_core.models import LoadedModel
from ablation_core.selection import Selection

KEPT_BYTES = 1 << 30  # recorded block outputs kept for further ablations of the same data
KEPT_CLEAN_BYTES = 1 << 29  # clean log-probabilities kept for the same purpose
LOGIT_VALUES = 1 << 24  # at most this many logits at once (64 MiB in float32, several times over while scored)


@dataclass(frozen=True, eq=False)
class Recorded:
    """A clean pass over one batch: the batch on the model's device and each block's output.

    Attributes:
        clean: the log-probabilities and scores of runs of its predictions, filled in as they are scored.
        keeps: whether so many more bytes may be kept there; by default none.
    """

    batch: Batch
    outputs: list[Any]
    clean: dict[int, tuple[Tensor, Scores]] = field(default_factory=dict)
    keeps: Callable[[int], bool] = lambda _bytes: False

    @property
    def bytes(self) -> int:
        return sum(hidden_of(output).nbytes for output in self.outputs)


class Recording:
    """The clean passes over a data set, made when first asked for and kept while they fit into `limit` bytes.

    Of kept passes the log-probabilities are kept too, while these fit into `clean_limit` bytes: every ablation is
    compared with them, and computing them again would cost as much as scoring the ablated run itself.
    """

    def __init__(
        self, model: LoadedModel, data: Data, limit: int = KEPT_BYTES, clean_limit: int = KEPT_CLEAN_BYTES
    ) -> None:
        self.model, self.data, self.limit, self.clean_limit = model, data, limit, clean_limit
        self._kept: dict[int, Recorded] = {}
        self._made: dict[Hashable, Any] = {}

    def __getitem__(self, number: int) -> Recorded:
        """The clean pass over batch `number`."""
        if number in self._kept:
            return self._kept[number]
        recorded = record(self.model, self.data.rows(self.data.numbers(number)))
        if self.bytes + recorded.bytes <= self.limit:
            recorded = self._kept[number] = replace(recorded, keeps=self._keeps_clean)
        return recorded

    @property
    def bytes(self) -> int:
        """What is kept, at most `limit`: the blocks' outputs of every batch that found room."""
        return sum(kept.bytes for kept in list(self._kept.values()))

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What else experiments on the same model and data share, made when first asked for."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _keeps_clean(self, more: int) -> bool:
        # Copied first: other sessions may record while this one scores.
        kept = [log_probs.nbytes for one in list(self._kept.values()) for log_probs, _ in list(one.clean.values())]
        return sum(kept) + more <= self.clean_limit


@torch.no_grad()  # not inference mode: gradients may be wanted of what is resumed from here
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


@torch.enable_grad()
def record_graph(model: LoadedModel, batch: Batch) -> tuple[Recorded, list[Tensor]]:
    """A clean pass that gradients can be sent back through, and each layer's pre-out as a place in its graph."""
    batch = _moved(batch, model)
    with model.lock, join_pre_out(model) as joined, record_outputs(model.blocks) as outputs:
        _run_blocks(model, batch)
    return Recorded(batch, outputs), [joined[layer] for layer in range(model.num_layers)]


@torch.enable_grad()
def log_probs_from(model: LoadedModel, recorded: Recorded, last: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Runs of scored predictions, each with its log-probabilities as a function of the last block's hidden state.

    Args:
        last: what stands in for `hidden_of(recorded.outputs[-1])`; require its gradient to differentiate.
    """
    output = _like(recorded.outputs[-1], last)
    for rows, chunk in _chunks(model, recorded, recorded.batch.targets != IGNORED):
        with model.lock:
            log_probs = chunk(output)
        yield rows, log_probs


@torch.inference_mode()
def ablated_outputs(model: LoadedModel, recorded: Recorded, replacements: Mapping[int, Replace]) -> list[Any]:
    """Every block's output with these layers' pre-outs replaced, resumed from the first of them."""
    return resume(model, recorded, replacements)


def ablated_output(model: LoadedModel, recorded: Recorded, replacements: Mapping[int, Replace]) -> Any:
    """The last block's output with these layers' pre-outs replaced, resumed from the first of them."""
    return ablated_outputs(model, recorded, replacements)[-1]


def resume(model: LoadedModel, recorded: Recorded, replacements: Mapping[int, Replace]) -> list[Any]:
    """As `ablated_outputs`, in the caller's gradient mode."""
    if not replacements:
        return recorded.outputs
    first = min(replacements)
    with (
        model.lock,
        skip_blocks(model, recorded.outputs[:first]),
        replace_pre_out(model, replacements),
        record_outputs(model.blocks[first:]) as outputs,
    ):
        _run_blocks(model, recorded.batch)
    return [*recorded.outputs[:first], *outputs]


def loss_gradient(model: LoadedModel, recorded: Recorded, output: Any, needed: bool = True) -> tuple[float, Tensor]:
    """The sum of a run's losses in nats, and its gradient by the last block's output, (batch, position, width).

    Like scoring it goes in chunks, so that there are never more logits at once than there. Without the gradient, if
    none is needed, its place is empty.
    """
    wanted = recorded.batch.targets[recorded.batch.targets != IGNORED]
    hidden = hidden_of(output).detach().requires_grad_(needed)
    total = 0.0
    for rows, log_probs in log_probs_from(model, recorded, hidden):
        loss = -log_probs.gather(1, wanted[rows][:, None]).double().sum()
        if needed:
            loss.backward()
        total += loss.item()
    return total, hidden.grad if needed else torch.empty(0)


@torch.inference_mode()
def score_outputs(model: LoadedModel, recorded: Recorded, outputs: Sequence[Any]) -> list[Scores]:
    """Scores of the clean run, and then of each of these runs of the batch, given as last-block outputs."""
    scored = recorded.batch.targets != IGNORED
    wanted = recorded.batch.targets[scored]
    clean = recorded.outputs[-1]
    parts: list[list[Scores]] = [[] for _ in (clean, *outputs)]
    with model.lock:
        for rows, chunk in _chunks(model, recorded, scored):
            baseline, scores = _clean(recorded, rows.start or 0, lambda chunk=chunk: chunk(clean), wanted[rows])
            parts[0].append(scores)
            for part, output in zip(parts[1:], outputs, strict=True):  # one at a time: logits are large
                part.append(score(chunk(output), wanted[rows], baseline))
    return [Scores.joined(part) for part in parts]


def _clean(recorded: Recorded, first: int, log_probs: Callable[[], Tensor], wanted: Tensor) -> tuple[Tensor, Scores]:
    """The clean log-probabilities and scores of the run of predictions that begins at `first`; kept or made anew."""
    if first in recorded.clean:
        return recorded.clean[first]
    baseline = log_probs()
    made = baseline, score(baseline, wanted, baseline)
    if recorded.keeps(baseline.nbytes):
        recorded.clean[first] = made
    return made


@torch.inference_mode()
def log_probabilities(model: LoadedModel, recorded: Recorded, outputs: Sequence[Any]) -> list[Tensor]:
    """The whole distribution of every scored prediction for each of these runs of the batch, given as last-block outputs.

    Returns:
        A tensor a run, float32 (predictions, classes), on the processor: meant for a few predictions at a time.
    """
    scored = recorded.batch.targets != IGNORED
    parts: list[list[Tensor]] = [[] for _ in outputs]
    with model.lock:
        for _, chunk in _chunks(model, recorded, scored):
            for part, output in zip(parts, outputs, strict=True):
                part.append(chunk(output).cpu())
    return [torch.cat(part) for part in parts]


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
            packed = _pack(hidden_of(output)[scored][here], length)
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


def hidden_of(output: Any) -> Tensor:
    """The hidden states (batch, position, width) of a block's output, whatever form its family gives it."""
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
