"""What an agent's call gives, compared with what the tool takes: one sentence where it does not fit.

The protocol's own library answers with several lines for programmers, and passes over an argument that a tool does not
have: `prediction=50` would be measured with the usual 1,000.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ablation_core.errors import AblationError, DataError, a_type

_KINDS = {int: "a whole number", str: "a text", list: "a list of texts"}


def fit_arguments(name: str, tool: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call as the tool takes them: digits as a number, one method as a list of one.

    Raises:
        DataError: one is missing, unknown, or of another kind; the sentence says which, and what was expected.
    """
    taken = inspect.signature(tool).parameters
    if strange := next((one for one in given if one not in taken), None):
        has = f"its arguments are {', '.join(taken)}" if taken else "it takes none"
        raise DataError(f"The tool {name} has no argument {str(strange)[:80]!r}; {has}.")
    for one, parameter in taken.items():
        if parameter.default is parameter.empty and given.get(one) is None:
            raise DataError(f"The tool {name} needs the argument {one} ({_KINDS[_kind(parameter)]}).")
    return {
        one: _fitted(name, one, _kind(taken[one]), value)
        for one, value in given.items()
        if value is not None  # as if it were not given
    }


def unknown_tool(name: str, tools: Mapping[str, Any]) -> AblationError:
    """The sentence for a tool that is not there."""
    return DataError(f"There is no tool {name[:80]!r}; the tools are {', '.join(tools)}.")


def _kind(parameter: inspect.Parameter) -> type:
    """What an argument is: a whole number by its default, a list by its default, else a text."""
    if isinstance(parameter.default, int):
        return int
    return list if isinstance(parameter.default, tuple) else str


def _fitted(tool: str, name: str, kind: type, value: Any) -> Any:
    if kind is int and isinstance(value, str) and value.strip().lstrip("+-").isascii():
        digits = value.strip()
        value = int(digits) if digits.lstrip("+-").isdigit() and len(digits) <= 18 else value
    elif kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    elif kind is list and isinstance(value, str):
        value = value.replace(",", " ").split()
    whole = isinstance(value, kind) and not isinstance(value, bool)
    if not whole or (kind is list and not all(isinstance(one, str) for one in value)):
        shown = a_type(value) if isinstance(value, list | dict) else repr(value)[:80]
        raise DataError(f"The argument {name} of the tool {tool} is {_KINDS[kind]}, not {shown}.")
    return value
