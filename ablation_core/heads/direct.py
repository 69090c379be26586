"""What each head contributes to the right answer's logit by itself, beside what ablating it does.

    direct = direct_effects(model, data)
    direct.heads                        # float32 (layers, heads), mean contribution per prediction
    direct.heads.sum() + direct.rest    # the mean logit of the right answers

The contribution of a head to a logit is the dot product of what it writes and the logit's direction in the residual
stream, the final norm's scale held fixed on each input (`tail.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ablation_core.data.arguments import measures
from ablation_core.data.dataset import IGNORED, Batch, Data, scored_rows
from ablation_core.engine.clean_pass import CleanPass
from ablation_core.engine.forward import record
from ablation_core.engine.hooks import capture_z, hidden_of
from ablation_core.engine.scoring import logits_from
from ablation_core.heads.tail import check_affine, frozen_norms, residual_paths
from ablation_core.heads.weights import layer_output_weights
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Head
from ablation_core.stats.intervals import Interval, mean_intervals


@dataclass(frozen=True, eq=False)
class DirectEffects:
    """Contributions to the logit of each prediction's target, summed over each sequence's predictions.

    Attributes:
        by_head: float64 (sequences, layers, heads), NaN where a layer has fewer heads than the widest.
        logits: float64 (sequences,), the whole logit.
        predictions: (sequences,), how many are scored in each.
        groups: in tasks, each prompt's group, which intervals resample; None where every sequence stands for itself.
    """

    by_head: np.ndarray
    logits: np.ndarray
    predictions: np.ndarray
    seed: int = 0
    groups: np.ndarray | None = None

    @property
    def heads(self) -> np.ndarray:
        """Each head's mean contribution per prediction, in logits; float32 (layers, heads)."""
        return (self.by_head.sum(0) / self.predictions.sum()).astype(np.float32)

    @property
    def rest(self) -> float:
        """What everything else contributes: embeddings, MLPs and biases."""
        return float((self.logits.sum() - np.nansum(self.by_head)) / self.predictions.sum())

    @property
    def logit(self) -> float:
        """The mean logit of the predictions' targets."""
        return float(self.logits.sum() / self.predictions.sum())

    def interval(self, head: Head) -> Interval:
        """A head's mean contribution with its 95% interval, resampling whole sequences, or groups of prompts."""
        scored = self.predictions > 0
        counts = self.predictions[scored]
        values = np.repeat(self.by_head[scored, head[0], head[1]] / counts, counts)
        numbers = np.arange(len(scored)) if self.groups is None else self.groups
        return mean_intervals(values[None], np.repeat(numbers[scored], counts), self.seed)[0]


@measures
def direct_effects(model: LoadedModel, data: Data, progress: Callable[[int, int], None] | None = None) -> DirectEffects:
    """The direct contribution of every head to the logit of the target, over the data, in one clean pass.

    >>> from ablation_core import direct_effects, load_data, load_model
    >>> model = load_model("opt-mini")
    >>> found = direct_effects(model, load_data("python-docs", model, predictions=700))
    >>> change = found.interval((5, 0))  # logits per prediction
    >>> change.low <= change.mean <= change.high
    True

    Args:
        progress: called with (batches done, batches) after each.

    Raises:
        ModelError: a head's direct contribution is not defined in this model; the sentence says why.
    """
    data.check_one_answer("a direct effect")
    paths = residual_paths(model, next(iter(data)))
    by_head, logits, counts = [], [], []
    for number, batch in enumerate(data):
        clean_pass, z = pass_with_z(model, batch)
        if not number:
            check_affine(model, clean_pass)
        gradient, values = target_gradient(model, clean_pass)
        rows = scored_rows(clean_pass.batch.targets.cpu().numpy())
        counts.append(np.bincount(rows, minlength=len(batch.targets)))
        logits.append(np.bincount(rows, weights=values, minlength=len(batch.targets)))
        found = np.full((len(batch.targets), model.num_layers, max(model.shape.heads)), np.nan)
        for layer, path in paths.items():
            heads = model.shape.heads[layer]
            direction = (gradient * path.to(gradient.device)) @ layer_output_weights(model, layer).T
            products = (direction * z[layer].float().to(direction.device)).unflatten(
                -1, (heads, model.shape.size(layer))
            )
            found[:, layer, :heads] = products.sum(-1).double().sum(1).cpu().numpy()
        by_head.append(found)
        if progress:
            progress(number + 1, len(data))
    return DirectEffects(
        np.concatenate(by_head), np.concatenate(logits), np.concatenate(counts), data.seed, data.groups
    )


def pass_with_z(model: LoadedModel, batch: Batch) -> tuple[CleanPass, dict[int, torch.Tensor]]:
    """A clean pass, and every layer's z."""
    with model.lock, capture_z(model, range(model.num_layers)) as z:
        clean_pass = record(model, batch, z_values=False)
    return clean_pass, z


def target_gradient(model: LoadedModel, clean_pass: CleanPass) -> tuple[torch.Tensor, np.ndarray]:
    """The gradient of the sum of the targets' logits by the last block's output, norms frozen; and these logits."""
    targets = clean_pass.batch.targets
    wanted, values = targets[targets != IGNORED], []
    model.check_gradients()
    with torch.inference_mode(False), torch.enable_grad(), model.lock, frozen_norms(model) as scales:
        last = hidden_of(clean_pass.outputs[-1]).detach().clone().requires_grad_()
        gradient = torch.zeros_like(last, dtype=torch.float32)
        for rows, logits in logits_from(model, clean_pass):
            scales.clear()
            found = logits(last).gather(1, wanted[rows][:, None])[:, 0]
            (part,) = torch.autograd.grad(
                found.float().sum(), last
            )  # alone: weights in memory keep the gradients they have
            gradient += part.float()
            values.append(found.detach().double().cpu().numpy())
    return gradient, np.concatenate(values)
