"""The constants that harm least, learned by gradient: optimal ablation (Li and Janson 2024, arXiv 2409.09951).

What is left of the harm with the best constants is the price of the information removed; what a method does beyond
that is the price of its displacement. The constants are learned on the statistics part and judged on the evaluation
part, as every other method's are.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ablation_core.data.dataset import IGNORED, Batch, Data
from ablation_core.data.load import load_data
from ablation_core.data.positions import EVERYWHERE, Positions
from ablation_core.engine import clean_passes, hooks, scoring
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.engine.hooks import Replace
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Selection

TRAINING_PREDICTIONS = {"causal": 8000, "masked": 2000, "vision": 1000, "text-classification": 1000}
TRAINING_PROMPTS = 1000  # of a task, whose prompts are one prediction each
PASSES = 3  # over the training part, at most; more would fit what is peculiar to it
_STEP = 0.1  # of a neuron's standard deviation, at first; it falls to a tenth of that
_GAIN, _SHARE = 1e-4, 0.02  # a pass that gains less, in nats or as a share of the harm that is left, is the last


def training_data(model: LoadedModel, data: Data) -> Data:
    """What constants for this evaluation data are learned on: its statistics part, in windows of the same length."""
    count = TRAINING_PROMPTS if data.is_task else TRAINING_PREDICTIONS[model.modality]
    if data.given is not None and data.split == "all":
        raise DataError(
            "Constants are learned on a part of the data that is not evaluated: give the data in memory with "
            "split='evaluation', so that every other row is left for that."
        )
    source = data.ref if data.given is None else data.given
    return load_data(
        source, model, count, data.seq_len or 128, data.batch_size, data.seed, "statistics", bool(data.documents)
    )


@dataclass(frozen=True)
class Learning:
    """How the learning went, in nats per prediction of the training part.

    Attributes:
        clean: the loss of the clean model.
        start, start_loss: which constants it began with, the least harmful of those given, and their loss.
        passes: the mean loss met during each pass, while the constants move.
        loss: with the constants returned, measured once more over the whole part.
        converged: whether the last pass was hardly better than the one before.
    """

    clean: float
    start: str
    start_loss: float
    passes: tuple[float, ...] = ()
    loss: float = math.nan
    converged: bool = False


class OptimalRun:
    """Constants under way: the first step finds the best start, each further one is a pass over the training part.

    Args:
        recording: of the training part.
        starts: name → float32 (layers, heads, head_dim); nothing more harmful than the least harmful of these, on the
            training part, is ever returned.
        std: the neurons' standard deviations, float32 (layers, heads, head_dim): the unit of a gradient step.
        positions: where the constants act.
    """

    def __init__(
        self,
        clean_cache: CleanPassCache,
        selection: Selection,
        starts: Mapping[str, np.ndarray],
        std: np.ndarray,
        positions: Positions = EVERYWHERE,
    ) -> None:
        self.model, self.clean_cache, self.selection = clean_cache.model, clean_cache, selection
        self.positions = positions
        self._masks = {layer: torch.from_numpy(selection.mask(layer)) for layer in selection.layers}
        self._starts = {name: self._gathered(values) for name, values in starts.items()}
        self._scale = self._gathered(std).nan_to_num(0).clamp(min=1e-6)
        self._best = self._values = next(iter(self._starts.values()))
        self._first, self._second = torch.zeros_like(self._scale), torch.zeros_like(self._scale)
        self.learning: Learning | None = None
        self.steps_done = 0

    @property
    def steps(self) -> int:
        """How many steps there are; fewer once the constants have converged."""
        done = not self.selection.chosen or (self.learning is not None and self.learning.converged)
        return self.steps_done if done else 1 + PASSES

    def values(self) -> np.ndarray:
        """The best constants so far, float32 (layers, heads, head_dim); NaN for neurons that are not selected."""
        shape = self.selection.shape
        values = np.full((shape.layers, max(shape.heads), shape.head_dim), np.nan, dtype=np.float32)
        for layer, value in self._scattered(self._best, torch.nan).items():
            heads, size = shape.heads[layer], shape.size(layer)
            values[layer, :heads, :size] = value.reshape(heads, size).numpy()
        return values

    def step(self) -> None:
        """Find the best start, or make one pass of gradient steps."""
        if self.learning is None:
            losses = {name: self._loss(values) for name, values in self._starts.items()}
            start = min(losses, key=lambda name: np.nan_to_num(losses[name], nan=np.inf))
            self._best = self._values = self._starts[start]
            self.learning = Learning(self._loss(None), start, losses[start], loss=losses[start])
        else:
            passes = (*self.learning.passes, self._pass(self.steps_done - 1))
            converged = len(passes) > 1 and _too_little(passes[-2] - passes[-1], passes[-1] - self.learning.clean)
            self.learning = replace(self.learning, passes=passes, converged=converged)
            if converged or len(passes) == PASSES:
                self._finish(self.learning)
        self.steps_done += 1

    def _finish(self, learning: Learning) -> None:
        loss = self._loss(self._values)
        if loss < learning.start_loss:
            self._best = self._values
            self.learning = replace(learning, loss=loss)

    def _pass(self, number: int) -> float:
        """Adam (Kingma and Ba 2015) over the batches, in units of each neuron's standard deviation; the mean loss met."""
        batches, total = len(self.clean_cache.data), 0.0
        for batch in range(batches):
            loss, gradient = self._gradient(self._values, batch)
            total, gradient = total + loss, gradient * self._scale
            update = number * batches + batch + 1
            self._first = 0.9 * self._first + 0.1 * gradient
            self._second = 0.99 * self._second + 0.01 * gradient.square()
            mean, square = self._first / (1 - 0.9**update), self._second / (1 - 0.99**update)
            rate = _STEP * (1 - 0.9 * update / (PASSES * batches))
            self._values = self._values - rate * self._scale * mean / (square.sqrt() + 1e-12)
        return total / self.clean_cache.data.predictions

    def _loss(self, values: Tensor | None) -> float:
        """The mean loss over the training part; None stands for the clean model."""
        total = 0.0
        for number in range(len(self.clean_cache.data)):
            clean_pass = self.clean_cache[number]
            replacements = {} if values is None else self._replacements(values, clean_pass.batch)
            output = clean_passes.ablated_output(self.model, clean_pass, replacements)
            total += scoring.loss_gradient(self.model, clean_pass, output, needed=False)[0]
        return total / self.clean_cache.data.predictions

    def _gradient(self, values: Tensor, number: int) -> tuple[float, Tensor]:
        """A batch's summed loss, and the gradient of its mean by the constants."""
        clean_pass, values = self.clean_cache[number], values.clone().requires_grad_()
        with torch.enable_grad():
            output = clean_passes.resume(self.model, clean_pass, self._replacements(values, clean_pass.batch))[-1]
        loss, gradient = scoring.loss_gradient(self.model, clean_pass, output)
        (gradient,) = torch.autograd.grad(hooks.hidden_of(output), values, gradient)
        return loss, gradient / max(1, int((clean_pass.batch.targets != IGNORED).sum()))

    def _replacements(self, values: Tensor, batch: Batch) -> dict[int, Replace]:
        replacements = clean_passes.resampled_replacements(self.selection, self._scattered(values, 0.0))
        if self.positions.everywhere:
            return replacements
        return clean_passes.at_positions(replacements, self.positions.mask(batch))

    def _gathered(self, array: np.ndarray) -> Tensor:
        """The selected neurons' entries, (neurons,), in order of layer, head and neuron."""
        shape = self.selection.shape
        rows = [torch.from_numpy(shape.flat(array, layer))[mask] for layer, mask in self._masks.items()]
        return torch.cat(rows) if rows else torch.zeros(0)

    def _scattered(self, values: Tensor, other: float) -> dict[int, Tensor]:
        """Each layer's row (heads * head_dim,) with these values at the selected neurons."""
        parts = values.split([int(mask.sum()) for mask in self._masks.values()])
        return {
            layer: torch.full(mask.shape, other).masked_scatter(mask, part)
            for (layer, mask), part in zip(self._masks.items(), parts, strict=True)
        }


def _too_little(gained: float, excess: float) -> bool:
    """Whether a pass gained hardly anything, in nats, of a loss that lies this far above the clean model's."""
    return not gained > max(_GAIN, _SHARE * excess)
