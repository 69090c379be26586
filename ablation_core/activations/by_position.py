"""How neurons are distributed at each position of a sequence, from a small pass over the statistics part.

Statistics hold no positions; here one layer's neurons are kept position by position over a few sequences.
"""

from dataclasses import dataclass

import numpy as np

from ablation_core.data.dataset import Data
from ablation_core.engine import forward
from ablation_core.models.loaded import LoadedModel

SEQUENCES = 64
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, eq=False)
class ByPosition:
    """One layer's neurons at each position.

    Attributes:
        mean: float32 (positions, heads, head_dim).
        quantiles: the 10%, 50% and 90% quantiles; float32 (3, positions, heads, head_dim).
        sequences: over how many sequences.
        data: of which data set.
    """

    mean: np.ndarray
    quantiles: np.ndarray
    sequences: int
    data: str


def by_position(model: LoadedModel, data: Data, layer: int, sequences: int = SEQUENCES) -> ByPosition:
    """Run the clean model over the first sequences of the data and gather a layer's z by position.

    All sequences of a data set are equally long. Memory: sequences × positions × the layer's neurons, in float32.
    """
    parts = []
    for number in range(len(data)):
        rows = [row for row in data.numbers(number) if row < sequences]
        if not rows:
            break
        parts.append(forward.z_values(model, data.rows(rows), [layer])[layer].float().cpu().numpy())
    values = np.concatenate(parts)
    values = values.reshape(len(values), -1, model.shape.heads[layer], model.shape.size(layer))
    quantiles = np.quantile(values, QUANTILES, axis=0).astype(np.float32)
    return ByPosition(values.mean(axis=0), quantiles, len(values), data.ref)
