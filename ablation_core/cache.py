"""Statistics files: written whole or not at all, checked in full when read.

A file is `<cache>/<model>/<data>-<key>.safetensors`: the arrays, and in the header the provenance (JSON) and a digest
of both. The key is a digest of the provenance, so that other settings never reuse a file.
"""

import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ablation_core.collect import FORMAT_VERSION, check_made_from, default_left_out
from ablation_core.errors import StatisticsError
from ablation_core.folders import CACHE
from ablation_core.models import LoadedModel
from ablation_core.sources import source_digest
from ablation_core.statistics import FINE_BINS, Statistics

_ARRAYS = ("count", "mean", "std", "minimum", "maximum", "not_finite", "low", "high", "counts")
_TYPES = {"low": np.float64, "high": np.float64, "counts": np.uint64}  # the others: float32
_FIELDS = {
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

    Raises:
        StatisticsError: the folder cannot be written to.
    """
    arrays = {name: getattr(statistics, name) for name in _ARRAYS}
    arrays["counts"] = _smallest(arrays["counts"])
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    metadata = {"provenance": json.dumps(statistics.provenance, sort_keys=True), "digest": statistics.digest}
    path = statistics_path(statistics, folder)
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".partial-", suffix=".safetensors")
        os.close(handle)
        save_file(arrays, partial, metadata)
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, path)
        partial = None
    except (OSError, SafetensorError) as error:
        raise StatisticsError(f"The statistics cannot be written to {path.parent}: {error}") from error
    finally:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
    return path


def load_statistics(path: str | Path, model: LoadedModel | None = None) -> Statistics:
    """Read statistics and check everything in them.

    Args:
        model: the model they are going to be used for, compared with the one they were made from.

    Raises:
        StatisticsError: the file is missing, damaged, of another format version, or made from another model.
    """
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
        if array.dtype != _TYPES.get(name, np.float32) and not (name == "counts" and array.dtype.kind == "u"):
            raise StatisticsError(f"The statistics file {path} is damaged: {name} has the wrong type, {array.dtype}.")
    arrays["counts"] = arrays["counts"].astype(np.int64)
    statistics = Statistics(**arrays, provenance=provenance)
    if statistics.digest != digest:
        raise StatisticsError(
            f"The statistics file {path} is damaged: its content does not match its digest. Compute it again."
        )
    return statistics


def list_statistics(folder: Path = CACHE) -> tuple[list[CacheEntry], list[str]]:
    """Every statistics file in the folder, and a sentence for each that cannot be read."""
    entries, problems = [], []
    if not os.path.isdir(folder):  # also false where the name is no possible path
        return entries, problems
    for path in sorted(folder.glob("*/[!.]*.safetensors")):
        try:
            provenance, digest = _read_header(path)
            entries.append(CacheEntry(path, provenance, path.stat().st_size, digest))
        except StatisticsError as error:
            problems.append(str(error))
    return entries, problems


def find_statistics(
    model: LoadedModel, data_ref: str, folder: Path = CACHE, source: str | None = None
) -> CacheEntry | None:
    """The file made from these weights on the statistics part of this data set: of those with ordinary settings, else
    of all, the one with the most tokens.

    Args:
        source: the digest of the user's own file or folder, as `Data.source` has it; by default taken anew.
    """
    source = source_digest(data_ref) if source is None else source
    wanted = {"model_fingerprint": model.fingerprint, "data": data_ref, "source": source, "split": "statistics"}
    entries, _ = list_statistics(folder)
    fitting = [entry for entry in entries if wanted.items() <= entry.provenance.items()]

    def preference(entry: CacheEntry) -> tuple:
        made = entry.provenance
        ordinary = made["binning"] == "robust" and made["bins"] >= FINE_BINS
        return ordinary and made["positions_left_out"] == default_left_out(model), made["tokens"]

    return max(fitting, key=preference, default=None)


def other_statistics(model: LoadedModel, data_ref: str, folder: Path = CACHE) -> str:
    """A sentence about statistics of this model's name and data that do not fit, or nothing."""
    for entry in list_statistics(folder)[0]:
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
    return ""


def _read_header(path: Path) -> tuple[dict, str]:
    """The provenance and the digest, checked for form but not for truth."""
    if not os.path.isfile(path):  # also false where the name is no possible path
        raise StatisticsError(f"There is no statistics file {path}.")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            names = set(file.keys())
    except (OSError, SafetensorError) as error:
        raise StatisticsError(f"The statistics file {path} is damaged ({error}); compute it again.") from error
    try:
        provenance = json.loads(metadata.get("provenance", ""))
        version = provenance.get("format")
    except (ValueError, AttributeError, RecursionError) as error:
        raise StatisticsError(f"{path} is not a statistics file of this project: it has no provenance.") from error
    if version != FORMAT_VERSION:
        raise StatisticsError(
            f"The statistics file {path} has format {version}, this version reads format {FORMAT_VERSION}; "
            f"compute it again."
        )
    for name, kind in _FIELDS.items():
        if not isinstance(provenance.get(name), kind) or isinstance(provenance.get(name), bool):
            raise StatisticsError(f"The statistics file {path} is damaged: its field {name} is missing or not valid.")
    if not names.issuperset(_ARRAYS):
        raise StatisticsError(f"The statistics file {path} is damaged: it lacks {', '.join(set(_ARRAYS) - names)}.")
    return provenance, metadata.get("digest", "")


def _file_name(provenance: dict) -> Path:
    key = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:8]
    return Path(_slug(provenance["model"])) / f"{_slug(provenance['data'])}-{key}.safetensors"


def _slug(ref: str) -> str:
    """A name that is safe for a file: no separators, no leading dot, not too long."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", ref).strip("-")[-60:] or "unnamed"


def _smallest(counts: np.ndarray) -> np.ndarray:
    """The counts in the smallest unsigned type that holds them."""
    most = int(counts.max(initial=0))
    return counts.astype(
        next(kind for kind in (np.uint8, np.uint16, np.uint32, np.uint64) if most <= np.iinfo(kind).max)
    )
