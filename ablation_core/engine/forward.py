"""A model's clean passes over one batch, and what they record."""

import functools
import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ablation_core.data.dataset import Batch
from ablation_core.engine import prefix
from ablation_core.engine.clean_pass import CleanPass
from ablation_core.engine.hooks import capture_z, join_z, record_outputs
from ablation_core.engine.shortcuts import find_shortcuts
from ablation_core.models.loaded import LoadedModel


@torch.no_grad()  # not inference mode: gradients may be wanted of what is resumed from here
def record(model: LoadedModel, batch: Batch, z_values: bool = True, keys_values: bool = False) -> CleanPass:
    """Run the clean model's blocks over a batch; with their z, so that ablations can skip the attention too.

    Args:
        keys_values: keep those too, where the model can resume in the middle of a sequence.
    """
    batch = on_device(batch, model)
    may_cache = keys_values and model.modality == "causal" and model.resumes and model.takes_prefix is not False
    cache = prefix.empty_cache() if may_cache else None
    with model.lock:
        wanted = _shortcuts(model, batch) if z_values else []
        with capture_z(model, wanted) as captured, record_outputs(model) as outputs:
            run_blocks(model, batch, cache)
    pairs = prefix.keys_values(model, cache)
    found = CleanPass(batch, outputs, captured, pairs)
    usable = may_cache and prefix.takes_prefix(model, found)
    return found if usable else replace(found, keys_values=())


def _shortcuts(model: LoadedModel, batch: Batch) -> list[int]:
    """The layers that have a way past their attention, looked for once a model on the batch's first row."""
    if model.shortcuts is None:
        model.shortcuts = find_shortcuts(model, lambda: run_blocks(model, first_row(batch)))
    return [layer for layer, shortcut in enumerate(model.shortcuts) if shortcut is not None]


@torch.inference_mode()
def z_values(model: LoadedModel, batch: Batch, layers: Sequence[int]) -> dict[int, Tensor]:
    """The clean z of these layers: layer → (batch, position, heads * head_dim)."""
    with model.lock, capture_z(model, layers) as captured:
        run_blocks(model, on_device(batch, model))
    return captured


@torch.enable_grad()
def run_clean_graph(model: LoadedModel, batch: Batch) -> tuple[CleanPass, list[Tensor]]:
    """A clean pass that gradients can be sent back through, and each layer's z as a place in its graph."""
    batch = on_device(batch, model)
    model.check_gradients()
    with model.lock, join_z(model) as joined, record_outputs(model) as outputs:
        run_blocks(model, batch)
    return CleanPass(batch, outputs), [joined[layer] for layer in range(model.num_layers)]


def run_blocks(model: LoadedModel, batch: Batch, cache: Any = None) -> None:
    """Run the model at least as far as its last block; a language model stops before its unembedding.

    Args:
        cache: what keys and values are put in, where it takes one.
    """
    module: Any = model.module if model.modality == "vision" else model.module.base_model
    kept = {} if cache is None else prefix.cached(model, cache)
    module(**batch.inputs, **(kept or options(model)))


def first_row(batch: Batch) -> Batch:
    return Batch({name: tensor[:1] for name, tensor in batch.inputs.items()}, batch.targets[:1])


def options(model: LoadedModel) -> dict[str, bool]:
    return model_options(model.module, model.modality)


def model_options(module: torch.nn.Module, modality: str) -> dict[str, bool]:
    """What a model is told beside its inputs: that no later pass will need keys and values again."""
    if modality == "text-classification":  # a name of its own: encoders hand other options on to where none is known
        return {"use_cache": False} if "use_cache" in inspect.signature(type(module).forward).parameters else {}
    return {"use_cache": False} if modality == "causal" and _takes_cache(type(module).forward) else {}


@functools.cache
def _takes_cache(forward: Any) -> bool:
    parameters = inspect.signature(forward).parameters.values()
    return any(one.name == "use_cache" or one.kind is one.VAR_KEYWORD for one in parameters)


def on_device(batch: Batch, model: LoadedModel) -> Batch:
    dtype = next(model.module.parameters()).dtype
    inputs = {
        name: tensor.to(model.device, dtype if tensor.is_floating_point() else None)
        for name, tensor in batch.inputs.items()
    }
    return Batch(inputs, batch.targets.to(model.device), batch.answers)
