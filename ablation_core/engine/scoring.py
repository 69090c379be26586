"""From the last block's output to scores: logits for scored predictions only, some windows at a time.

What stands behind a language model's blocks works on single positions, so scored positions are packed together and sent
through it. A classifier's head reads whole sequences, and gets them.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ablation_core.data.dataset import IGNORED
from ablation_core.engine.answers import ANSWER_TOKENS, answer_scores
from ablation_core.engine.clean_pass import CleanPass
from ablation_core.engine.forward import first_row, options
from ablation_core.engine.hooks import hidden_of, skip_blocks
from ablation_core.engine.metrics import METRICS, Metric
from ablation_core.engine.scores import (
    CleanPredictions,
    Figure,
    Scores,
    score,
    score_clean,
)
from ablation_core.models.loaded import LoadedModel

LOGIT_VALUES = 1 << 25  # at most this many logits at once (128 MiB in float32): fewer make the unembedding slower


@torch.inference_mode()
def score_outputs(
    model: LoadedModel,
    clean_pass: CleanPass,
    outputs: Sequence[Any],
    metrics: Sequence[Metric] | None = None,
    together: int = 1,
) -> list[Scores]:
    """Scores of the clean run, and then of each of these runs of the batch, given as last-block outputs.

    Args:
        metrics: by default all; every time the same of one clean pass, whose own scores are kept.
        together: so many runs' predictions go through the unembedding at once, where they are few: each reads its weights
            once for all of them. The last bits may differ from one at a time.
    """
    batch = clean_pass.batch
    if metrics is None:
        metrics = tuple(metric for metric in METRICS.values() if batch.answers is not None or not metric.answers)
    scored = batch.targets != IGNORED
    wanted: Tensor = batch.targets[scored]
    figures: Sequence[Figure] = metrics
    if batch.answers is not None:
        other = batch.answers.others.to(wanted.device)[scored]
        wanted, figures = torch.stack([wanted, other.where(other != IGNORED, wanted)], 1), ANSWER_TOKENS
    clean = clean_pass.outputs[-1]
    parts: list[list[Scores]] = [[] for _ in (clean, *outputs)]
    with model.lock:
        for rows, chunk in _chunks(model, clean_pass, scored):
            baseline = _clean(clean_pass, rows.start or 0, partial(chunk, [clean]), wanted[rows], figures)
            parts[0].append(baseline.scores)
            few = max(1, min(together, LOGIT_VALUES // max(1, baseline.probabilities.numel())))  # logits are large
            for first in range(0, len(outputs), few):
                some = outputs[first : first + few]
                each = chunk(some).chunk(len(some))
                for part, logits in zip(parts[1 + first :], each, strict=False):
                    part.append(score(logits, wanted[rows], baseline, figures))
            del baseline  # before the next is made
    joined = [Scores.joined(part, figures) for part in parts]
    return joined if batch.answers is None else [answer_scores(batch, tokens, metrics) for tokens in joined]


def _clean(
    clean_pass: CleanPass, first: int, logits: Callable[[], Tensor], wanted: Tensor, metrics: Sequence[Figure]
) -> CleanPredictions:
    """The clean run's predictions that begin at number `first`, scored; kept or made again."""
    if first in clean_pass.clean:
        return clean_pass.clean[first]
    made = score_clean(logits(), wanted, metrics)
    if clean_pass.keeps(made.probabilities.nbytes):
        clean_pass.clean[first] = made
    return made


@torch.inference_mode()
def log_probabilities(model: LoadedModel, clean_pass: CleanPass, outputs: Sequence[Any]) -> list[Tensor]:
    """The whole distribution of every scored prediction for each of these runs of the batch, given as last-block outputs.

    Returns:
        A tensor a run, float32 (predictions, classes), on the processor: meant for a few predictions at a time.
    """
    scored = clean_pass.batch.targets != IGNORED
    parts: list[list[Tensor]] = [[] for _ in outputs]
    with model.lock:
        for _, chunk in _chunks(model, clean_pass, scored):
            for part, output in zip(parts, outputs, strict=True):
                part.append(chunk([output]).float().log_softmax(-1).cpu())
    return [torch.cat(part) for part in parts]


def _chunks(
    model: LoadedModel, clean_pass: CleanPass, scored: Tensor
) -> Iterator[tuple[slice, Callable[[Sequence[Any]], Tensor]]]:
    """Runs of scored predictions, each with a function from last-block outputs to the model's logits, one after the other.

    Classified images and texts are few enough to go through at once. Of language, scored positions are packed into windows, so that the model's
    own code behind its blocks sees the shapes it is used to.
    """
    inputs = clean_pass.batch.inputs
    if model.predicts_class:
        # What is embedded is of no matter, as the blocks hand on what they are given: one image is enough. A text's
        # head looks for its last token in the input.
        given = first_row(clean_pass.batch).inputs if model.modality == "vision" and model.one_image else inputs

        def whole(outputs: Sequence[Any]) -> Tensor:
            every = [_logits(model, given, [*clean_pass.outputs[:-1], output]) for output in outputs]
            return every[0] if len(every) == 1 else torch.cat(every)

        yield slice(None), whole
        return
    rows, length = scored.shape
    length = max(1, min(length, LOGIT_VALUES // model.vocabulary))
    windows = max(1, min(rows, LOGIT_VALUES // (length * model.vocabulary)))
    places = scored.nonzero(as_tuple=True)
    total = len(places[0])
    for first in range(0, total, windows * length):
        here = slice(first, min(first + windows * length, total))

        def logits(outputs: Sequence[Any], here: slice = here) -> Tensor:
            hidden = [hidden_of(output) for output in outputs]
            some = [one[tuple(place[here].to(one.device) for place in places)] for one in hidden]
            packed = _pack(some[0] if len(some) == 1 else torch.cat(some), length)
            index = torch.arange(len(packed)) % rows  # what is embedded is of no matter
            given = {name: tensor[index.to(tensor.device), :length] for name, tensor in inputs.items()}
            every = [_like(outputs[0], packed)] * len(model.blocks)
            return _logits(model, given, every).flatten(0, 1)[: len(some) * (here.stop - here.start)]

        yield here, logits


def logits_from(model: LoadedModel, clean_pass: CleanPass) -> Iterator[tuple[slice, Callable[[Tensor], Tensor]]]:
    """Runs of scored predictions, each with a function from the last block's hidden state to the model's logits."""
    for rows, chunk in _chunks(model, clean_pass, clean_pass.batch.targets != IGNORED):
        yield rows, partial(_from_hidden, chunk, clean_pass.outputs[-1])


def _from_hidden(logits: Callable[[Sequence[Any]], Tensor], output: Any, last: Tensor) -> Tensor:
    return logits([_like(output, last)])


@torch.enable_grad()
def log_probs_from(model: LoadedModel, clean_pass: CleanPass, last: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Runs of scored predictions, each with its log-probabilities as a function of the last block's hidden state.

    Args:
        last: what stands in for `hidden_of(recorded.outputs[-1])`; require its gradient to differentiate.
    """
    output = _like(clean_pass.outputs[-1], last)
    for rows, chunk in _chunks(model, clean_pass, clean_pass.batch.targets != IGNORED):
        with model.lock:
            logits = chunk([output])
        yield rows, logits.float().log_softmax(-1)


def loss_gradient(model: LoadedModel, clean_pass: CleanPass, output: Any, needed: bool = True) -> tuple[float, Tensor]:
    """The sum of a run's losses in nats, and its gradient by the last block's output, (batch, position, width).

    Like scoring it goes in chunks, so that there are never more logits at once than there. Without the gradient, if
    none is needed, its place is empty.
    """
    wanted = clean_pass.batch.targets[clean_pass.batch.targets != IGNORED]
    hidden = hidden_of(output).detach().requires_grad_(needed)
    total, gradient = 0.0, None
    for rows, log_probs in log_probs_from(model, clean_pass, hidden):
        loss = -log_probs.gather(1, wanted[rows][:, None]).double().sum()
        if needed:
            (part,) = torch.autograd.grad(loss, hidden)  # by this alone: weights in memory keep the gradients they have
            gradient = part if gradient is None else gradient + part
        total += loss.item()
    return total, torch.empty(0) if gradient is None else gradient


def _logits(model: LoadedModel, inputs: dict[str, Tensor], outputs: Sequence[Any]) -> Tensor:
    """The model's logits, in its own precision, if its blocks gave these outputs."""
    with skip_blocks(model, outputs):
        result = model.module(**inputs, **options(model))
    return result if isinstance(result, Tensor) else result.logits


def _pack(hidden: Tensor, length: int) -> Tensor:
    """(scored, width) → (windows, length, width), the last window filled up with zeros."""
    missing = -len(hidden) % length
    return torch.nn.functional.pad(hidden, (0, 0, 0, missing)).unflatten(0, (-1, length))


def _like(output: Any, hidden: Tensor) -> Any:
    return (hidden, *output[1:]) if isinstance(output, tuple | list) else hidden
