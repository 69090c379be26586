"""What a model's blocks do while they run: where softmax attention happens, which linear map reads its heads, and how they lie there.

No name is asked. Softmax and fused attention are seen as torch calls them; then each row of a batch of equal rows has one
head's result changed, and what changes in the input of a linear map says that it reads the heads, and which of its
inputs are that head's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ablation_core.errors import ModelError
from ablation_core.models.hooks import hooked

MOST_HEADS = 32  # so many heads of a layer are tried, evenly spread where there are more
_FUSED = {nn.functional.scaled_dot_product_attention}
_SOFTMAX = {nn.functional.softmax, torch.softmax, torch.Tensor.softmax}
_NUMBER = re.compile(r"\.\d+(?=\.|$)")


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
    """

    heads: int
    reader: str
    slices: int
    mixer: str
    runs: int = 1
    reader_runs: int = 1
    streams: int = 1


@dataclass(frozen=True)
class Observed:
    """Blocks found by running: a path with `*` per list, and what was seen of each block, in order."""

    paths: tuple[str, ...]
    names: tuple[str, ...]
    layers: tuple[Layer, ...] = field(default=())


Run = Callable[[Mapping[str, Tensor]], Any]


def is_linear(module: nn.Module) -> bool:
    """A linear map with its weight as a matrix: torch's, transformers' Conv1D, or one made like them."""
    weight = getattr(module, "weight", None)
    return (
        isinstance(weight, Tensor)
        and weight.ndim == 2
        and not isinstance(module, nn.Embedding)
        and (hasattr(module, "in_features") or type(module).__name__ == "Conv1D")
    )


class _Attention(TorchFunctionMode):
    """Hands every attention's result, (rows, heads, queries, …) or (rows * heads, queries, …), to a function that may change it."""

    def __init__(self, see: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._see = see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (func in _FUSED or func in _SOFTMAX) and isinstance(result, Tensor) and result.ndim >= 3:
            return self._see(result)
        return result


@contextmanager
def _inside(modules: Mapping[str, nn.Module]) -> Iterator[list[str]]:
    """The names of those of these modules that are running, outermost first."""
    running: list[str] = []
    begins = [(module, lambda *_, name=name: running.append(name)) for name, module in modules.items()]
    ends = [(module, lambda *_: (running.pop(), None)[1]) for module in modules.values()]
    with hooked(begins, before=True), hooked(ends):
        yield running


@torch.no_grad()
def find_blocks(module: nn.Module, run: Callable[[], Any]) -> Observed:
    """The lists of blocks in which attention happens, by one run: each block holds at most one attention."""
    numbered = {name: child for name, child in module.named_modules() if _NUMBER.search("." + name)}
    numbered = {name: child for name, child in numbered.items() if name.rpartition(".")[2].isdigit()}
    seen: list[tuple[str, ...]] = []
    with _inside(numbered) as running:

        def see(result: Tensor) -> Tensor:
            if _heads_of(result):
                seen.append(tuple(running))
            return result

        with _Attention(see):
            run()
    chains = [chain for chain in dict.fromkeys(seen) if chain]
    blocks: list[str] = []
    # the outermost list of which no child holds attention in two different children of a list further in
    for depth in range(max(map(len, chains), default=0)):
        chosen = [chain[min(depth, len(chain) - 1)] for chain in chains]
        inner = {
            block: {chain for chain, mine in zip(chains, chosen, strict=True) if mine == block} for block in chosen
        }
        blocks = chosen
        if all(len(chains_in) == 1 for chains_in in inner.values()):
            break
    paths = tuple(dict.fromkeys(_NUMBER.sub(".*", "." + block)[1:] for block in blocks))
    names = tuple(name for name in numbered if any(_NUMBER.sub(".*", "." + name)[1:] == path for path in paths))
    return Observed(paths, names)


@torch.no_grad()
def watch_heads(module: nn.Module, names: tuple[str, ...], inputs: Mapping[str, Tensor], run: Run) -> tuple[Layer, ...]:
    """Change one head's result per row, and see what each block's linear maps read.

    Args:
        names: the blocks, in the order in which they run.
        inputs: one row.
    """
    blocks = {name: module.get_submodule(name) for name in names}
    heads = _count_heads(blocks, lambda: run(inputs))
    rows = 1 + min(MOST_HEADS, max(heads.values(), default=0))
    many = {key: tensor[:1].expand(rows, *tensor.shape[1:]).clone() for key, tensor in inputs.items()}
    watch = _Watch(rows, heads)
    reading = [
        (linear, watch.reads(name, inner))
        for name, block in blocks.items()
        for inner, linear in block.named_modules()
        if is_linear(linear)
    ]
    equal = [(block, watch.equal_rows(name)) for name, block in blocks.items()]
    with _inside(blocks) as watch.running, hooked(reading, before=True), hooked(equal), _Attention(watch.change):
        run(many)
    return tuple(watch.layer(name, block) for name, block in blocks.items())


def _count_heads(blocks: Mapping[str, nn.Module], run: Callable[[], Any]) -> dict[str, int]:
    heads = dict.fromkeys(blocks, 0)
    with _inside(blocks) as running:

        def see(result: Tensor) -> Tensor:
            if running:
                heads[running[-1]] = max(heads[running[-1]], _heads_of(result))
            return result

        with _Attention(see):
            run()
    return heads


def _heads_of(result: Tensor) -> int:
    """The heads in an attention's result for one row: (1, heads, …), or (heads, queries, …) where rows and heads are one."""
    if result.ndim == 3:
        return result.shape[0] if result.shape[0] > 1 else 0
    return result.shape[1]


class _Watch:
    """What a run of equal rows shows, of which each but the first has one head changed."""

    def __init__(self, rows: int, heads: Mapping[str, int]) -> None:
        self.rows, self.heads = rows, heads
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

    def change(self, result: Tensor) -> Tensor:
        if not self.running or result.shape[0] % self.rows:
            return result
        name = self.running[-1]
        if result.ndim == 3:
            if result.shape[0] != self.rows * self.heads[name]:
                return result
            return self.change(result.unflatten(0, (self.rows, -1))).flatten(0, 1)
        if result.shape[1] != self.heads[name]:
            return result
        self._attended.add(name)
        changed = result.unflatten(0, (self.rows, -1)).clone()
        factor = torch.rand(result.shape[2:], generator=self._generator) * 0.4 + 0.3
        for row, head in enumerate(self.tried(name), 1):
            changed[row, :, head] *= factor.to(result.device, result.dtype)
        return changed.flatten(0, 1)

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
            if _changes(by_row).any():
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


def _changes(by_row: Tensor) -> Tensor:
    """Which inputs of a linear map differ from the first row's, at any position; bool (rows - 1, width)."""
    values = by_row.float()
    size = values[0].square().mean().sqrt()
    tolerance = 1e-4 if by_row.dtype == torch.float32 else 3e-2
    return (values[1:] - values[:1]).abs().amax(1) > tolerance * size.clamp(min=1e-30)


def independent_slices(by_row: Tensor, tried: list[int], heads: int) -> int:
    """Into how many equal slices, one per head, the inputs fall; 0 where a head changes more than one of them.

    Fewer slices than heads are computed where two make one, as in differential attention. A factor common to all inputs
    of a position, as a norm over all heads gives it, is no dependence.

    Args:
        by_row: (rows, positions, width), row 0 unchanged.
        tried: the head that each further row has changed.
    """
    width = by_row.shape[-1]
    for count in (number for number in range(heads, 1, -1) if width % number == 0 and heads % number == 0):
        size = width // count
        changes = _changes(by_row[: len(tried) + 1]).unflatten(-1, (count, size)).any(-1)
        at_once = changes.sum(-1)
        if (at_once == 1).all() and len({int(slot) for slot in changes.int().argmax(-1)}) == min(count, len(tried)):
            in_order = changes.int().argmax(-1).tolist()
            return count if count < heads or in_order == tried else 0
    if heads > 1 and width % heads == 0 and _only_rescaled(by_row, tried, width // heads):
        return heads
    return 1 if heads == 1 else 0


def _only_rescaled(by_row: Tensor, tried: list[int], size: int) -> bool:
    """Whether outside each changed head's slice every position is its clean self times one factor."""
    for row, head in enumerate(tried, 1):
        outside = torch.ones(by_row.shape[-1], dtype=torch.bool, device=by_row.device)
        outside[head * size : (head + 1) * size] = False
        clean, changed = by_row[0][:, outside].double(), by_row[row][:, outside].double()
        factor = (clean * changed).sum(-1) / clean.square().sum(-1).clamp(min=1e-30)
        if not torch.allclose(changed, factor[:, None] * clean, rtol=1e-3, atol=1e-4 * float(clean.abs().max())):
            return False
    return True


def _mixer(block: nn.Module) -> str:
    """The class of what mixes positions in a block: its first child that is not a norm."""
    for child in block.children():
        if next(child.parameters(), None) is not None and "norm" not in type(child).__name__.lower():
            return type(child).__name__
    return type(block).__name__
