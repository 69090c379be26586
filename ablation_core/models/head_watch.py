"""Which linear map reads the heads of each block, and how they lie there, found by running the blocks.

Each row of a batch of equal rows has one head's result changed, and what changes in the input of a linear map says that it
reads the heads, and which of its inputs are that head's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ablation_core.errors import ModelError
from ablation_core.models.attention_calls import (
    Attention,
    AttentionInOneFunction,
    HeadsOf,
    Run,
    heads_behind_windows,
    heads_in_groups,
    heads_of,
    inside,
)
from ablation_core.models.hooks import hooked
from ablation_core.models.slices import changed_inputs, independent_slices

MOST_HEADS = 32  # so many heads of a layer are tried, evenly spread where there are more


@dataclass(frozen=True)
class Layer:
    """What was seen of one block.

    Attributes:
        heads: how many heads its attention computes; 0 where there is no softmax attention.
        reader: the name of the first linear map that reads them; empty where none does.
        slices: into how many equal, independent slices its input falls, one per head; 0 where they are not independent.
        mixer: the class of what stands in the attention's place, for a sentence.
        runs, reader_runs: how often the block ran, and its linear map.
        streams: how many residual streams it hands on.
        others: other linear maps that read another attention's heads in the same block.
    """

    heads: int
    reader: str
    slices: int
    mixer: str
    runs: int = 1
    reader_runs: int = 1
    streams: int = 1
    others: tuple[str, ...] = ()


def is_linear(module: nn.Module) -> bool:
    """A linear map with its weight as a matrix: torch's, transformers' Conv1D, or one made like them."""
    weight = getattr(module, "weight", None)
    return (
        isinstance(weight, Tensor)
        and weight.ndim == 2
        and not isinstance(module, nn.Embedding)
        and (hasattr(module, "in_features") or type(module).__name__ == "Conv1D")
    )


@torch.no_grad()
def watch_heads(module: nn.Module, names: tuple[str, ...], inputs: Mapping[str, Tensor], run: Run) -> tuple[Layer, ...]:
    """Change one head's result per row, and see what each block's linear maps read.

    Args:
        names: the blocks, in the order in which they run.
        inputs: one row.
    """
    blocks = {name: module.get_submodule(name) for name in names}
    counts, attended = _count_heads(blocks, lambda: run(inputs))
    ways = [_watched(blocks, heads, way, inputs, run) for way, heads in counts.items()]
    # with one window, or one head, several look independent: then the larger count is that of the heads
    layers = [max(found, key=lambda layer: layer.slices) for found in zip(*ways, strict=True)]
    others = _other_readers(blocks, attended, layers, inputs, run)
    return tuple(replace(layer, others=others[name]) for name, layer in zip(names, layers, strict=True))


def _watched(
    blocks: Mapping[str, nn.Module],
    heads: dict[str, int],
    way: HeadsOf,
    inputs: Mapping[str, Tensor],
    run: Run,
    only: int | None = None,
) -> tuple[Layer, ...]:
    rows = 1 + min(MOST_HEADS, max(heads.values(), default=0))
    many = {key: tensor[:1].expand(rows, *tensor.shape[1:]).clone() for key, tensor in inputs.items()}
    watch = _Watch(rows, heads, way, only)
    reading = [
        (linear, watch.reads(name, inner))
        for name, block in blocks.items()
        for inner, linear in block.named_modules()
        if is_linear(linear)
    ]
    equal = [(block, watch.equal_rows(name)) for name, block in blocks.items()]
    with (
        inside(blocks) as watch.running,
        hooked(reading, before=True),
        hooked(equal),
        Attention(watch.change),
    ):
        run(many)
    return tuple(watch.layer(name, block) for name, block in blocks.items())


def _count_heads(
    blocks: Mapping[str, nn.Module], run: Callable[[], Any]
) -> tuple[dict[HeadsOf, dict[str, int]], dict[str, list[int]]]:
    """Each block's heads, also as they would be beside windows or in groups where a result has room for these; and the
    heads of each of its results that are attention for sure.
    """
    ways: tuple[HeadsOf, ...] = (heads_of, heads_behind_windows, heads_in_groups)
    counts: dict[HeadsOf, dict[str, int]] = {way: dict.fromkeys(blocks, 0) for way in ways}
    attended: dict[str, list[int]] = {name: [] for name in blocks}
    dimensions: set[int] = set()
    with inside(blocks) as running:

        def see(result: Tensor, sure: bool) -> Tensor:
            if running:
                dimensions.add(result.ndim)
                for way, heads in counts.items():
                    heads[running[-1]] = max(heads[running[-1]], way(result))
                if sure:
                    attended[running[-1]].append(heads_of(result))
            return result

        def whole() -> None:
            if running:
                raise AttentionInOneFunction(running[-1])

        with Attention(see, whole):
            run()
    return counts if 5 in dimensions else {heads_of: counts[heads_of]}, attended


def _other_readers(
    blocks: Mapping[str, nn.Module],
    attended: Mapping[str, list[int]],
    layers: list[Layer],
    inputs: Mapping[str, Tensor],
    run: Run,
) -> dict[str, tuple[str, ...]]:
    """Of blocks that attend several times: linear maps that read the heads of one of these times, and are not the layer's own."""
    others: dict[str, dict[str, None]] = {name: {} for name in blocks}
    several = {name: heads for name, heads in attended.items() if len(heads) > 1}
    for time in range(max(map(len, several.values()), default=0)):
        heads = {name: dict(enumerate(several.get(name, ()))).get(time, 0) for name in blocks}
        for name, own, found in zip(blocks, layers, _watched(blocks, heads, heads_of, inputs, run, time), strict=True):
            if found.slices and found.reader != own.reader:
                others[name][found.reader] = None
    return {name: tuple(readers) for name, readers in others.items()}


class _Watch:
    """What a run of equal rows shows, of which each but the first has one head changed."""

    def __init__(self, rows: int, heads: Mapping[str, int], way: HeadsOf, only: int | None = None) -> None:
        self.rows, self.heads, self._heads_of = rows, heads, way
        self._only = only  # of each block's results that are attention for sure: change that one alone
        self._times: dict[str, int] = dict.fromkeys(heads, -1)
        self.running: list[str] = []
        self._attended: set[str] = set()
        self._reader: dict[str, tuple[str, Tensor]] = {}
        self._runs: dict[str, int] = dict.fromkeys(heads, 0)
        self._streams: dict[str, int] = {}
        self._linear_runs: dict[tuple[str, str], int] = {}
        self._generator = torch.Generator().manual_seed(0)

    def tried(self, name: str) -> list[int]:
        """The head that each row but the first has changed; fewer where there are fewer heads."""
        count = self.heads[name]
        return (
            list(range(count))
            if count < self.rows
            else [row * count // (self.rows - 1) for row in range(self.rows - 1)]
        )

    def change(self, result: Tensor, sure: bool) -> Tensor:
        if not self.running:
            return result
        name = self.running[-1]
        self._times[name] += sure
        if self._only is not None and not (sure and self._times[name] == self._only):
            return result
        return self._changed(result, name)

    def _changed(self, result: Tensor, name: str) -> Tensor:
        if result.shape[0] % self.rows:
            return result
        if result.ndim == 3:
            if result.shape[0] != self.rows * self.heads[name]:
                return result
            return self._changed(result.unflatten(0, (self.rows, -1)), name).flatten(0, 1)
        if self._heads_of(result) != self.heads[name]:
            return result
        self._attended.add(name)
        way = self._heads_of if result.ndim == 5 else heads_of
        lying = result
        if way is heads_behind_windows:
            lying = result.movedim(2, 1)
        elif way is heads_in_groups:
            lying = result.flatten(1, 2)
        changed = lying.unflatten(0, (self.rows, -1)).clone()
        factor = torch.rand(lying.shape[2:], generator=self._generator) * 0.4 + 0.3
        for row, head in enumerate(self.tried(name), 1):
            changed[row, :, head] *= factor.to(result.device, result.dtype)
        changed = changed.flatten(0, 1)
        if way is heads_in_groups:
            return changed.unflatten(1, tuple(result.shape[1:3]))
        return changed.movedim(1, 2) if way is heads_behind_windows else changed

    def reads(self, block: str, inner: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            key = block, inner
            self._linear_runs[key] = self._linear_runs.get(key, 0) + 1
            if block not in self._attended or block in self._reader or not inputs or not isinstance(inputs[0], Tensor):
                return
            z = inputs[0]
            if z.shape[0] % self.rows or z.ndim < 2:
                return
            by_row = z.reshape(self.rows, -1, z.shape[-1])
            if changed_inputs(by_row).any():
                self._reader[block] = inner, by_row.float()

        return hook

    def equal_rows(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
        """Every block is tried by itself: what it hands on is the first row's."""

        def hook(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
            self._runs[name] += 1
            hidden = output[0] if isinstance(output, tuple | list) else output
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[1] == self.rows != output.shape[0]:
                self._streams[name] = output.shape[0]
                return output[:, :1].expand_as(output).clone()
            if not isinstance(hidden, Tensor) or hidden.shape[0] != self.rows:
                found = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
                raise ModelError(
                    f"The block {name} hands on {found}; hidden states of the shape (batch, position, width) were expected, "
                    f"with {self.rows} in the batch."
                )
            same = hidden[:1].expand_as(hidden).clone()
            return (same, *output[1:]) if isinstance(output, tuple | list) else same

        return hook

    def layer(self, name: str, block: nn.Module) -> Layer:
        reader, z = self._reader.get(name, ("", None))
        if z is None:
            return Layer(self.heads[name], "", 0, _mixer(block), self._runs[name], 0, self._streams.get(name, 1))
        slices = independent_slices(z, self.tried(name), self.heads[name])
        runs = self._runs[name], self._linear_runs[(name, reader)]
        return Layer(self.heads[name], reader, slices, _mixer(block), *runs, self._streams.get(name, 1))


def _mixer(block: nn.Module) -> str:
    """The class of what mixes positions in a block: its first child that is not a norm."""
    for child in block.children():
        if next(child.parameters(), None) is not None and "norm" not in type(child).__name__.lower():
            return type(child).__name__
    return type(block).__name__
