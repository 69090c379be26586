"""Where a model's blocks lie, found by one run: the lists of modules, or parts of them, of which each holds one attention."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ablation_core.models.attention_calls import Attention, AttentionInOneFunction, heads_of, inside
from ablation_core.models.hooks import hooked

_NUMBER = re.compile(r"\.\d+(?=\.|$)")


@dataclass(frozen=True)
class FoundBlocks:
    """Blocks in order: their paths, with `*` per list, and their names."""

    paths: tuple[str, ...]
    names: tuple[str, ...]


@torch.no_grad()
def find_blocks(module: nn.Module, run: Callable[[], Any]) -> FoundBlocks:
    """The lists of blocks in which attention happens, by one run. Where a block holds several, each in a part of its own, the
    parts are the blocks.
    """
    named = {name: child for name, child in module.named_modules() if name}
    seen: list[tuple[str, ...]] = []
    surely: set[tuple[str, ...]] = set()
    with inside(named) as running:

        def see(result: Tensor, sure: bool) -> Tensor:
            if heads_of(result):
                seen.append(tuple(running))
                surely.update(seen[-1:] if sure else ())
            return result

        def whole() -> None:
            if any(_NUMBER.search(name) for name in running):
                raise AttentionInOneFunction(running[-1])

        with Attention(see, whole):
            run()
    numbered = {name: None for name in named if name.rpartition(".")[2].isdigit()}
    chains = [chain for place in dict.fromkeys(seen) if (chain := tuple(name for name in place if name in numbered))]
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
    parts = {name: _parts(name, seen, surely) for name in names}
    several = sorted({_NUMBER.sub(".*", part) for own in parts.values() if len(own) > 1 for part in own})
    if several and len(paths) == 1:
        paths = (" or ".join(paths[0] + part for part in several),)
    return FoundBlocks(paths, tuple(f"{name}{part}" for name, own in parts.items() for part in own))


def _parts(block: str, seen: list[tuple[str, ...]], surely: set[tuple[str, ...]]) -> list[str]:
    """The parts of a block that hold an attention each, in the order in which they run: what follows the block's name.

    One, the empty name, where it holds one attention, or all of its attention lies in one part.
    """
    places = [place for place in dict.fromkeys(seen) if block in place]
    if not surely.isdisjoint(places):  # beside attention, a softmax over anything else is a router's or a gate's
        places = [place for place in places if place in surely]
    below = [place[place.index(block) :] for place in places]
    depth = 0
    while below and all(len(place) > depth for place in below) and len({place[depth] for place in below}) == 1:
        depth += 1
    if len(below) < 2 or any(len(place) == depth for place in below):  # one of them happens in what holds the others
        return [""]
    return list(dict.fromkeys(place[depth].removeprefix(block) for place in below))


@torch.no_grad()
def handed_on(module: nn.Module, names: tuple[str, ...], run: Callable[[], Any]) -> bool:
    """Whether each block reads what the one before it hands on, so that nothing happens between them."""
    tensors: list[Tensor | None] = []  # in turn what a block reads and what it hands on

    def reads(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        tensors.append(next((one for one in (*inputs, *named.values()) if isinstance(one, Tensor)), None))

    def gives(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        given = output if isinstance(output, tuple | list) else (output,)
        tensors.append(next((one for one in given if isinstance(one, Tensor)), None))

    blocks = [module.get_submodule(name) for name in names]
    with (
        hooked(((block, reads) for block in blocks), before=True, named=True),
        hooked((block, gives) for block in blocks),
    ):
        run()
    pairs = zip(tensors[1:-1:2], tensors[2::2], strict=True)
    return all(given is not None and read is not None and torch.equal(given, read) for given, read in pairs)
