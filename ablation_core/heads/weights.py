"""The part of a layer's output projection that one head or neuron writes through."""

import torch
from torch import Tensor, nn

from ablation_core.heads.target import Target
from ablation_core.models.loaded import LoadedModel


def output_weights(model: LoadedModel, target: Target) -> Tensor:
    """The rows that a head's z, or a neuron's activation, is multiplied by; float32 (neurons, width)."""
    return layer_output_weights(model, target.layer)[target.columns(model.shape.size(target.layer))]


def layer_output_weights(model: LoadedModel, layer: int) -> Tensor:
    """A layer's whole output projection as z reads it: float32 (heads * head_dim, width)."""
    projection = model.projections[layer]
    weight = projection.get_parameter("weight")
    # torch's Linear keeps (outputs, inputs), transformers' Conv1D (inputs, outputs)
    return (weight.T if isinstance(projection, nn.Linear) else weight).detach().float()


def output_bias(model: LoadedModel, layer: int) -> Tensor | None:
    bias: Tensor | None = getattr(model.projections[layer], "bias", None)
    return None if bias is None else bias.detach().float()


def head_output_gram(model: LoadedModel, layer: int, head: int) -> Tensor:
    """W Wᵀ of a head's rows, float32 (head_dim, head_dim): with it the norm of what it writes follows from z."""
    rows = output_weights(model, Target(layer, head))
    return torch.mm(rows, rows.T)
