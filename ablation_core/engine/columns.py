"""Resuming each sequence at a column of its own: prompts of different length, each from its own last tokens on.

As `prefix.py`, but every row has its own columns: what is computed takes the place of the recorded keys and values at the
columns where it stands, so that attention adds up in the same order. Whether a model takes that is tried, too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ablation_core.data.dataset import Batch
from ablation_core.engine.clean_pass import CleanPass, KeysValues
from ablation_core.engine.hooks import Replace, hidden_of
from ablation_core.engine.prefix import (
    alike,
    empty_cache,
    fewest_columns,
    like,
    repeated,
    run_late,
)
from ablation_core.models.loaded import LoadedModel

_APART = 3  # columns that the starts are set apart by where a model is tried


def row_columns(model: LoadedModel, batch: Batch, starts: Tensor) -> Tensor:
    """Each row's last columns, as many as the row that needs most of them has from its start on: (rows, columns).

    A row ends with its last token that is not padding. No fewer are taken than give the same bits.

    Args:
        starts: the first column that each row needs; (rows,).
    """
    rows, length = batch.targets.shape
    real = batch.inputs.get("attention_mask", torch.ones(rows, length)).bool().cpu()
    ends = length - real.flip(1).long().argmax(1)
    wide = max(int((ends - starts.cpu()).max()), fewest_columns(model, rows))
    first = (ends - min(wide, length)).clamp(min=0)
    return first[:, None] + torch.arange(min(wide, length))


def takes_columns(model: LoadedModel, clean_pass: CleanPass) -> bool:
    """Whether a model computes the same where each row's columns are its own; tried once a model."""
    if model.takes_columns is None:
        model.takes_columns = _tried(model, clean_pass)
    return model.takes_columns


def _tried(model: LoadedModel, clean_pass: CleanPass) -> bool:
    rows, length = clean_pass.batch.targets.shape
    if rows < 2 or length < 2 * _APART:
        return False
    wide = min(fewest_columns(model, rows), length - length // 2)
    columns = (length // 2 - torch.arange(rows) % _APART)[:, None] + torch.arange(wide)
    real = clean_pass.batch.inputs.get("attention_mask", torch.ones(rows, length)).bool().gather(1, columns)
    try:
        with torch.no_grad():
            found = run_columns(model, clean_pass, [{}], columns, 0)
    except Exception:  # noqa: BLE001 (whatever a model's parts do with a cache: the whole pass needs none)
        return False
    return all(
        alike(hidden_of(late)[real], _at(hidden_of(clean), columns)[real], model.dtype)
        for late, clean in zip(found, clean_pass.outputs, strict=True)
    )


def run_columns(
    model: LoadedModel, clean_pass: CleanPass, several: Sequence[Mapping[int, Replace]], columns: Tensor, first: int
) -> list[Any]:
    """The outputs of the blocks from `first` on, at each row's own columns: (ablations * rows, columns, width).

    Args:
        several: the replacements of each ablation, as for whole sequences.
        columns: (rows, columns), of all ablations alike.
    """
    batch, length = clean_pass.batch, clean_pass.batch.targets.shape[1]
    columns, times = columns.to(batch.targets.device), len(several)
    real = batch.inputs.get("attention_mask", torch.ones_like(batch.targets)).bool()
    seen = (torch.arange(length, device=columns.device) <= columns[:, :, None]) & real[:, None]
    inputs = {name: tensor.gather(1, columns) for name, tensor in batch.inputs.items() if name != "attention_mask"} | {
        "attention_mask": seen[:, None],
        "position_ids": columns,
    }
    inputs = {name: repeated(tensor, times) for name, tensor in inputs.items()}
    here = [
        {layer: _scattered(replace, columns, length) for layer, replace in replacements.items()}
        for replacements in several
    ]
    before = [like(output, repeated(_at(hidden_of(output), columns), times)) for output in clean_pass.outputs[:first]]
    z = clean_pass.z_values.get(first) if any(several) else None
    z = None if z is None else repeated(_at(z, columns), times)
    return run_late(model, inputs, before, z, here, column_cache(clean_pass.keys_values, columns))


def placed(clean: Any, late: Tensor, columns: Tensor) -> Any:
    """A block's output: the clean one, with these hidden states (rows, columns, width) at their columns."""
    whole = hidden_of(clean)
    return like(clean, whole.scatter(1, columns.to(whole.device)[:, :, None].expand_as(late), late))


def _at(tensor: Tensor, columns: Tensor) -> Tensor:
    """(rows, length, width) at each row's columns: (rows, columns, width)."""
    return tensor.gather(1, columns.to(tensor.device)[:, :, None].expand(-1, -1, tensor.shape[2]))


def _scattered(replace: Replace, columns: Tensor, length: int) -> Replace:
    """A replacement that is made for whole sequences, for these columns of them."""

    def here(z: Tensor) -> Tensor:
        whole = z.new_zeros(len(z), length, z.shape[2])
        whole = whole.scatter(1, columns.to(z.device)[:, :, None].expand_as(z), z)
        return _at(replace(whole), columns)

    return here


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
            times = len(some) // len(whole)
            places = columns.repeat(times, 1)[:, None, :, None].expand_as(some)
            return repeated(whole, times).scatter(2, places, some)

    cache = empty_cache()
    for keys, values in pairs:
        layer = Layer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache
