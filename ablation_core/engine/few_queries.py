"""Attention of few queries that adds up as attention of many does.

    with enough_queries():
        base(**inputs)  # at one or two positions of each sequence: added up as in a whole pass

A processor's kernels for a matrix product of one row, on some of two or three rows, add up in another order than those for
more. Queries do not see each other: a few more, thrown away, change nothing but the kernel. A whole pass has few queries
itself where torch, which takes 32 at a time, is left with one to three (130 tokens); there the two agree to float rounding.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from ablation_core.models.loaded import LoadedModel

_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")  # in order; a model may name them or not
_MOST = 8  # queries that are tried: kernels of their own are for one to three


@functools.cache
def fewest_queries() -> int:
    """The fewest queries whose attention adds up as among those of a whole sequence; tried on this processor."""
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = torch.randn(3, 1, 2, 4 * _MOST, 32, generator=generator, device="cpu")
    whole = scaled_dot_product_attention(queries, keys, values)

    def differs(count: int) -> bool:
        few = scaled_dot_product_attention(queries[:, :, -count:].contiguous(), keys, values)
        return not torch.equal(few, whole[:, :, -count:])

    return max(filter(differs, range(1, _MOST + 1)), default=0) + 1


def attends_by_torch(model: LoadedModel) -> bool:
    """Whether a model's attention is torch's own function, which `enough_queries` sees."""
    return getattr(getattr(model.module, "config", None), "_attn_implementation", None) == "sdpa"


class enough_queries(TorchFunctionMode):
    """Within it, torch's attention never has fewer queries than `fewest_queries`."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **kwargs or {})
        given: dict[str, Any] = dict(zip(_ARGUMENTS, args, strict=False)) | (kwargs or {})
        queries, mask = given["query"], given.get("attn_mask")
        few = queries.shape[-2]
        more = fewest_queries() - few
        if more <= 0:
            return func(**given)
        given["query"] = pad(queries, (0, 0, 0, more))  # behind them: causal attention counts from the first
        if mask is not None and mask.shape[-2] == few:
            given["attn_mask"] = torch.cat([mask, mask[..., :1, :].expand(*mask.shape[:-2], more, -1)], -2)
        return func(**given)[..., :few, :]
