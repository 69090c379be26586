"""Attention as torch calls it: softmax and fused attention, seen while a model runs, and which of its modules are running.

    with inside(blocks) as running, Attention(lambda result, _sure: print(running[-1], heads_of(result)) or result):
        module(**batch)

No name is asked: what calls torch's softmax or its fused attention attends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ablation_core.models.hooks import hooked

_FUSED = {nn.functional.scaled_dot_product_attention}
_SOFTMAX = {nn.functional.softmax, torch.softmax, torch.Tensor.softmax}
_WHOLE = {nn.functional.multi_head_attention_forward}  # torch.nn.MultiheadAttention calls no module for its projection
HeadsOf = Callable[[Tensor], int]  # from an attention's result for one row
Run = Callable[[Mapping[str, Tensor]], Any]  # of the model, on a batch


class AttentionInOneFunction(Exception):
    """A block's attention and its output projection are one function of torch, in which no head shows."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where

    def about(self, family: str) -> str:
        """A sentence."""
        return (
            f"The attention of this {family} model ({self.where}) is torch.nn.MultiheadAttention, which computes heads and output "
            f"projection in one function: no head shows there. Write it with a linear map that is called as a module."
        )


class Attention(TorchFunctionMode):
    """Hands every attention's result, (rows, heads, queries, …) or (rows * heads, queries, …), to a function that may change it.

    It is also told whether this is attention for sure: fused, or a softmax over as many keys as there are queries, with or
    without a sink. A softmax over experts or classes is of another length, but so are some windows'. Where attention and its
    projection are one function, in which none of this shows, a second function is called.
    """

    def __init__(self, see: Callable[[Tensor, bool], Tensor], whole: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._see, self._whole = see, whole

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _WHOLE:
            self._whole()
        result = func(*args, **(kwargs or {}))
        if (func in _FUSED or func in _SOFTMAX) and isinstance(result, Tensor) and result.ndim >= 3:
            return self._see(result, func in _FUSED or result.shape[-1] - result.shape[-2] in (0, 1))
        return result


@contextmanager
def inside(modules: Mapping[str, nn.Module]) -> Iterator[list[str]]:
    """The names of those of these modules that are running, outermost first."""
    running: list[str] = []
    begins = [(module, lambda *_, name=name: running.append(name)) for name, module in modules.items()]
    ends = [(module, lambda *_: (running.pop(), None)[1]) for module in modules.values()]
    with hooked(begins, before=True), hooked(ends):
        yield running


def heads_of(result: Tensor) -> int:
    """The heads in an attention's result for one row: (1, heads, …), or (heads, queries, …) where rows and heads are one."""
    if result.ndim == 3:
        return result.shape[0] if result.shape[0] > 1 else 0
    return result.shape[1]


def heads_behind_windows(result: Tensor) -> int:
    """The heads in a result (1, windows, heads, queries, …)."""
    return result.shape[2] if result.ndim == 5 else heads_of(result)


def heads_in_groups(result: Tensor) -> int:
    """The heads in a result (1, groups, heads of a group, queries, …), as those that share a key and value may lie."""
    return result.shape[1] * result.shape[2] if result.ndim == 5 else heads_of(result)
