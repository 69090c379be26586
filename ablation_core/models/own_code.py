"""A person's own functions on a module, its hooks and replaced forwards: told from libraries', and from each other.

hooks_of(module)   # ["layers.3: 5f0c21aa 0"], or [] where there are none
"""

import functools
import itertools
import secrets
import types
from collections.abc import Callable
from typing import Any
from weakref import ref

from torch import nn

# Whose parts are as the configuration has them: transformers', those of libraries that quantise, and our own around them.
CONFIGURED = (
    "torch", "transformers", "ablation_core", "accelerate", "bitsandbytes", "gptqmodel", "compressed_tensors", "hqq", "aqlm",
    "optimum", "eetq", "torchao",
)  # fmt: skip
KNOWN = (*CONFIGURED, "timm", "peft")  # whose functions do the same in each process
# By its place in memory: a person's own function that is still there, and its name.
_OWN: dict[int, tuple[Callable[[], Any], str]] = {}
_OWN_NAMES = (f"{secrets.token_hex(4)} {number}" for number in itertools.count())


def home(value: Any) -> str:
    """The library that a part's class, or a function, is from."""
    while isinstance(value, functools.partial):
        value = value.func
    return str(getattr(value, "__module__", "")).partition(".")[0]


def hooks_of(module: nn.Module) -> list[str]:
    """A person's own forward hooks on a module. They are no settings: most only look on."""
    return [
        f"{name}: {own_name(hook)}"
        for name, part in module.named_modules()
        for hook in (*part._forward_pre_hooks.values(), *part._forward_hooks.values())
        if home(hook) not in KNOWN
    ]


def own_name(function: Any) -> str:
    """A person's own hook or forward: nothing tells what it does, so it is told by which one it is, in this process."""
    if isinstance(function, types.MethodType):  # another object each time
        return f"{own_name(function.__self__)} {own_name(function.__func__)}"
    there, name = _OWN.get(id(function), (None, ""))
    if there is None or there() is not function:
        name = next(_OWN_NAMES)
        try:
            _OWN[id(function)] = ref(function), name
        except TypeError:  # an object with slots: kept, so that no other takes its place in memory
            _OWN[id(function)] = lambda: function, name
    return name
