"""What a person hands to the functions that measure: a loaded model, loaded data and whole numbers; else one sentence."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from ablation_core.data.dataset import Data
from ablation_core.errors import DataError, ModelError, a_type
from ablation_core.models.loaded import LoadedModel

P = ParamSpec("P")
R = TypeVar("R")


def measures(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function of `model` and `data` refuse anything else in their places.

    Raises (the function):
        ModelError, DataError: what was given, and how it is loaded.
    """
    parameters = inspect.signature(function).parameters
    optional = {name for name, one in parameters.items() if one.default is None}

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, given in (*zip(parameters, args, strict=False), *kwargs.items()):
            if given is None and name in optional:
                continue
            if name == "model":
                check_model(given)
            elif name == "data":
                check_data(given)
        return function(*args, **kwargs)

    return checked


def check_model(given: Any) -> None:
    """Refuse what is not a loaded model."""
    if isinstance(given, LoadedModel) or (hasattr(given, "module") and hasattr(given, "shape")):
        return
    if isinstance(given, Data):
        raise ModelError("Data was given in the model's place: the model comes first, then the data.")
    load = f"load_model({given!r})" if isinstance(given, str) else "load_model(…)"
    raise ModelError(f"The model is {a_type(given)} here; load it first, model = {load}, and give that.")


def check_data(given: Any) -> None:
    """Refuse what is not loaded data, or made by hand to be used as such."""
    if isinstance(given, Data) or hasattr(given, "seed"):
        return
    load = f"load_data({given[:80]!r}, model)" if isinstance(given, str) else "load_data(…, model)"
    raise DataError(f"The data is {a_type(given)} here; load it first, data = {load}, and give that.")


def whole_number(value: Any, name: str, least: int) -> int:
    """A number that counts something.

    Raises:
        DataError: it is not whole, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise DataError(f"The {name} must be a whole number of at least {least}, not {value!r}.")
    return int(value)
