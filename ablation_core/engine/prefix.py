"""Resuming in the middle of a sequence: what a causal model computes from some position on.

An ablation that begins at position p leaves all that a causal model computes before p as it is, its attention's keys and
values among them. They are recorded once with the clean pass; from then on only the positions from p on are run, through
transformers' own cache. Whether a model takes a cache so is not told by its family's name: it is tried, on its own values.

Each position is computed from the same numbers by the same code, and the result is the same bit for bit. Where a family
rounds otherwise (Bloom adds its biases by position in another order) is said in tests/engine/test_prefix.py.
"""

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ablation_core.data.dataset import Batch
from ablation_core.engine.hooks import Replace, hidden_of, record_outputs, replace_z, skip_blocks
from ablation_core.engine.shortcuts import skip_attention
from ablation_core.models.loaded import LoadedModel

KeysValues = Sequence[tuple[Tensor, Tensor]]  # one pair a layer, each (batch, heads, positions, size)
_TOLERANCE = {"float32": 1e-5, "float64": 1e-10}  # a share of the largest value; of other types, equal bits
_TRIED = 4  # rows that a model is tried on
_FEWEST = 16  # rows of a matrix product: for fewer there are kernels that add up in another order


def empty_cache() -> Any:
    """A cache that keeps the keys and values of all positions, whatever the layers' windows are."""
    from transformers import DynamicCache

    return DynamicCache()


def cached(model: LoadedModel, cache: Any) -> dict[str, Any]:
    """The options by which a model fills a cache, and reads it; none where it has no such option."""
    base: Any = model.module.base_model
    name = _cache_option(type(base).forward)
    return {name: cache, "use_cache": True} if name else {}


@functools.cache
def _cache_option(forward: Any) -> str | None:
    parameters = inspect.signature(forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in parameters), None)


def keys_values(model: LoadedModel, cache: Any) -> KeysValues:
    """What a pass has left in a cache; nothing where a layer keeps something else."""
    layers = list(getattr(cache, "layers", ()))
    pairs: list[Any] = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in layers]
    whole = len(pairs) == model.num_layers and all(isinstance(one, Tensor) for pair in pairs for one in pair)
    return pairs if whole else ()


def takes_prefix(model: LoadedModel, batch: Batch, outputs: Sequence[Any], pairs: KeysValues) -> bool:
    """Whether a model computes the same from the middle of these sequences on; tried once a model.

    Args:
        batch, outputs, pairs: of a clean pass over it.
    """
    if model.takes_prefix is None:
        model.takes_prefix = model.resumes and bool(pairs) and _tried(model, batch, outputs, pairs)
    return model.takes_prefix


def _tried(model: LoadedModel, batch: Batch, outputs: Sequence[Any], pairs: KeysValues) -> bool:
    rows = slice(0, _TRIED)
    start = batch.targets.shape[1] // 2
    few = Batch({name: tensor[rows] for name, tensor in batch.inputs.items()}, batch.targets[rows])
    kept = [(keys[rows], values[rows]) for keys, values in pairs]
    try:
        with torch.no_grad():
            found = _run(model, few, kept, start, 0, (), {})
    except Exception:  # noqa: BLE001 (whatever a model's parts do with a cache: the whole pass needs none)
        return False
    real = few.inputs.get("attention_mask", torch.ones(few.targets.shape))[:, start:].bool()
    return all(
        _alike(hidden_of(one)[real], hidden_of(other)[rows, start:][real], model.dtype)
        for one, other in zip(found, outputs, strict=True)
    )


def _alike(found: Tensor, expected: Tensor, dtype: str) -> bool:
    if found.shape != expected.shape or not found.numel():
        return False
    if dtype not in _TOLERANCE:
        return torch.equal(found, expected)
    return bool((found - expected).abs().max() <= _TOLERANCE[dtype] * expected.abs().max())


def usable_start(batch: Batch, start: int) -> int:
    """A position from which enough is run for the same bits: this one, or somewhat before it."""
    rows, length = batch.targets.shape[:2] if batch.targets.ndim > 1 else (1, 0)
    return max(0, min(start, length - -(-_FEWEST // rows)))


@torch.inference_mode()
def outputs_from(
    model: LoadedModel,
    batch: Batch,
    outputs: Sequence[Any],
    z_values: Mapping[int, Tensor],
    pairs: KeysValues,
    replacements: Mapping[int, Replace],
    start: int,
) -> list[Any]:
    """Every block's output with these layers' z replaced from position `start` on, as `clean_passes.ablated_outputs`.

    Args:
        batch, outputs, z_values, pairs: of the clean pass.
        replacements: as for the whole sequence; before `start` they change nothing.
    """
    first = min(replacements)
    shortcut = model.shortcuts[first] if model.shortcuts else None
    z = z_values.get(first)
    before = [_from(output, start) for output in outputs[:first]]
    here = {layer: _later(replace, start) for layer, replace in replacements.items()}
    with skip_attention(shortcut, None if z is None else z[:, start:].contiguous()):
        found = _run(model, batch, pairs, start, first, before, here)
    joined = [_joined(clean, late, start) for clean, late in zip(outputs[first:], found, strict=True)]
    return [*outputs[:first], *joined]


def _run(
    model: LoadedModel,
    batch: Batch,
    pairs: KeysValues,
    start: int,
    first: int,
    before: Sequence[Any],
    replacements: Mapping[int, Replace],
) -> list[Any]:
    """The outputs of the blocks from `first` on, at the positions from `start` on."""
    inputs = {name: tensor if name == "attention_mask" else tensor[:, start:] for name, tensor in batch.inputs.items()}
    cache = _filled(pairs, start)
    with (
        model.lock,
        skip_blocks(model, before),
        replace_z(model, replacements),
        record_outputs(model.blocks[first:]) as found,
    ):
        base: Any = model.module.base_model
        base(**inputs, **cached(model, cache))
    return found


def _filled(pairs: KeysValues, start: int) -> Any:
    """A cache of the positions before `start`. Nothing is copied until a layer adds its own to it."""
    from transformers.cache_utils import DynamicLayer

    cache = empty_cache()
    for keys, values in pairs:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys[:, :, :start], values[:, :, :start]
        cache.layers.append(layer)
    return cache


def _later(replace: Replace, start: int) -> Replace:
    """A replacement that is made for whole sequences, for their later positions."""

    def later(z: Tensor) -> Tensor:
        return replace(torch.nn.functional.pad(z, (0, 0, start, 0)))[:, start:].contiguous()

    return later


def _from(output: Any, start: int) -> Any:
    return _like(output, hidden_of(output)[:, start:].contiguous())


def _joined(clean: Any, late: Any, start: int) -> Any:
    return _like(clean, torch.cat([hidden_of(clean)[:, :start], hidden_of(late)], 1))


def _like(output: Any, hidden: Tensor) -> Any:
    return (hidden, *output[1:]) if isinstance(output, tuple | list) else hidden
