"""What a clean pass over one batch leaves: the place that every ablation of that batch resumes from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ablation_core.data.dataset import Batch
from ablation_core.engine.hooks import hidden_of
from ablation_core.engine.scores import CleanPredictions

KeysValues = Sequence[tuple[Tensor, Tensor]]  # one pair per layer, each (batch, heads, positions, size)


@dataclass(frozen=True, eq=False)
class CleanPass:
    """A clean pass over one batch: the batch on the model's device and each block's output.

    Attributes:
        z_values: of the layers whose attention can be skipped; without them an ablation resumes at the block.
        keys_values: of every layer, where the model can resume in the middle of a sequence and they were asked for.
        clean: the probabilities and scores of runs of its predictions, filled in as they are scored.
        keeps: whether so many more bytes may be kept there; by default none.
    """

    batch: Batch
    outputs: list[Any]
    z_values: Mapping[int, Tensor] = field(default_factory=dict)
    keys_values: KeysValues = ()
    clean: dict[int, CleanPredictions] = field(default_factory=dict)
    keeps: Callable[[int], bool] = lambda _bytes: False

    @property
    def bytes(self) -> int:
        tensors = [*map(hidden_of, self.outputs), *self.z_values.values()]
        return sum(tensor.nbytes for tensor in (*tensors, *(one for pair in self.keys_values for one in pair)))
