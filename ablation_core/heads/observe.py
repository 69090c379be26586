"""Seeing the attention weights that a model uses while it runs, without changing what it computes.

While a watched block runs, calls of torch's own functions are looked at: `scaled_dot_product_attention` gives queries,
keys, values and mask, from which the weights follow; a block that computes them itself calls `softmax` and then
multiplies by the values. Grouped queries, windows, sinks, ALiBi and relative positions are in what is seen. Nothing is
switched in the model, so that there is nothing to put back.

What was seen counts only if weights times values are the z that the output projection then reads.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ablation_core.errors import ModelError
from ablation_core.models.hooks import hooked
from ablation_core.models.loaded import LoadedModel

Use = Callable[[int, Tensor], None]
Candidate = tuple[Callable[[], Tensor], Tensor]  # how to make the weights, and the values they weight
_PRODUCTS = {"matmul", "bmm", "__matmul__"}
# How far weights times values may lie from z, as a share of z's largest value: what rounding explains.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6, torch.float16: 1e-2, torch.bfloat16: 5e-2}


@contextmanager
def observe_attention(
    model: LoadedModel, layers: Iterable[int], rows: int, use: Use, checked: bool = False
) -> Iterator[None]:
    """Give each of these layers' attention weights to `use(layer, weights)` as the model runs in the `with` block.

    weights: float32 (batch, heads, positions, positions), from row to column. Rows sum to 1; with learned sinks
    (gpt_oss) to 1 less what the sink takes.

    Args:
        rows: how many sequences the model is run on.
        checked: the model has been checked on a part of its input. Then `scaled_dot_product_attention` gives weights
            times values (what it stands for, rounded otherwise) instead of computing the attention twice.

    Raises (in the block, while the model runs):
        ModelError: weights times values are not the layer's own z, or its heads do not look over the whole sequence.
    """
    seen, layers = _Seen(eager=checked), list(layers)
    starts = [(model.blocks[layer], lambda *_: seen.start()) for layer in layers]
    ends = [(model.projections[layer], _hand_over(model, layer, rows, seen, use, checked)) for layer in layers]
    with hooked([*starts, *ends], before=True), seen:
        yield


def _hand_over(
    model: LoadedModel, layer: int, rows: int, seen: "_Seen", use: Use, checked: bool
) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(_projection: nn.Module, inputs: tuple[Any, ...]) -> None:
        candidates, z = seen.stop(), inputs[0]
        if z.ndim != 3 or len(z) != rows:
            raise ModelError(
                f"The heads of layer {layer} of {model.ref} ({model.family}) look within windows of the input, not over "
                f"all of it; there is no pattern over all positions to show."
            )
        use(layer, _weights_behind(model, layer, candidates, z, checked))

    return hook


class _Seen(TorchFunctionMode):
    """Collects pairs of weights (made when asked for) and values, while it is told to."""

    def __init__(self, eager: bool) -> None:
        super().__init__()
        self._on, self._eager = False, eager
        self._weights: list[Tensor] = []  # softmax's result, and what is made of it
        self._candidates: list[Candidate] = []

    def start(self) -> None:
        self._on, self._weights, self._candidates = True, [], []

    def stop(self) -> list[Candidate]:
        found, self._on, self._weights, self._candidates = self._candidates, False, [], []
        return found

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if not self._on:
            return func(*args, **kwargs)
        if name == "scaled_dot_product_attention":
            return self._attend(func, args, kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            self._look(name, args, result)
        return result

    def _attend(self, func: Any, args: tuple, kwargs: dict) -> Tensor:
        values = args[2] if len(args) > 2 else kwargs["value"]
        if not self._eager:
            self._candidates.append((lambda: sdpa_weights(*args, **kwargs), values))
            return func(*args, **kwargs)
        weights = sdpa_weights(*args, **kwargs)
        self._candidates.append((lambda: weights, values))
        return weights.to(values.dtype) @ values.repeat_interleave(weights.shape[-3] // values.shape[-3], -3)

    def _look(self, name: str, args: tuple, result: Tensor) -> None:
        if name == "softmax":
            self._weights.append(result)
        elif args and any(args[0] is weights for weights in self._weights):
            if name in _PRODUCTS and isinstance(args[1], Tensor):
                weights = args[0]
                self._candidates.append((lambda: weights, args[1]))
            elif result.numel() * 2 > args[0].numel():  # a cast, a view, a sink cut off
                self._weights.append(result)


def sdpa_weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The weights of `torch.nn.functional.scaled_dot_product_attention`, as its documentation defines them; float32."""
    key = key.float()
    if key.shape[-3] != query.shape[-3]:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = (query.float() * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        scores += torch.full(scores.shape[-2:], -torch.inf, device=scores.device).triu(1)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1)


def _weights_behind(model: LoadedModel, layer: int, candidates: list[Candidate], z: Tensor, checked: bool) -> Tensor:
    """The latest weights of all heads, as (batch, heads, positions, positions), if they make this z."""
    heads, (rows, length, _) = model.shape.heads[layer], z.shape
    if not candidates:
        raise ModelError(
            f"Layer {layer} of {model.ref} computes its attention in one step of its own, in which no weights can be "
            f"seen. Load the module with attn_implementation='eager' and pass that."
        )
    for make, values in reversed(candidates):
        weights = make().detach().float()
        if weights.shape[-2:] == (length, length) and weights.numel() == rows * heads * length**2:
            weights = weights.reshape(rows, heads, length, length)
            if checked or _makes(weights, values, z.detach()):
                return weights
            break
    raise ModelError(
        f"Layer {layer} of {model.ref} does more to its heads' outputs than weighting values (weights times values are "
        f"not the z that its output projection reads); its pattern is not shown."
    )


def _makes(weights: Tensor, values: Tensor, z: Tensor) -> bool:
    """Whether weights times values are z, head by head, where both are numbers."""
    batch, heads, length, _ = weights.shape
    size = z.shape[-1] // heads
    if values.shape[-1] != size or values.numel() % (batch * length * size):
        return False
    values = values.detach().float().reshape(batch, -1, length, size)
    if heads % values.shape[1]:
        return False
    values = values.repeat_interleave(heads // values.shape[1], 1)
    made = (weights @ values).transpose(1, 2).flatten(2)
    finite = made.isfinite() & z.isfinite()  # a padded position may look at nothing
    apart = (made - z.float()).where(finite, 0.0).abs().amax()
    largest = z.float().where(finite, 0.0).abs().amax()
    return bool(finite.any()) and bool(apart <= _TOLERANCE.get(z.dtype, 1e-4) * largest + 1e-7)
