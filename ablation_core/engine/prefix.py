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
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ablation_core.data.dataset import Batch
from ablation_core.engine.hooks import Replace, hidden_of, record_outputs, replace_z, skip_blocks
from ablation_core.engine.shortcuts import skip_attention
from ablation_core.models.loaded import LoadedModel

KeysValues = Sequence[tuple[Tensor, Tensor]]  # one pair a layer, each (batch, heads, positions, size)


class Known(NamedTuple):
    """What a clean pass has left: its batch, its blocks' outputs, its z of some layers, its keys and values."""

    batch: Batch
    outputs: Sequence[Any]
    z_values: Mapping[int, Tensor]
    pairs: KeysValues


_TOLERANCE = {"float32": 1e-5, "float64": 1e-10}  # a share of the largest value; of other types, equal bits
_TRIED = 4  # rows that a model is tried on
_APART = 3  # columns that their starts are set apart by
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


def _fewest(rows: int) -> int:
    """Columns of so many rows that give the same bits; attention of a single query is another kernel, too."""
    return max(2, -(-_FEWEST // rows))


def row_columns(batch: Batch, starts: Tensor) -> Tensor:
    """Each row's last columns, as many as the row that needs most of them has from its start on: (rows, columns).

    A row ends with its last token that is not padding. No fewer are taken than give the same bits.

    Args:
        starts: the first column that each row needs; (rows,).
    """
    rows, length = batch.targets.shape
    real = batch.inputs.get("attention_mask", torch.ones(rows, length)).bool().cpu()
    ends = length - real.flip(1).long().argmax(1)
    wide = max(int((ends - starts.cpu()).max()), _fewest(rows))
    first = (ends - min(wide, length)).clamp(min=0)
    return first[:, None] + torch.arange(min(wide, length))


@torch.inference_mode()
def ablated_from(
    model: LoadedModel, known: Known, replacements: Mapping[int, Replace], starts: Tensor
) -> list[Any] | None:
    """Every block's output with these layers' z replaced from each row's start on; None where nothing would be saved.

    Behind a row's last token that is not padding outputs stay the clean ones: nobody reads them.

    Args:
        starts: the first column of each row at which they replace anything; (rows,).
    """
    columns, (rows, length) = row_columns(known.batch, starts), known.batch.targets.shape
    start = max(0, min(int(starts.min()), length - _fewest(rows)))
    if columns.shape[1] < length - start and takes_columns(model, known):
        first = min(replacements)
        found = _run_columns(model, known, columns, first, replacements)
        joined = [_placed(clean, late, columns) for clean, late in zip(known.outputs[first:], found, strict=True)]
        return [*known.outputs[:first], *joined]
    return outputs_from(model, *known, replacements, start) if start else None


def takes_columns(model: LoadedModel, known: Known) -> bool:
    """Whether a model computes the same where each row's columns are its own; tried once a model."""
    if model.takes_columns is None:
        model.takes_columns = _tried_columns(model, known)
    return model.takes_columns


def _tried_columns(model: LoadedModel, known: Known) -> bool:
    rows, length = known.batch.targets.shape
    if rows < 2 or length < 2 * _APART:
        return False
    wide = min(-(-_FEWEST // rows) + 1, length - length // 2)
    columns = (length // 2 - torch.arange(rows) % _APART)[:, None] + torch.arange(wide)
    real = known.batch.inputs.get("attention_mask", torch.ones(rows, length)).bool().gather(1, columns)
    try:
        with torch.no_grad():
            found = _run_columns(model, known, columns, 0, {})
    except Exception:  # noqa: BLE001 (as in `_tried`)
        return False
    return all(
        _alike(hidden_of(late)[real], _at(hidden_of(clean), columns)[real], model.dtype)
        for late, clean in zip(found, known.outputs, strict=True)
    )


def _run_columns(
    model: LoadedModel, known: Known, columns: Tensor, first: int, replacements: Mapping[int, Replace]
) -> list[Any]:
    """The outputs of the blocks from `first` on, at each row's own columns."""
    batch, length = known.batch, known.batch.targets.shape[1]
    columns = columns.to(batch.targets.device)
    real = batch.inputs.get("attention_mask", torch.ones_like(batch.targets)).bool()
    seen = (torch.arange(length, device=columns.device) <= columns[:, :, None]) & real[:, None]
    inputs = {name: tensor.gather(1, columns) for name, tensor in batch.inputs.items() if name != "attention_mask"} | {
        "attention_mask": seen[:, None],
        "position_ids": columns,
    }
    here = {layer: _scattered(replace, columns, length) for layer, replace in replacements.items()}
    before = [_like(output, _at(hidden_of(output), columns)) for output in known.outputs[:first]]
    z = known.z_values.get(first) if replacements else None
    shortcut = model.shortcuts[first] if model.shortcuts else None
    with (
        model.lock,
        skip_blocks(model, before),
        skip_attention(shortcut, None if z is None else _at(z, columns)),
        replace_z(model, here),
        record_outputs(model, first) as found,
    ):
        base: Any = model.module.base_model
        base(**inputs, **cached(model, column_cache(known.pairs, columns)))
    return found


def _at(tensor: Tensor, columns: Tensor) -> Tensor:
    """(rows, length, width) at each row's columns: (rows, columns, width)."""
    return tensor.gather(1, columns.to(tensor.device)[:, :, None].expand(-1, -1, tensor.shape[2]))


def _placed(clean: Any, late: Any, columns: Tensor) -> Any:
    whole, some = hidden_of(clean), hidden_of(late)
    return _like(clean, whole.scatter(1, columns.to(whole.device)[:, :, None].expand_as(some), some))


def _scattered(replace: Replace, columns: Tensor, length: int) -> Replace:
    """A replacement that is made for whole sequences, for these columns of them."""

    def here(z: Tensor) -> Tensor:
        whole = z.new_zeros(len(z), length, z.shape[2])
        whole = whole.scatter(1, columns.to(z.device)[:, :, None].expand_as(z), z)
        return _at(replace(whole), columns)

    return here


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
        record_outputs(model, first) as found,
    ):
        base: Any = model.module.base_model
        base(**inputs, **cached(model, cache))
    return found


def column_cache(pairs: KeysValues, columns: Tensor) -> Any:
    """A cache of whole sequences' keys and values, in which a layer's new ones take the place of those at their columns."""
    from transformers.cache_utils import DynamicLayer

    class Layer(DynamicLayer):
        """Keeps each key where it stands in the sequence, so that attention adds up in the same order."""

        keys: Any  # set below, before it is asked
        values: Any

        def update(
            self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any
        ) -> tuple[Tensor, Tensor]:
            return self._with(self.keys, key_states), self._with(self.values, value_states)

        def get_seq_length(self) -> int:
            return self.keys.shape[2] - columns.shape[1]

        @staticmethod
        def _with(whole: Tensor, some: Tensor) -> Tensor:
            return whole.scatter(2, columns[:, None, :, None].expand_as(some), some)

    cache = empty_cache()
    for keys, values in pairs:
        layer = Layer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


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
