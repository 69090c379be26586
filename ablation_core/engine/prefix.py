"""Resuming in the middle of a sequence: what a causal model computes from some position on.

An ablation that begins at position p leaves all that a causal model computes before p as it is, its attention's keys and
values among them. They are recorded once with the clean pass; from then on only the positions from p on are run, through
transformers' own cache. Whether a model takes a cache so is not told by its family's name: it is tried, on its own values.

Each position is computed from the same numbers by the same code, and the result is the same bit for bit where the
processor's products of few rows add up as those of many do; else it is the same to float rounding. Where a family rounds
otherwise (Bloom adds its biases by position in another order, an expert of a mixture may get a row or two) is said in
tests/engine/test_prefix.py.
"""

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ablation_core.data.dataset import Batch
from ablation_core.engine.clean_pass import CleanPass, KeysValues
from ablation_core.engine.few_queries import attends_by_torch, enough_queries, fewest_queries
from ablation_core.engine.hooks import Replace, hidden_of, record_outputs, replace_z, skip_blocks
from ablation_core.engine.shortcuts import skip_attention
from ablation_core.models.loaded import LoadedModel

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}  # a share of the largest value; of other types, equal bits
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


def takes_prefix(model: LoadedModel, clean_pass: CleanPass) -> bool:
    """Whether a model computes the same from the middle of these sequences on; tried once per model."""
    if model.takes_prefix is None:
        model.takes_prefix = model.resumes and bool(clean_pass.keys_values) and _tried(model, clean_pass)
    return model.takes_prefix


def _tried(model: LoadedModel, clean_pass: CleanPass) -> bool:
    rows, batch = slice(0, _TRIED), clean_pass.batch
    start = batch.targets.shape[1] // 2
    few = Batch({name: tensor[rows] for name, tensor in batch.inputs.items()}, batch.targets[rows])
    kept = [(keys[rows], values[rows]) for keys, values in clean_pass.keys_values]
    try:
        with torch.no_grad():
            found = run_from(model, CleanPass(few, [], keys_values=kept), [{}], start, 0)
    except Exception:  # noqa: BLE001 (whatever a model's parts do with a cache: the whole pass needs none)
        return False
    real = few.inputs.get("attention_mask", torch.ones(few.targets.shape))[:, start:].bool()
    return all(
        alike(hidden_of(one)[real], hidden_of(other)[rows, start:][real], model.dtype)
        for one, other in zip(found, clean_pass.outputs, strict=True)
    )


def alike(found: Tensor, expected: Tensor, dtype: str) -> bool:
    """Whether they are the same, as far as a type's rounding allows."""
    if found.shape != expected.shape or not found.numel():
        return False
    if dtype not in TOLERANCE:
        return torch.equal(found, expected)
    return bool((found - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max())


def fewest_columns(model: LoadedModel, rows: int) -> int:
    """Columns of so many rows that give the same bits."""
    return max(1 if attends_by_torch(model) else fewest_queries(), -(-_FEWEST // rows))


def run_from(
    model: LoadedModel, clean_pass: CleanPass, several: Sequence[Mapping[int, Replace]], start: int, first: int
) -> list[Any]:
    """The outputs of the blocks from `first` on, at the positions from `start` on: (ablations * rows, positions, width).

    Args:
        several: the replacements of each ablation, as for whole sequences; before `start` they change nothing.
    """
    times = len(several)
    z = clean_pass.z_values.get(first) if any(several) else None
    before = [like(output, repeated(hidden_of(output)[:, start:], times)) for output in clean_pass.outputs[:first]]
    here = [{layer: _later(replace, start) for layer, replace in replacements.items()} for replacements in several]
    inputs = {
        name: repeated(tensor if name == "attention_mask" else tensor[:, start:], times)
        for name, tensor in clean_pass.batch.inputs.items()
    }
    z = None if z is None else repeated(z[:, start:], times)
    return run_late(model, inputs, before, z, here, _filled(clean_pass.keys_values, start))


def run_late(
    model: LoadedModel,
    inputs: Mapping[str, Tensor],
    before: Sequence[Any],
    z: Tensor | None,
    several: Sequence[Mapping[int, Replace]],
    cache: Any,
) -> list[Any]:
    """The outputs of the blocks behind those that are known, of only some positions of each sequence.

    Args:
        inputs: of these positions; the rows of each ablation stand behind those of the one before.
        before: the outputs of the blocks that are not run, at these positions.
        z: of the first block that is run, where its attention can be skipped.
        several: the replacements of each ablation, for these positions.
        cache: the keys and values of the other positions.
    """
    first = len(before)
    with (
        model.lock,
        skip_blocks(model, before),
        skip_attention(model.shortcuts[first] if model.shortcuts else None, z),
        replace_z(model, each_by_itself(several)),
        record_outputs(model, first) as found,
        enough_queries(),
    ):
        base: Any = model.module.base_model
        base(**inputs, **cached(model, cache))
    return found


def each_by_itself(several: Sequence[Mapping[int, Replace]]) -> dict[int, Replace]:
    """Replacements in a batch in which the rows of several ablations stand behind each other: each one's in its own rows."""
    if len(several) == 1:
        return dict(several[0])

    def swap(layer: int) -> Replace:
        own = [replacements.get(layer, lambda z: z) for replacements in several]
        return lambda z: torch.cat([replace(part) for replace, part in zip(own, z.chunk(len(own)), strict=True)])

    return {layer: swap(layer) for layer in sorted({layer for one in several for layer in one})}


def repeated(tensor: Tensor, times: int) -> Tensor:
    """The rows so many times, one after the other."""
    return tensor.contiguous() if times == 1 else tensor.repeat(times, *[1] * (tensor.ndim - 1))


def _filled(pairs: KeysValues, start: int) -> Any:
    """A cache of the positions before `start`. Nothing is copied until a layer adds its own to it."""
    from transformers.cache_utils import DynamicLayer

    class Layer(DynamicLayer):
        """Keeps the keys of the rows once, until several ablations of them come."""

        keys: Any
        values: Any

        def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            times = len(key_states) // len(self.keys)
            self.keys, self.values = (repeated(whole, times) for whole in (self.keys, self.values))
            return super().update(key_states, value_states, *args, **kwargs)

    cache = empty_cache()
    for keys, values in pairs:
        layer = Layer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys[:, :, :start], values[:, :, :start]
        cache.layers.append(layer)
    return cache


def _later(replace: Replace, start: int) -> Replace:
    """A replacement that is made for whole sequences, for their later positions."""

    def later(z: Tensor) -> Tensor:
        return replace(torch.nn.functional.pad(z, (0, 0, start, 0)))[:, start:].contiguous()

    return later


def joined(clean: Any, late: Tensor, start: int) -> Any:
    """A block's output: the clean one before `start`, these hidden states from there on."""
    return like(clean, torch.cat([hidden_of(clean)[:, :start], late], 1))


def like(output: Any, hidden: Tensor) -> Any:
    """An output of the same form with these hidden states."""
    return (hidden, *output[1:]) if isinstance(output, tuple | list) else hidden
