"""Hooks on a model's modules, for the length of a `with` block: the one place where they are put in and taken out."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn


@contextmanager
def hooked(
    hooks: Iterable[tuple[nn.Module, Callable[..., Any]]], *, before: bool = False, named: bool = False
) -> Iterator[None]:
    """Call each module's hook whenever the module has run, with (module, inputs, output).

    Args:
        before: call it when the module is about to run instead, with (module, inputs).
        named: also give it, behind the inputs, those that were passed by name.
    """
    with ExitStack() as stack:
        for module, hook in hooks:
            put_in = module.register_forward_pre_hook if before else module.register_forward_hook
            stack.callback(put_in(hook, with_kwargs=named).remove)
        yield
