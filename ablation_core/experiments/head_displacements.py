"""Gradients times displacements: what a small step towards each method's values would change, head by head.

A displacement is what a method puts in the z's place, minus the z themselves.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data
from ablation_core.data.positions import EVERYWHERE, Positions
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.spec import AblationSpec
from ablation_core.methods.registry import Method
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Selection


class HeadDisplacements:
    """The displacements of every head by several methods, none of them learned.

    Args:
        positions: where the heads would be ablated.
    """

    def __init__(
        self,
        model: LoadedModel,
        data: Data,
        methods: Sequence[Method],
        *,
        statistics: Statistics | None,
        bins: int,
        seed: int,
        positions: Positions = EVERYWHERE,
    ) -> None:
        self.methods, self.shape = tuple(methods), model.shape
        everything = Selection.parse("*.*", model.shape)
        # An ablation of everything knows what each method puts where; it is never run.
        self._ablation = AblationRun(
            model, data, AblationSpec(everything, self.methods, bins, seed, positions), statistics
        )

    def of(self, rows: Sequence[int], z_values: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """Of these sequences, whose z are given layer by layer: method → one tensor per layer, shaped as they; float32."""
        return {method.name: self._of(method, rows, z_values) for method in self.methods}

    def _of(self, method: Method, rows: Sequence[int], z_values: Sequence[Tensor]) -> list[Tensor]:
        replacements = self._ablation.replacements.of(method, rows)
        with torch.inference_mode():
            return [  # a layer without heads has nothing to replace
                replacements[layer](z).float() - z.float() if layer in replacements else z.float()
                for layer, z in enumerate(z_values)
            ]

    @torch.inference_mode()
    def products(
        self, gradients: Sequence[Tensor], displacements: Mapping[str, Sequence[Tensor]], sequences: int
    ) -> dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]:
        """(method, layer) → gradient · displacement of each head, (sequences, heads), and neuron, (…, head_dim)."""
        products = {}
        for name, moved in displacements.items():
            for layer, (gradient, displacement) in enumerate(zip(gradients, moved, strict=True)):
                # Swin's windows stand in the batch's place; a sequence's come one after another.
                terms = (gradient.float() * displacement).unflatten(0, (sequences, -1)).flatten(1, -2).sum(1)
                neurons = terms.unflatten(-1, (self.shape.heads[layer], self.shape.size(layer))).double().cpu().numpy()
                products[name, layer] = (neurons.sum(-1), neurons)
        return products
