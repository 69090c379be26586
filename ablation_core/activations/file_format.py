"""The form of a statistics file: arrays and a header with their provenance, checked in full when it is read."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ablation_core.activations.made_from import FORMAT_VERSION
from ablation_core.errors import StatisticsError

if TYPE_CHECKING:  # a header needs no numpy
    import numpy as np

    from ablation_core.activations.statistics import Statistics
    from ablation_core.models.info import ModelInfo
    from ablation_core.models.loaded import LoadedModel

_ARRAYS = ("count", "mean", "std", "minimum", "maximum", "not_finite", "low", "high", "counts")
_TYPES = {"low": "float64", "high": "float64", "counts": "uint64"}  # the others: float32
_MAX_HEADER = 100_000_000  # as the safetensors library has it
_MOST = 2**53  # any larger count or setting is no measurement's
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "format": int, "model": str, "model_fingerprint": str, "data": str, "data_fingerprint": str, "source": str, "split": str,
    "sequences": int, "tokens": int, "seq_len": (int, type(None)), "positions_left_out": int, "dtype": str,
    "seed": int, "bins": int, "binning": str,
}  # fmt: skip


def statistics_bytes(statistics: Statistics) -> bytes:
    """The content of their file."""
    import numpy as np
    from safetensors.numpy import save

    arrays = {name: getattr(statistics, name) for name in _ARRAYS}
    arrays["counts"] = _smallest(arrays["counts"])
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(arrays, {"provenance": json.dumps(statistics.provenance, sort_keys=True), "digest": statistics.digest})


def read_arrays(path: Path, provenance: dict, digest: str, model: LoadedModel | ModelInfo | None) -> Statistics:
    """The statistics in a file whose header was read.

    Args:
        model: whose shape the arrays must have, where it is known.

    Raises:
        StatisticsError: they are damaged, or cannot be true.
    """
    import numpy as np
    from safetensors import SafetensorError, safe_open

    from ablation_core.activations.statistics import Statistics

    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in _ARRAYS}
    except (OSError, SafetensorError) as error:
        raise StatisticsError(f"The statistics file {path} is damaged ({error}); compute it again.") from error
    shape = arrays["mean"].shape
    wanted = {name: (*shape, provenance["bins"] + 2) if name == "counts" else shape for name in _ARRAYS}
    wrong = [name for name in _ARRAYS if arrays[name].shape != wanted[name] or len(shape) != 3]
    if wrong:
        raise StatisticsError(f"The statistics file {path} is damaged: {wrong[0]} has the wrong shape.")
    for name, array in arrays.items():
        if array.dtype != _TYPES.get(name, "float32") and not (name == "counts" and array.dtype.kind == "u"):
            raise StatisticsError(f"The statistics file {path} is damaged: {name} has the wrong type, {array.dtype}.")
    if model is not None and shape != (model.shape.layers, max(model.shape.heads), model.shape.head_dim):
        raise StatisticsError(f"The statistics file {path} is damaged: its shape {shape} is not that of {model.ref}.")
    arrays["counts"] = arrays["counts"].astype(np.int64)
    statistics = Statistics(**arrays, provenance=provenance)
    if statistics.digest != digest:
        raise StatisticsError(
            f"The statistics file {path} is damaged: its content does not match its digest. Compute it again."
        )
    if impossible := _impossible(arrays):
        raise StatisticsError(f"The statistics file {path} is damaged: {impossible}. Compute it again.")
    return statistics


def _impossible(arrays: dict[str, np.ndarray]) -> str:
    """What no data can give, in words; nothing where all may be true. A digest is no proof: anybody can make one."""
    import numpy as np

    if arrays["counts"].size == 0:
        return "it holds no neurons"
    if not 0 <= arrays["counts"].min() <= arrays["counts"].max() < _MOST:
        return "a count is too large"
    counted = arrays["count"] > 0
    seen = {name: array[counted] for name, array in arrays.items() if name != "counts"}
    if not all(np.isfinite(values).all() for values in (*seen.values(), arrays["count"], arrays["not_finite"])):
        return "it holds numbers that are not finite"
    if min(arrays["count"].min(), arrays["not_finite"].min(), seen["std"].min(initial=0)) < 0:
        return "a count or a standard deviation is negative"
    if (seen["minimum"] > seen["maximum"]).any() or (seen["low"] >= seen["high"]).any():
        return "a range ends before it begins"
    if (arrays["counts"].sum(axis=-1).astype(np.float32) != arrays["count"]).any():
        return "a histogram holds more or fewer values than were counted"
    return ""


def read_header(path: Path) -> tuple[dict, str]:
    """The provenance and the digest, checked for form but not for truth."""
    if not os.path.isfile(path):  # also false where the name is no possible path
        raise StatisticsError(f"There is no statistics file {path}.")
    metadata, names = _safetensors_header(path)
    try:
        provenance = json.loads(metadata.get("provenance", ""))
        version = provenance.get("format")
    except (ValueError, AttributeError, RecursionError) as error:
        raise StatisticsError(f"{path} is not a statistics file of this project: it has no provenance.") from error
    if version != FORMAT_VERSION:
        raise StatisticsError(
            f"The statistics file {path} has format {str(version)[:20]}, this version reads format {FORMAT_VERSION}; "
            f"compute it again."
        )
    for name, kind in _FIELDS.items():
        value = provenance.get(name)
        if not isinstance(value, kind) or isinstance(value, bool) or not _plausible(name, value):
            raise StatisticsError(f"The statistics file {path} is damaged: its field {name} is missing or not valid.")
    if not names.issuperset(_ARRAYS):
        raise StatisticsError(f"The statistics file {path} is damaged: it lacks {', '.join(set(_ARRAYS) - names)}.")
    return provenance, metadata.get("digest", "")


def _safetensors_header(path: Path) -> tuple[dict, set[str]]:
    """The metadata and the names of the arrays of a safetensors file, read without the library, which loads numpy."""
    try:
        with open(path, "rb") as file:
            size, length = os.fstat(file.fileno()).st_size, int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(_MAX_HEADER, size - 8):
                raise ValueError("it is cut short, or no safetensors file")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        if max((array["data_offsets"][1] for array in header.values()), default=0) != size - 8 - length:
            raise ValueError("it is shorter or longer than its header says")
        if not isinstance(metadata, dict):
            raise ValueError("its metadata are not a table")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StatisticsError(f"The statistics file {path} is damaged ({error}); compute it again.") from error
    return metadata, set(header)


def _plausible(name: str, value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= 5000
    most = math.inf if name == "seed" else _MOST  # a seed may have any length
    return value is None or (isinstance(value, int) and 0 <= value < most)


def _smallest(counts: np.ndarray) -> np.ndarray:
    """The counts in the smallest unsigned type that holds them."""
    import numpy as np

    most = int(counts.max(initial=0))
    return counts.astype(
        next(kind for kind in (np.uint8, np.uint16, np.uint32, np.uint64) if most <= np.iinfo(kind).max)
    )
