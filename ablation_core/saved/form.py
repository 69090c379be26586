"""Results as plain JSON with arrays beside it, and back again by the types of their fields.

    document, arrays = encode(result)         # JSON values; name → numpy array
    result = decode(AblationResult, document, arrays)

A frozen dataclass says itself what it holds, so that one walk over its annotations writes and reads every result, and refuses
what a field cannot be. Nothing is looked up by a name from the file, so that a file can make nothing but results.
"""

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from ablation_core.errors import ReportError
from ablation_core.experiments.displacement import Displacement
from ablation_core.experiments.harm_split import HarmSplit
from ablation_core.experiments.predictions.prediction_scores import PredictionScores
from ablation_core.methods.optimal import Learning
from ablation_core.stats.intervals import Interval

Arrays = dict[str, np.ndarray]
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_FOR_TYPES = {
    one.__name__: one for one in (Displacement, HarmSplit, PredictionScores, Learning, Interval)
}  # imported for types alone


class WrongForm(ReportError):
    """A document that is not a result's: what is wrong with it, as the end of a sentence."""


def encode(value: Any, arrays: Arrays | None = None) -> tuple[Any, Arrays]:
    """A result, or a part of one, as JSON values, and the arrays in it by name."""
    arrays = {} if arrays is None else arrays

    def plain(part: Any) -> Any:
        if is_dataclass(part):
            return {one.name: plain(getattr(part, one.name)) for one in fields(part) if one.init}
        if isinstance(part, np.ndarray):
            name = str(len(arrays))
            arrays[name] = np.ascontiguousarray(part)
            return {"array": name}
        if isinstance(part, Mapping):
            if all(isinstance(key, str) for key in part):
                return {key: plain(one) for key, one in part.items()}
            return [[plain(key), plain(one)] for key, one in part.items()]
        if isinstance(part, tuple | list):
            return [plain(one) for one in part]
        if isinstance(part, np.generic):
            return plain(part.item())
        if isinstance(part, float) and not math.isfinite(part):
            return "NaN" if math.isnan(part) else ("Infinity" if part > 0 else "-Infinity")
        return part

    return plain(value), arrays


def decode(kind: Any, value: Any, arrays: Arrays, place: str = "result") -> Any:
    """What `encode` made of something of this type.

    Args:
        kind: a class or another annotation.
        place: where in the document, for the sentence.

    Raises:
        WrongForm: the document holds something else there.
    """
    origin = get_origin(kind)
    if kind is Any or kind in (dict, Mapping):
        return _plain(value, kind, place)
    if origin in (Union, types.UnionType):
        return _one_of(get_args(kind), value, arrays, place)
    if origin is Literal:
        return _checked(value in get_args(kind), value, place)
    if origin in (tuple, list):
        return _sequence(kind, value, arrays, place)
    if origin is dict or (origin is not None and issubclass(origin, Mapping)):
        return _mapping(kind, value, arrays, place)
    if kind is np.ndarray:
        return _array(value, arrays, place)
    if is_dataclass(kind):
        return _dataclass(kind, value, arrays, place)
    if kind in _SCALARS:
        return _SCALARS[kind](value, place)
    raise TypeError(f"{place}: nothing is known of the type {kind}")  # a defect of this program, not of the file


def _checked(fine: bool, value: Any, place: str) -> Any:
    if not fine:
        raise WrongForm(f"its field {place} holds {str(value)[:40]!r}")
    return value


def _float(value: Any, place: str) -> float:
    if isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    return float(_checked(isinstance(value, int | float) and not isinstance(value, bool), value, place))


def _int(value: Any, place: str) -> int:
    return _checked(isinstance(value, int) and not isinstance(value, bool), value, place)


_SCALARS: dict[Any, Callable[[Any, str], Any]] = {
    float: _float,
    int: _int,
    str: lambda value, place: _checked(isinstance(value, str), value, place),
    bool: lambda value, place: _checked(isinstance(value, bool), value, place),
    types.NoneType: lambda value, place: _checked(value is None, value, place),
}


def _plain(value: Any, kind: Any, place: str) -> Any:
    return value if kind is Any else _checked(isinstance(value, dict), value, place)


def _one_of(kinds: tuple[Any, ...], value: Any, arrays: Arrays, place: str) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    problem: WrongForm | None = None
    for kind in (one for one in kinds if one is not types.NoneType):
        try:
            return decode(kind, value, arrays, place)
        except WrongForm as error:
            problem = error
    assert problem is not None
    raise problem


def _sequence(kind: Any, value: Any, arrays: Arrays, place: str) -> Any:
    _checked(isinstance(value, list), value, place)
    parts = get_args(kind)
    if get_origin(kind) is tuple and Ellipsis not in parts:
        _checked(len(value) == len(parts), value, place)
    else:
        parts = (parts[0],) * len(value)
    found = (decode(part, one, arrays, f"{place}[{n}]") for n, (part, one) in enumerate(zip(parts, value, strict=True)))
    return list(found) if get_origin(kind) is list else tuple(found)


def _mapping(kind: Any, value: Any, arrays: Arrays, place: str) -> dict:
    key_kind, part = get_args(kind)
    if isinstance(value, dict):
        pairs = list(value.items())
    else:
        _checked(
            isinstance(value, list) and all(isinstance(one, list) and len(one) == 2 for one in value), value, place
        )
        pairs = [(one[0], one[1]) for one in value]
    return {decode(key_kind, key, arrays, place): decode(part, one, arrays, f"{place}.{key}") for key, one in pairs}


def _array(value: Any, arrays: Arrays, place: str) -> np.ndarray:
    name = value.get("array") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in arrays:
        raise WrongForm(f"its field {place} names an array that is not there")
    return arrays[name]


def _dataclass(kind: Any, value: Any, arrays: Arrays, place: str) -> Any:
    _checked(isinstance(value, dict), value, place)
    hints = get_type_hints(kind, localns=_FOR_TYPES)
    known = [one for one in fields(kind) if one.init]
    if unknown := set(value) - {one.name for one in known}:
        raise WrongForm(f"its field {place}.{sorted(unknown)[0]} is not known here")
    # what came later has its default in what is older
    needed = [one.name for one in known if one.default is not None and "later" not in one.metadata]
    if missing := [name for name in needed if name not in value]:
        raise WrongForm(f"it lacks the field {place}.{missing[0]}")
    there = [one.name for one in known if one.name in value]
    return kind(**{name: decode(hints[name], value[name], arrays, f"{place}.{name}") for name in there})
