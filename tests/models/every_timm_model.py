"""timm's image models that hold attention: of every class, and every set of attentions in it, the one with the fewest weights.

    try_model(smallest()["Hiera: MaskUnitAttention"], folder)

They are made as timm makes them, two blocks deep where their class takes a depth, with random weights, and saved as timm
saves them.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from ablation_core.errors import first_line
from ablation_core.models.loaded import LoadedModel
from tests.models.every_family import Outcome, try_saved

MOST_WEIGHTS = 100_000_000
ARGUMENTS: tuple[dict[str, Any], ...] = ({"num_classes": 5, "depth": 2}, {"num_classes": 5})


def smallest() -> dict[str, str]:
    """By class and attentions, the name of a model; it takes minutes, as each of timm's models is built without memory."""
    found: dict[str, tuple[int, str]] = {}
    for name in timm.list_models():
        try:
            with torch.device("meta"):
                module = timm.create_model(name, pretrained=False)
        except Exception:  # noqa: BLE001 - some cannot be built without memory
            continue
        attentions = sorted({type(part).__name__ for part in module.modules() if _attends(part)})
        weights = sum(weight.numel() for weight in module.parameters())
        if attentions:
            key = f"{type(module).__name__}: {', '.join(attentions)}"
            found[key] = min(found.get(key, (weights, name)), (weights, name))
    return {key: name for key, (_, name) in sorted(found.items())}


def _attends(part: nn.Module) -> bool:
    name = type(part).__name__.lower()
    return "attention" in name or "attn" in name


def try_model(name: str, folder: Path, **arguments: Any) -> Outcome:
    """Build, save, load and ablate, as `every_family.try_family` does; `arguments` make it smaller."""
    try:
        module, made = _built(name, arguments)
    except Exception as error:  # noqa: BLE001 - a class may fail in any way
        return Outcome(name, "not made", first_line(error))
    if (weights := sum(weight.numel() for weight in module.parameters())) > MOST_WEIGHTS:
        return Outcome(name, "not made", f"not tiny: {weights:,} weights")
    try:
        timm.models.save_for_hf(module, str(folder), model_args=made, safe_serialization=True)
    except (ValueError, RuntimeError) as error:  # an encoder that takes no classes, weights that are shared
        return Outcome(name, "not made", " ".join(str(error).split())[:100])
    return try_saved(name, folder, _heads)


def _heads(model: LoadedModel) -> str:
    heads = ", ".join(f"{count} × {len(list(same))}" for count, same in itertools.groupby(model.shape.heads))
    return f"; heads × layers: {heads}"


def _built(name: str, arguments: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """The module, with random numbers in every weight, and what it was made with."""
    torch.manual_seed(0)
    for number, given in enumerate(ARGUMENTS):
        made = given | arguments
        try:
            module = timm.create_model(name, pretrained=False, **made).eval()
            break
        except (TypeError, ValueError):  # its class takes no depth
            if number == len(ARGUMENTS) - 1:
                raise
    for weight in module.parameters():
        weight.data.add_(0.02 * torch.randn_like(weight))
    return module, made
