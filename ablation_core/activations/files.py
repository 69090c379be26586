"""Statistics files: written whole or not at all, checked in full when read.

A file is `<cache>/<model>/<data>-<key>.safetensors`: the arrays, and in the header the provenance (JSON) and a digest
of both. The key is a digest of the provenance, so that other settings never reuse a file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ablation_core.activations.made_from import FINE_BINS, FORMAT_VERSION, check_made_from
from ablation_core.errors import StatisticsError, a_type
from ablation_core.storage import CACHE, PUBLISHED, check_writable, reading_places, write_atomic

if TYPE_CHECKING:  # a list of files needs no numpy
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


@dataclass(frozen=True)
class CacheEntry:
    """A statistics file and what its header says; the arrays are not read."""

    path: Path
    provenance: dict
    bytes: int
    digest: str


def statistics_path(statistics: Statistics, folder: Path = CACHE) -> Path:
    """Where the cache folder keeps, or would keep, these statistics."""
    return folder / _file_name(statistics.provenance)


def save_statistics(statistics: Statistics, folder: Path = CACHE) -> Path:
    """Write statistics into the cache folder and return the file's path.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from ablation_core import find_statistics, load_model, load_statistics, save_statistics
    >>> model = load_model("opt-mini")
    >>> statistics = load_statistics(find_statistics(model, "python-docs").path, model)
    >>> with TemporaryDirectory() as folder:
    ...     save_statistics(statistics, Path(folder)).name
    'python-docs-acd88b39.safetensors'

    Raises:
        StatisticsError: the folder cannot be written to.
    """
    from safetensors import SafetensorError

    path = statistics_path(statistics, folder)
    try:
        write_atomic(path, statistics_bytes(statistics))
    except (OSError, SafetensorError) as error:
        raise StatisticsError(f"The statistics cannot be written to {path.parent}: {error}") from error
    return path


def check_can_save(model: LoadedModel, folder: Path = CACHE) -> None:
    """Ask before statistics are computed, which takes minutes, whether they can be kept.

    Raises:
        StatisticsError: the folder cannot be written to.
    """
    place = folder / _slug(model.ref)
    try:
        check_writable(place)
    except OSError as error:
        raise StatisticsError(f"Statistics cannot be written to {place}: {error}. Nothing was computed.") from error


def statistics_bytes(statistics: Statistics) -> bytes:
    """The content of their file."""
    import numpy as np
    from safetensors.numpy import save

    arrays = {name: getattr(statistics, name) for name in _ARRAYS}
    arrays["counts"] = _smallest(arrays["counts"])
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(arrays, {"provenance": json.dumps(statistics.provenance, sort_keys=True), "digest": statistics.digest})


def load_statistics(path: str | Path, model: LoadedModel | ModelInfo | None = None) -> Statistics:
    """Read statistics and check everything in them.

    >>> from ablation_core import find_statistics, load_model, load_statistics
    >>> model = load_model("opt-mini")
    >>> statistics = load_statistics(find_statistics(model, "python-docs").path, model)
    >>> statistics.provenance["tokens"], statistics.std.shape
    (20066, (6, 6, 32))

    Args:
        model: the model they are going to be used for, compared with the one they were made from.

    Raises:
        StatisticsError: the file is missing, damaged, of another format version, or made from another model.
    """
    import numpy as np
    from safetensors import SafetensorError, safe_open

    from ablation_core.activations.statistics import Statistics

    path = Path(path)
    provenance, digest = _read_header(path)
    if model is not None:
        check_made_from(provenance, model, f"The statistics in {path}")
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


def list_statistics(folder: Path = CACHE) -> tuple[list[CacheEntry], list[str]]:
    """Every statistics file in the folder, and a sentence for each that cannot be read.

    The usual cache folder also lists what comes with the project, but for files of the same name as one of its own.
    """
    entries: dict[str, CacheEntry] = {}
    problems: list[str] = []
    for place in reading_places(folder):
        if not os.path.isdir(place):  # also false where the name is no possible path
            continue
        for path in sorted(place.glob("*/[!.]*.safetensors")):
            try:
                provenance, digest = _read_header(path)
                entry = CacheEntry(path, provenance, path.stat().st_size, digest)
                entries.setdefault(path.relative_to(place).as_posix(), entry)
            except (StatisticsError, OSError) as error:  # the latter where it has just been deleted
                problems.append(str(error))
    return list(entries.values()), problems


def find_statistics(
    model: LoadedModel | ModelInfo, data_ref: str, folder: Path = CACHE, source: str | None = None
) -> CacheEntry | None:
    """The file made from these weights on the statistics part of this data set: of those with ordinary settings, else
    of all, the one with the most tokens. Where the folder has none, one that comes with the project; else None.

    >>> from ablation_core import find_statistics, load_model
    >>> find_statistics(load_model("opt-mini"), "python-docs").provenance["split"]
    'statistics'

    Args:
        source: the digest of the user's own file or folder, as `Data.source` has it; by default computed from the file.
    """
    from ablation_core.data.references import source_digest

    source = source_digest(data_ref) if source is None else source
    wanted = {"model_fingerprint": model.fingerprint, "data": data_ref, "source": source, "split": "statistics"}
    fitting: list[CacheEntry] = []
    for place in dict.fromkeys((folder, PUBLISHED)):
        entries, _ = list_statistics(place)
        fitting = fitting or [entry for entry in entries if wanted.items() <= entry.provenance.items()]

    def preference(entry: CacheEntry) -> tuple:
        made = entry.provenance
        ordinary = made["binning"] == "robust" and made["bins"] >= FINE_BINS
        return ordinary and made["positions_left_out"] == model.excluded_positions, made["tokens"]

    return max(fitting, key=preference, default=None)


def as_statistics(
    given: Statistics | str | Path | None, model: LoadedModel | ModelInfo, folder: Path = CACHE
) -> Statistics | None:
    """Statistics however a person names them: themselves, their file, or the data set that they were made from.

    >>> from ablation_core import as_statistics, load_model
    >>> as_statistics("python-docs", load_model("opt-mini")).mean.shape  # layers, heads, neurons per head
    (6, 6, 32)

    Raises:
        StatisticsError: there are none of this model on that data, or the file is missing, damaged or of another model.
    """
    from ablation_core.activations.statistics import Statistics

    if given is None or isinstance(given, Statistics):
        return given
    if not isinstance(given, str | Path):
        raise StatisticsError(
            f"Statistics cannot be {a_type(given)}: give what compute_statistics returns, a file's path, or the "
            f"name of the data they were made from, such as 'python-docs'."
        )
    if isinstance(given, Path) or given.endswith(".safetensors") or os.path.isfile(given):
        return load_statistics(given, model)
    entry = find_statistics(model, given, folder)
    if entry is None:
        why = other_statistics(model, given, folder)
        raise StatisticsError(
            f"{missing_statistics(model, given, folder)}{f' ({why})' if why else ''} In Python: "
            f"compute_statistics(model, load_data({given!r}, model, split='statistics'))."
        )
    return load_statistics(entry.path, model)


def missing_statistics(model: LoadedModel | ModelInfo, data_ref: str, folder: Path = CACHE) -> str:
    """What to say where there are none on this data: the command that computes them, and what there is."""
    words = ["python", "-m", "ablation_core", "stats", model.ref, "--data", data_ref]
    words += [] if folder == CACHE else ["--cache-dir", str(folder)]
    there = sorted({entry.provenance["data"] for entry in _fitting(model, folder)})
    also = (
        f" There are statistics of it on {', '.join(there)}: choose them with --statistics {there[0]}." if there else ""
    )
    return f"There are none of {model.ref} on {data_ref}; compute them with '{shlex.join(words)}'.{also}"


def _fitting(model: LoadedModel | ModelInfo, folder: Path) -> list[CacheEntry]:
    """Every file made from these weights: in the folder, and among those that come with the project."""
    entries = [entry for place in dict.fromkeys((folder, PUBLISHED)) for entry in list_statistics(place)[0]]
    return [entry for entry in entries if entry.provenance["model_fingerprint"] == model.fingerprint]


def other_statistics(model: LoadedModel | ModelInfo, data_ref: str, folder: Path = CACHE) -> str:
    """A sentence about statistics of this model's name and data that do not fit, or nothing."""
    entries, problems = list_statistics(folder)
    for entry in entries:
        made = entry.provenance
        if made["model"] == model.ref and made["data"] == data_ref:
            field = next(
                (
                    name
                    for name, mine in (("dtype", model.dtype), ("model_fingerprint", model.fingerprint))
                    if made[name] != mine
                ),
                "source",
            )
            return f"the statistics in {entry.path} do not fit: their {field} differs; compute them for this model and data."
    here = f"{folder / _slug(model.ref) / _slug(data_ref)}-"
    return next((problem for problem in problems if here in problem), "")


def _read_header(path: Path) -> tuple[dict, str]:
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


def _file_name(provenance: dict) -> Path:
    key = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:8]
    return Path(_slug(provenance["model"])) / f"{_slug(provenance['data'])}-{key}.safetensors"


def _slug(ref: str) -> str:
    """A name that is safe for a file: no separators, no leading dot, not too long."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", ref).strip("-")[-60:] or "unnamed"


def _smallest(counts: np.ndarray) -> np.ndarray:
    """The counts in the smallest unsigned type that holds them."""
    import numpy as np

    most = int(counts.max(initial=0))
    return counts.astype(
        next(kind for kind in (np.uint8, np.uint16, np.uint32, np.uint64) if most <= np.iinfo(kind).max)
    )
