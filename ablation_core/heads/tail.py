"""From what a head writes to the logits directly: past the later blocks, the final norm's scale held fixed.

What a head writes is added to the residual stream. Each later block passes it on and the final norm scales it; with
that scale held as it is on the input (frozen), the logits are a sum of what every head, MLP and embedding contributes.
Both are tried on the model itself: whether its blocks pass a head's output on, and whether what follows the blocks is
affine once its norms are frozen. Where one fails (post-norm families, a prediction head with an activation function, a
soft cap on the logits) there is no such sum, and a sentence says so.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ablation_core.data.dataset import Batch
from ablation_core.engine.clean_pass import CleanPass
from ablation_core.engine.forward import first_row, on_device, run_blocks
from ablation_core.engine.hooks import forward_replaced, hidden_of, record_outputs
from ablation_core.engine.scoring import logits_from
from ablation_core.errors import ModelError
from ablation_core.models.hooks import hooked
from ablation_core.models.loaded import LoadedModel

_TOLERANCE = {"float32": 1e-3, "float64": 1e-5}  # a share of the largest value; else 5%, as half precision rounds


@dataclass(frozen=True, eq=False)
class _Scale:
    """A norm's linear map at some input: (x, or x less its mean) · factor + shift."""

    centred: bool
    factor: Tensor
    shift: Tensor | float

    def __call__(self, x: Tensor) -> Tensor:
        values = x.float()
        values = values - values.mean(-1, keepdim=True) if self.centred else values
        return (values * self.factor + self.shift).to(x.dtype)


Scales = dict[nn.Module, _Scale]


@contextmanager
def frozen_norms(model: LoadedModel) -> Iterator[Scales]:
    """Behind the blocks, each norm keeps the scale that it had on its first input here, until the scales are cleared.

    Raises (in the block, while the model runs):
        ModelError: a norm is neither a LayerNorm nor an RMSNorm.
    """
    scales: Scales = {}
    inside = {module for block in model.blocks for module in block.modules()}
    with ExitStack() as stack:
        for module in model.module.modules():
            if module in inside or any(module.children()) or "norm" not in type(module).__name__.lower():
                continue
            stack.enter_context(forward_replaced(module, _freezing(model, module, module.forward, scales)))
        yield scales


def _freezing(model: LoadedModel, norm: nn.Module, own: Any, scales: Scales) -> Any:
    def forward(x: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        if norm not in scales:
            scales[norm] = _scale_of(model, norm, x.detach(), own(x.detach()))
        return scales[norm](x)

    return forward


def _scale_of(model: LoadedModel, norm: Any, x: Tensor, y: Tensor) -> _Scale:
    """The map that takes this input to this output: tried in the forms that norms have."""
    x, y = x.float(), y.float()
    eps = getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", None) or 0.0
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    weight = torch.ones(1, device=x.device) if weight is None else weight.float()
    shift: Tensor | float = 0.0 if bias is None else bias.float()
    for centred in (True, False):
        values = x - x.mean(-1, keepdim=True) if centred else x
        scale = (values.square().mean(-1, keepdim=True) + eps).rsqrt()
        for gain in (weight, 1 + weight):  # Gemma keeps the gain's distance from 1
            if _close(values * scale * gain + shift, y, model):
                return _Scale(centred, scale * gain, shift)
    raise ModelError(
        f"The final norm of {model.ref} ({type(norm).__name__}) is neither a LayerNorm nor an RMSNorm, so that its scale "
        f"cannot be held fixed: what a head writes to the logits directly is not shown."
    )


@torch.no_grad()
def check_affine(model: LoadedModel, clean_pass: CleanPass) -> None:
    """Try whether the logits are affine in the last block's output once norms are frozen.

    Raises:
        ModelError: they are not.
    """
    hidden = hidden_of(clean_pass.outputs[-1])
    step = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0)).to(hidden)
    step *= hidden.std()
    with model.lock, frozen_norms(model):
        for _, logits in logits_from(model, clean_pass):
            whole = logits(hidden).float()
            moved, step_alone, nothing = (logits(h).float() for h in (hidden - step, step, torch.zeros_like(hidden)))
            if not _close(whole - moved, step_alone - nothing, model):
                raise ModelError(
                    f"What follows the blocks of {model.ref} ({model.family}) is more than a norm and a linear map (an "
                    f"activation function in its prediction head, say, or a soft cap on the logits): a head's direct "
                    f"contribution to the logits is not defined."
                )
            return


def residual_paths(model: LoadedModel, batch: Batch) -> dict[int, Tensor]:
    """What the attention output of each layer that has heads is multiplied by on its way to the last block's output; (width,).

    Ones in most families; Granite multiplies by a number, DINOv2's LayerScale by one for each dimension.

    Raises:
        ModelError: a block changes it otherwise, by a norm behind the attention or around the residual stream.
    """
    batch = on_device(first_row(batch), model)
    model.check_gradients()
    with torch.inference_mode(False), torch.enable_grad(), model.lock, _only_residuals(model) as written:
        with record_outputs(model, model.num_layers - 1) as outputs:
            run_blocks(model, batch)
        last = hidden_of(outputs[-1])
        layers = [layer for layer, heads in enumerate(model.shape.heads) if heads]
        usable = last.requires_grad and all(one.numel() == last.numel() for one in written)
        if not usable or len(written) != len(layers):
            raise _not_passed_on(model)
        probe = torch.randn(last.shape, generator=torch.Generator().manual_seed(0)).to(last)
        factors = torch.autograd.grad(last.sum(), written, retain_graph=True, allow_unused=True)
        probed = torch.autograd.grad((last * probe).sum(), written, allow_unused=True)
    paths = {}
    for layer, factor, found in zip(layers, factors, probed, strict=True):
        if factor is None or found is None:
            raise _not_passed_on(model)
        factor, found = factor.reshape(last.shape).float(), found.reshape(last.shape).float()
        path = factor[0, 0]
        if (
            not path.any()
            or not _close(path.expand_as(factor), factor, model)
            or not _close(factor * probe, found, model)
        ):
            raise _not_passed_on(model)
        paths[layer] = path
    return paths


def _not_passed_on(model: LoadedModel) -> ModelError:
    return ModelError(
        f"In {model.ref} ({model.family}) a head's output does not reach the end unchanged: a norm stands between the "
        f"attention and the residual stream, or in the stream itself. Its direct contribution to the logits is not "
        f"defined."
    )


@contextmanager
def _only_residuals(model: LoadedModel) -> Iterator[list[Tensor]]:
    """Gradients flow from the blocks' attention outputs along the residual stream alone; collects these outputs."""
    written: list[Tensor] = []
    projections = set(model.projections)

    def begin(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        written.append(output.detach().requires_grad_())
        return written[-1]

    def end(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return tuple(one.detach() if isinstance(one, Tensor) else one for one in output)
        return output.detach() if isinstance(output, Tensor) else output

    hooks: list[tuple[nn.Module, Callable[..., Any]]] = []
    for block in model.blocks:
        for module in block.modules():
            scaling = "layerscale" in type(module).__name__.lower()
            if module in projections:
                hooks.append((module, begin))
            elif not any(module.children()) and next(module.parameters(), None) is not None and not scaling:
                hooks.append((module, end))
    with hooked(hooks):
        yield written


def _close(found: Tensor, expected: Tensor, model: LoadedModel) -> bool:
    tolerance = _TOLERANCE.get(model.dtype, 0.05)
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max() + 1e-6)
