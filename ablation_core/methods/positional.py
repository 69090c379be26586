"""Means by position: what `mean-positional` puts in a neuron's place.

At each position a neuron takes its mean over the same position of the statistics part's sequences. In prompts of one
form that keeps what depends on the place alone and removes what depends on the words. They are kept (`kept.py`).
"""

import torch
from torch import Tensor

from ablation_core.data.dataset import Data
from ablation_core.engine import forward
from ablation_core.methods.kept import KeptFile
from ablation_core.models.loaded import LoadedModel


def positional_means(model: LoadedModel, data: Data, wanted: Data) -> dict[int, Tensor]:
    """Every layer's mean z at each position: layer → float32 (1, positions, heads * head_dim).

    Padding does not count. A position that no sequence of `data` has takes the mean over all positions.

    Args:
        data: what the means are over, its statistics part.
        wanted: the data that they are put into; text of it decides how many positions there are.
    """
    file = kept_means(model, data, wanted)
    means = file.recall()
    if means is None:
        means = measured_means(model, data, wanted)
        file.keep(means)
    return {int(layer): mean[None] for layer, mean in means.items()}


def kept_means(model: LoadedModel, data: Data, wanted: Data) -> KeptFile:
    """Where they are kept."""
    return KeptFile.of(model, "means", data.fingerprint, data.batch_size, _length(wanted))


def _length(wanted: Data) -> int | None:
    """How many positions the data decides; None where all inputs have as many as the model says, as images do."""
    return wanted.length if wanted.seq_len or wanted.longest else None


def measured_means(model: LoadedModel, data: Data, wanted: Data) -> dict[str, Tensor]:
    """Each layer's means (positions, neurons) by its number, from a pass over the data."""
    length = _length(wanted)
    sums: dict[int, Tensor] = {}
    counts: dict[int, Tensor] = {}
    for number in range(len(data)):
        batch = data.rows(data.numbers(number))
        captured = forward.z_values(model, batch, range(model.num_layers))
        for layer, z in captured.items():
            mask = batch.inputs.get("attention_mask")
            real = torch.ones(z.shape[:2]) if mask is None or len(mask) != len(z) else mask.float()
            real = real.to(z.device)[:, :, None]
            sums[layer] = sums.get(layer, 0) + (z.float() * real).sum(0).double().cpu()
            counts[layer] = counts.get(layer, 0) + real.sum((0, 2)).double().cpu()
    return {str(layer): _means(total, counts[layer], length or len(total)).float() for layer, total in sums.items()}


def _means(total: Tensor, counts: Tensor, length: int) -> Tensor:
    """Means (length, width) of sums (positions, width)."""
    means = total / counts[:, None].clamp(min=1)
    everywhere = total.sum(0) / counts.sum().clamp(min=1)
    means[counts == 0] = everywhere
    if len(means) < length:
        means = torch.cat([means, everywhere.expand(length - len(means), -1)])
    return means[:length]
