"""A person's own code in a module, its classes, hooks and replaced forwards: told from libraries', and from each other.

hooks_of(module)   # ["layers.3: 5f0c21aa 0"], or [] where there are none
"""

import functools
import hashlib
import inspect
import itertools
import secrets
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def hooks_of(module: nn.Module | None) -> list[str]:
    """A person's own forward hooks on a module. They are no settings: most only look on."""
    return [
        f"{name}: {own_name(hook)}"
        for name, part in (() if module is None else module.named_modules())
        for hook in (*part._forward_pre_hooks.values(), *part._forward_hooks.values())
        if home(hook) not in KNOWN
    ]


@contextmanager
def without_hooks(module: nn.Module) -> Iterator[None]:
    """A person's own forward hooks are off for the length of a `with` block, and in their order again after it."""
    tables = [table for part in module.modules() for table in (part._forward_pre_hooks, part._forward_hooks)]
    before = [dict(table) for table in tables]
    try:
        for table in tables:
            for number in [number for number, hook in table.items() if home(hook) not in KNOWN]:
                del table[number]
        yield
    finally:
        for table, hooks in zip(tables, before, strict=True):
            table.clear()
            table.update(hooks)


def code_of(kind: type) -> dict[str, str]:
    """What a person's own class does, in a few characters; nothing of a library's.

    In a notebook a class is often written anew under its old name. Other versions of Python may compile it otherwise.
    """
    own = [base for base in kind.__mro__ if home(base) not in (*KNOWN, "builtins")]
    told = [f"{name} {_told(value)}" for base in own for name, value in sorted(vars(base).items()) if name[:2] != "__"]
    return {"code": hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]} if own else {}


def _told(value: Any) -> str:
    """A function by what it was compiled to, without where it was written; a plain value by itself; of all else the type."""
    value = inspect.unwrap(getattr(value, "__func__", None) or getattr(value, "fget", None) or value)
    if isinstance(value, types.FunctionType):
        return f"{_told(value.__code__)} {_told(value.__defaults__)}"
    if isinstance(value, types.CodeType):
        names = value.co_names, value.co_varnames, value.co_freevars
        return f"{value.co_code.hex()} {names} {[_told(one) for one in value.co_consts]}"
    if isinstance(value, tuple):
        return str([_told(one) for one in value])
    if isinstance(value, frozenset):
        return str(sorted(map(_told, value)))
    return repr(value) if isinstance(value, bool | int | float | str | None) else type(value).__name__


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
