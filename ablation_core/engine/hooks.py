"""Reading and replacing what happens inside a model, for the length of a `with` block.

Each context manager removes what it put in, and nothing else, also after an exception. Hold the model's lock around
them: a hook acts on every forward pass of the module, whoever runs it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from ablation_core.models.hooks import hooked
from ablation_core.models.loaded import LoadedModel

Replace = Callable[[Tensor], Tensor]


@contextmanager
def capture_z(model: LoadedModel, layers: Iterable[int]) -> Iterator[dict[int, Tensor]]:
    """Collect the z of these layers: layer → (batch, position, heads * head_dim), the latest forward pass's."""
    captured: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            captured[layer] = _rows(inputs[0].detach())

        return hook

    def keep_none(layer: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
            captured[layer] = _rows(hidden_of(_side_by_side(model, output)).detach()[..., :0])

        return hook

    with _at_z(model, layers, keep, keep_none):
        yield captured


@contextmanager
def join_z(model: LoadedModel) -> Iterator[dict[int, Tensor]]:
    """Make every layer's z a place that gradients reach, and collect them as they are in the graph.

    The model's weights need no gradient: the graph begins at the first z.
    """
    joined: dict[int, Tensor] = {}

    def join(layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            z = _rows(inputs[0])
            joined[layer] = z if z.requires_grad else z.detach().requires_grad_()
            return (joined[layer].view(inputs[0].shape), *inputs[1:])

        return hook

    def join_none(layer: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
            joined[layer] = _rows(hidden_of(_side_by_side(model, output)).detach()[..., :0]).requires_grad_()

        return hook

    with _at_z(model, range(model.num_layers), join, join_none):
        yield joined


@contextmanager
def _at_z(
    model: LoadedModel, layers: Iterable[int], at: Callable[[int], Any], without: Callable[[int], Any]
) -> Iterator[None]:
    """Each layer's hook before its projection or, where it has no heads (z is zero values wide), behind its block."""
    layers = list(layers)
    heads = model.shape.heads
    reading = [(model.projections[layer], at(layer)) for layer in layers if heads[layer]]
    headless = [(model.blocks[layer], without(layer)) for layer in layers if not heads[layer]]
    with hooked(reading, before=True), hooked(headless):
        yield


def _rows(z: Tensor) -> Tensor:
    """z as (batch, position, width): of images it may come as (batch, rows, columns, width), or by windows."""
    return z.flatten(1, -2) if z.ndim > 3 else z


@contextmanager
def replace_z(model: LoadedModel, replacements: Mapping[int, Replace]) -> Iterator[None]:
    """Let each layer's function turn its z into what the projection reads, without changing it in place."""

    def swap(replace: Replace) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        return lambda _module, inputs: (replace(_rows(inputs[0])).reshape(inputs[0].shape), *inputs[1:])

    swaps = [(model.projections[layer], swap(replace)) for layer, replace in replacements.items()]
    with hooked(swaps, before=True):
        yield


@contextmanager
def record_outputs(model: LoadedModel, first: int = 0) -> Iterator[list[Any]]:
    """Collect the outputs of the blocks from the `first` on, in whatever form the family gives them, in the order in which
    they run; several residual streams side by side."""
    outputs: list[Any] = []

    def keep(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        outputs.append(_side_by_side(model, output))

    with hooked((block, keep) for block in model.blocks[first:]):
        yield outputs


@contextmanager
def skip_blocks(model: LoadedModel, outputs: Sequence[Any]) -> Iterator[None]:
    """The first blocks compute nothing: each returns its own of these outputs.

    With recorded outputs the model continues from there exactly as it would have after computing them; its embedding,
    what it does between blocks and behind them stay its own code.
    """
    with ExitStack() as stack:
        for block, output in zip(model.blocks, (_streams(model, output) for output in outputs), strict=False):
            stack.enter_context(forward_replaced(block, lambda *args, output=output, **kwargs: output))
        yield


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """A module computes something else; its own hooks still run."""
    own = module.__dict__.get("forward")  # another tool may have put an instance attribute there
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def hidden_of(output: Any) -> Tensor:
    """The hidden states (batch, position, width) of a block's output, whatever form its family gives it."""
    return output[0] if isinstance(output, tuple | list) else output


def _side_by_side(model: LoadedModel, output: Any) -> Any:
    """A block's output as the engine has it: (streams, batch, position, width) becomes (batch, position, streams * width)."""
    return output if model.streams == 1 else hidden_of(output).permute(1, 2, 0, 3).flatten(2)


def _streams(model: LoadedModel, output: Any) -> Any:
    """The same as the block gives it."""
    if model.streams == 1:
        return output
    return hidden_of(output).unflatten(2, (model.streams, -1)).permute(2, 0, 1, 3).contiguous()
