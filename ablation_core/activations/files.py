"""Statistics files: written whole or not at all, checked in full when read.

A file is `<cache>/<model>/<data>-<key>.safetensors`: the arrays, and in the header the provenance (JSON) and a digest
of both. The key is a digest of the provenance, so that other settings never reuse a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ablation_core.activations.file_format import read_arrays, read_header, statistics_bytes
from ablation_core.activations.made_from import FINE_BINS, check_made_from
from ablation_core.errors import StatisticsError, a_type
from ablation_core.models.info import how_they_differ
from ablation_core.storage import CACHE, PUBLISHED, check_writable, reading_places, write_atomic

if TYPE_CHECKING:  # a list of files needs no numpy
    from ablation_core.activations.statistics import Statistics
    from ablation_core.data.dataset import Data
    from ablation_core.models.info import ModelInfo
    from ablation_core.models.loaded import LoadedModel


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
        StatisticsError: the folder cannot be written to, or nothing would tell later what they are of.
    """
    from safetensors import SafetensorError

    if statistics.provenance.get("hooks"):
        raise StatisticsError(
            "These statistics were computed while hooks of your own changed what heads compute. Nothing tells a hook's work "
            "in another process, so they are not saved: use them in this one, or give the module a forward or a class of your own."
        )
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
        raise StatisticsError(
            f"Statistics cannot be written to {place}: {error}. Nothing was computed; name another folder (--cache-dir)."
        ) from error


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
    path = Path(path)
    provenance, digest = read_header(path)
    if model is not None:
        check_made_from(provenance, model, f"The statistics in {path}")
    return read_arrays(path, provenance, digest, model)


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
                provenance, digest = read_header(path)
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


def find_for_data(model: LoadedModel | ModelInfo, data: Data, folder: Path = CACHE) -> CacheEntry | None:
    """The file that an experiment on this data takes its constants from where none is named.

    The data's own; for a task without any, that of the model's usual data: prompts of one form show a few of the values
    that a neuron takes.
    """
    from ablation_core.data.references import DEFAULT_DATA

    own = find_statistics(model, data.ref, folder, data.source)
    usual = DEFAULT_DATA.get(model.modality) if data.is_task else None
    return own if own or usual is None else find_statistics(model, usual, folder)


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
            why = f" ({how_they_differ(made[field], model.fingerprint)})" if field == "model_fingerprint" else ""
            return f"the statistics in {entry.path} do not fit: their {field} differs{why}; compute them for this model and data."
    here = f"{folder / _slug(model.ref) / _slug(data_ref)}-"
    return next((problem for problem in problems if here in problem), "")


def _file_name(provenance: dict) -> Path:
    key = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:8]
    return Path(_slug(provenance["model"])) / f"{_slug(provenance['data'])}-{key}.safetensors"


def _slug(ref: str) -> str:
    """A name that is safe for a file: no separators, no leading dot, not too long."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", ref).strip("-")[-60:] or "unnamed"
