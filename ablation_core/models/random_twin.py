"""A model's random twin: the same architecture with the weights that it would begin its training with.

    twin = random_twin(model, seed=0)

What an experiment finds on the twin too comes from the architecture and the data, not from what was learned.
"""

import copy
import threading
from dataclasses import replace

import torch
from torch import nn

from ablation_core.errors import ModelError, first_line
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.settings import parts_of


def random_twin(model: LoadedModel, seed: int = 0) -> LoadedModel:
    """The same architecture, tokenizer and image transform, with weights drawn as the architecture's authors draw them.

    Raises:
        ModelError: its library does not say how its weights begin.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = _fresh(model.module)
        except Exception as error:  # a library may fail in any way
            raise ModelError(f"{model.ref} cannot be built again with random weights: {first_line(error)}") from error
    _check_drawn(model, module)
    first = next(model.module.parameters())
    module.to(first.device, first.dtype).eval().requires_grad_(False)
    names = {id(part): name for name, part in model.module.named_modules()}

    def same_parts(parts: list[nn.Module]) -> list[nn.Module]:
        """The twin's parts; what stands in for a missing projection belongs to no module and stays."""
        return [module.get_submodule(names[id(part)]) if id(part) in names else part for part in parts]

    return replace(
        model,
        ref=f"{model.ref} with random weights (seed {seed})",
        module=module,
        blocks=same_parts(model.blocks),
        projections=same_parts(model.projections),
        lock=threading.RLock(),
        shortcuts=None,
        built=parts_of(module),
        _known=None,
        _run_by=None,
    )


def _fresh(module: nn.Module) -> nn.Module:
    if hasattr(module, "config"):  # transformers draws the weights of every model that it builds
        return type(module)(copy.deepcopy(module.config))
    fresh = copy.deepcopy(module)
    for part in fresh.modules():
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
    if callable(draw := getattr(fresh, "init_weights", None)):  # timm's, which also draws position and class tokens
        draw()
    return fresh


def _check_drawn(model: LoadedModel, module: nn.Module) -> None:
    """Refuse a twin that has other weights than the model, or still has some of its very weights."""
    mine, theirs = dict(model.module.named_parameters()), dict(module.named_parameters())
    if {name: weight.shape for name, weight in mine.items()} != {name: w.shape for name, w in theirs.items()}:
        raise ModelError(
            f"{model.ref} has weights that its configuration does not name (an adapter, say), so that it has no random twin."
        )
    left = [name for name, weight in mine.items() if weight.ndim > 1 and torch.equal(weight.cpu(), theirs[name].cpu())]
    if left:
        raise ModelError(f"{model.ref} does not say how {left[0]} begins, so that it has no random twin.")
