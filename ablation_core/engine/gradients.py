"""Gradients with respect to every z at once: one clean pass over a batch, then some passes back.

One pass sends back the loss of the true targets; in tasks another one the logit difference. The others send back random vectors whose mean square is the Fisher
information of the model's own predictions: of one prediction with probabilities p, the vector e(y) − p, y drawn from
p, has mean 0 and covariance diag(p) − p pᵀ, which is also the curvature of the cross-entropy (Martens 2020, "New
insights and perspectives on the natural gradient method", section 9). Here the vector is a sum of `LABELS` such draws
with random signs, over √LABELS: the same covariance, with lighter tails, for the price of one pass.

A pass back adds up what all predictions of a sequence send. The square of a sum has mixed terms of two predictions:
zero on average, but by far the most of the noise. Each pass therefore carries a share of a sequence's predictions
only, dealt out so that those with the largest vectors never share a pass; mixed terms are left among the small ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ablation_core.data.dataset import IGNORED, Batch
from ablation_core.engine import forward, hooks, scoring
from ablation_core.engine.clean_pass import CleanPass
from ablation_core.engine.metrics import Slope
from ablation_core.engine.nonfinite import no_numbers
from ablation_core.models.loaded import LoadedModel

LABELS = 32


@dataclass(frozen=True, eq=False)
class Linearised:
    """A batch's clean pass, ready to be differentiated.

    Attributes:
        z_values: one a layer, (batch, position, heads * head_dim).
        predictions: how many of each sequence are scored; (sequences,).
        repeats: how many times every prediction is drawn; a sum of squares over all draws counts it that often.
    """

    z_values: list[Tensor]
    predictions: Tensor
    repeats: int
    _places: list[Tensor]
    _last: Tensor
    _slopes: Mapping[Slope, Tensor]
    _draws: list[Tensor]

    def slope(self, of: Slope) -> list[Tensor]:
        """The gradient of the summed loss of the true targets, or of a task's summed logit differences.

        One tensor per layer, shaped as the z.
        """
        return self._back(self._slopes[of])

    def loss(self) -> list[Tensor]:
        """The same of the loss."""
        return self.slope("loss")

    def draws(self) -> Iterator[list[Tensor]]:
        """One list of gradients a pass, shaped as the z.

        With d a displacement of the z, the squares of Σ gradient · d, summed over a sequence's places, then
        over the passes, have `repeats` · dᵀ F d as their mean: F is the Fisher information of its predictions.
        """
        return (self._back(draw) for draw in self._draws)

    def _back(self, sent: Tensor) -> list[Tensor]:
        gradients = torch.autograd.grad(self._last, self._places, sent, retain_graph=True, allow_unused=True)
        return [
            torch.zeros_like(place) if gradient is None else gradient
            for place, gradient in zip(self.z_values, gradients, strict=True)
        ]


def linearise(model: LoadedModel, batch: Batch, passes: int, seed: Sequence[int]) -> Linearised:
    """Run the clean model over a batch and prepare the passes back.

    Args:
        passes: how many passes of random vectors, none where only the loss is wanted; all predictions are drawn as
            often as they allow.
        seed: of the random vectors.

    Raises:
        ModelError: the clean model gives no numbers.
    """
    clean_pass, places = forward.run_clean_graph(model, batch)
    scored = clean_pass.batch.targets != IGNORED if batch.targets.ndim > 1 else None
    predictions = torch.ones(len(batch.targets)) if scored is None else scored.sum(1).cpu()
    shares = max(1, min(passes, int(predictions.max())))
    repeats = passes // shares
    slopes, draws = _sent(model, clean_pass, repeats, seed)
    if scored is not None:
        draws = [part for draw in draws for part in _dealt(draw, scored, shares)]
    last = hooks.hidden_of(clean_pass.outputs[-1])
    return Linearised([p.detach() for p in places], predictions, repeats, places, last, slopes, draws)


def _sent(
    model: LoadedModel, clean_pass: CleanPass, repeats: int, seed: Sequence[int]
) -> tuple[dict[Slope, Tensor], list[Tensor]]:
    """What the loss, a task's logit difference and each draw send back to the last block's output; shaped as that."""
    last, batch = hooks.hidden_of(clean_pass.outputs[-1]).detach().requires_grad_(), clean_pass.batch
    targets = batch.targets[batch.targets != IGNORED]
    others = None  # the wrong answer's tokens, where they are read off the same logits
    if batch.answers is not None and bool((batch.answers.others[batch.targets.cpu() != IGNORED] != IGNORED).all()):
        others = batch.answers.others.to(targets.device)[batch.targets != IGNORED]
    slopes: dict[Slope, Tensor] = {"loss": torch.zeros_like(last)}
    if others is not None:
        slopes["logit difference"] = torch.zeros_like(last)
    draws = [torch.zeros_like(last) for _ in range(repeats)]
    generator = torch.Generator(last.device).manual_seed(_one_number(seed))
    for rows, log_probs in scoring.log_probs_from(model, clean_pass, last):
        probs = log_probs.detach().exp()
        if not torch.isfinite(probs).all():
            raise no_numbers(model, "this data", clean_pass.outputs)
        true = torch.zeros_like(probs).scatter_(1, targets[rows].to(probs.device)[:, None], -1.0)
        sent = [true]
        if others is not None:
            sent.append((-true).scatter_(1, others[rows].to(probs.device)[:, None], -1.0))
        sent += [_labels(probs, generator) for _ in draws]
        for total, wanted in zip([*slopes.values(), *draws], sent, strict=True):
            total += torch.autograd.grad(log_probs, last, wanted, retain_graph=True)[0]
    return slopes, draws


def _labels(probs: Tensor, generator: torch.Generator) -> Tensor:
    """Signed labels drawn from each prediction's distribution: (predictions, classes).

    Sent through the log-softmax they lose their mean: e(y) becomes e(y) − p.
    """
    drawn = torch.multinomial(probs, LABELS, replacement=True, generator=generator)
    signs = torch.randint(0, 2, drawn.shape, generator=generator, device=probs.device).to(probs.dtype) * 2 - 1
    return torch.zeros_like(probs).scatter_add_(1, drawn, signs / LABELS**0.5)


def _dealt(draw: Tensor, scored: Tensor, shares: int) -> list[Tensor]:
    """The vectors of a draw, (batch, position, width), dealt out to several passes, the largest first."""
    size = draw.float().square().sum(-1).masked_fill(~scored, -1.0)
    share = size.argsort(1, descending=True).argsort(1) % shares
    return [draw * (share == number)[..., None] for number in range(shares)]


def _one_number(seed: Sequence[int]) -> int:
    """Several whole numbers as one seed; different lists give different streams (numpy's SeedSequence)."""
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1))
