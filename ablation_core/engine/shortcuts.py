"""Where a block's attention can be left out: the module whose output follows from its z alone.

An ablation changes what the first ablated layer's output projection reads, and nothing before it. Where a clean pass
has recorded that z, queries, keys, values and the attention itself need not be computed once more. Which module
that saves is not told by a family's name: it is seen, and then tried, on a model's own values.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ablation_core.engine.hooks import forward_replaced, hidden_of, record_outputs
from ablation_core.models.hooks import hooked
from ablation_core.models.loaded import LoadedModel


@dataclass(frozen=True, eq=False)
class Shortcut:
    """A module inside a block that returns its projection's output, or, `before` it, what the projection reads.

    Attributes:
        rest: what it returns behind that tensor, attention weights left out; None where it returns the tensor alone.
    """

    module: nn.Module
    projection: nn.Module
    before: bool
    rest: tuple | None

    def returned(self, z: Tensor) -> Any:
        """What the module returns if the heads gave this z. The projection runs with its hooks, as always."""
        tensor = z if self.before else self.projection(z)
        return tensor if self.rest is None else (tensor, *self.rest)


@contextmanager
def skip_attention(shortcut: Shortcut | None, z: Tensor | None) -> Iterator[None]:
    """One block's heads compute nothing, as they gave this z before. Without either nothing is skipped."""
    if shortcut is None or z is None:
        yield
        return
    with forward_replaced(shortcut.module, lambda *args, **kwargs: shortcut.returned(z)):
        yield


def find_shortcuts(model: LoadedModel, run: Callable[[], None]) -> list[Shortcut | None]:
    """Each layer's shortcut; None where there is none, or where the block's output is not the same bit for bit.

    Args:
        run: runs the clean model's blocks on some input. It is called twice.
    """
    if model.streams > 1:
        return [None] * model.num_layers
    watches = [_Watch(block, projection) for block, projection in zip(model.blocks, model.projections, strict=True)]
    try:
        with torch.inference_mode(False), torch.no_grad():
            with hooked(hook for watch in watches for hook in watch.hooks()), record_outputs(model) as outputs:
                run()
            found = [watch.found() for watch in watches]
            with ExitStack() as stack:
                for watch, shortcut in zip(watches, found, strict=True):
                    stack.enter_context(skip_attention(shortcut, watch.z))
                same = stack.enter_context(_compared(model.blocks, outputs))
                run()
    except Exception:  # noqa: BLE001 (whatever a model's parts do with what they are given: resuming at a block needs none of it)
        return [None] * model.num_layers
    return [shortcut if equal else None for shortcut, equal in zip(found, same, strict=True)]


class _Watch:
    """Looks on while one block runs.

    Whether a module returned what the projection read or made is told by the tensor's place in memory, not by its
    values: values may agree by chance, as behind a clamp that has nothing to do.
    """

    def __init__(self, block: nn.Module, projection: nn.Module) -> None:
        self.projection = projection
        self.z: Tensor | None = None
        inner = [module for module in block.modules() if module is not block]
        self._around = {module for module in inner if projection in set(module.modules())} - {projection}
        self._beside = set(inner) - self._around - set(projection.modules())
        # Before the projection ran; kept, so that places stay taken.
        self._returned: list[tuple[nn.Module, Any, Any]] = []
        self._made: Any = None
        self._shortcuts: list[Shortcut] = []
        self._runs: list[nn.Module] = []

    def hooks(self) -> Iterator[tuple[nn.Module, Callable[..., None]]]:
        """The modules to look at, each with the hook that does."""
        return ((module, self._ran) for module in (self.projection, *self._around, *self._beside))

    def _ran(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._runs.append(module)
        if module is self.projection:
            self.z, self._made = inputs[0], (output, _place(output))
            passed_on = [one for one, returned, place in self._returned if place == _place(self.z)]
            rests = {one: _rest(returned) for one, returned, _ in self._returned}
            self._shortcuts = [Shortcut(one, module, True, rests[one]) for one in sorted(passed_on, key=_weights)]
            self._returned = []
        elif self._made is None and module in self._beside:
            self._returned.append((module, output, _place(hidden_of(output))))
        elif self._made is not None and module in self._around and _place(hidden_of(output)) == self._made[1]:
            self._shortcuts.append(Shortcut(module, self.projection, False, _rest(output)))

    def found(self) -> Shortcut | None:
        """The module that saves most, if it and the projection ran once and it returned nothing else but tensors."""
        self._made = None
        for shortcut in self._shortcuts[-1:]:  # the outermost around the projection, else the one with most weights
            once = self._runs.count(shortcut.module) == self._runs.count(self.projection) == 1
            if once and _weights(shortcut.module) and not any(other is not None for other in shortcut.rest or ()):
                return shortcut
        return None


def _rest(output: Any) -> tuple | None:
    return (
        tuple(None if isinstance(other, Tensor) else other for other in output[1:])
        if isinstance(output, tuple)
        else None
    )


def _weights(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def _place(tensor: Any) -> tuple | None:
    """Where and how a tensor lies in memory, and how often that was written to."""
    if not isinstance(tensor, Tensor):
        return None
    version = 0 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), version


@contextmanager
def _compared(blocks: list[nn.Module], outputs: list[Any]) -> Iterator[list[bool]]:
    """Whether each block gives these hidden states; it hands these on in any case, so that each is judged by itself."""
    same: list[bool] = []

    def compare(_block: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
        expected = outputs[len(same)]
        same.append(torch.equal(hidden_of(output), hidden_of(expected)))
        return (hidden_of(expected), *output[1:]) if isinstance(output, tuple | list) else expected

    with hooked((block, compare) for block in blocks):
        yield same
