"""How far a method moves what it replaces, and how much longer or shorter that makes the residual stream."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablation_core.engine.hooks import Replace, hidden_of
from ablation_core.selection import Selection

Where = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Displacement:
    """A method's displacement of the selected neurons.

    Attributes:
        moved: root mean square of (replacement − activation) over neurons and positions, in each neuron's standard
            deviations; the mean's is near 1. None without statistics.
        norm_change: the mean relative change of the length of the residual stream after the ablated blocks.
    """

    moved: float | None
    norm_change: float | None


class DisplacementGauge:
    """Collects a method's displacement over batches.

    Args:
        std: the neurons' standard deviations, (layers, heads, head_dim); constant neurons do not count.
    """

    def __init__(self, selection: Selection, std: np.ndarray | None) -> None:
        self.selection = selection
        self._scales = {} if std is None else {layer: _scale(selection, layer, std) for layer in selection.layers}
        self._squares, self._values, self._change, self._lengths = 0.0, 0, 0.0, 0

    def watched(self, replacements: Mapping[int, Replace], where: Where | None = None) -> dict[int, Replace]:
        """The same replacements, which tell this gauge how far they move each activation.

        Args:
            where: from z, (batch, position, …), to the positions that are replaced, bool (batch, position, 1); by default all.
        """
        return {layer: self._watch(layer, replace, where) for layer, replace in replacements.items()}

    def _watch(self, layer: int, replace: Replace, where: Where | None) -> Replace:
        def swap(z: Tensor) -> Tensor:
            replaced = replace(z)
            if layer in self._scales:
                columns, scale = (tensor.to(z.device) for tensor in self._scales[layer])
                moved = (replaced[..., columns] - z[..., columns]).float() * scale
                moved = moved if where is None else moved[where(z)[..., 0]]
                self._squares += moved.square().sum(dtype=torch.float64).item()
                self._values += moved.numel()
            return replaced

        return swap

    def compare(self, clean: Sequence[Any], outputs: Sequence[Any], where: Where | None = None) -> None:
        """Add a batch's block outputs, of the clean run and of the ablated one."""
        for layer in self.selection.layers:
            before, after = (hidden_of(run[layer]).float().norm(dim=-1) for run in (clean, outputs))
            change = (after / before.clamp(min=1e-12) - 1).double()
            change = change if where is None else change[where(hidden_of(clean[layer]))[..., 0]]
            self._change += change.sum().item()
            self._lengths += change.numel()

    def result(self) -> Displacement:
        moved = float(np.sqrt(self._squares / self._values)) if self._values else None
        return Displacement(moved, self._change / self._lengths if self._lengths else None)


def _scale(selection: Selection, layer: int, std: np.ndarray) -> tuple[Tensor, Tensor]:
    """The columns of a layer's selected neurons that vary, and one over their standard deviations."""
    deviations = selection.shape.flat(std, layer)
    columns = np.flatnonzero(selection.mask(layer) & (deviations > 0))
    return torch.from_numpy(columns), torch.from_numpy(1 / deviations[columns])
