"""Data sets of the Hugging Face hub, or saved to disk by the `datasets` library: `hf:ID`, `hf:ID/CONFIG#column`, `hf:FOLDER`.

Read row by row through that library, which is imported only here. A hub is asked only because a person named its data set.
Where a data set has a training part and a validation or test part, statistics come from the first and evaluation from the
second; of a single part every other row is evaluated.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation_core.data.files.formats import DEFAULT_COLUMN, split_column
from ablation_core.data.files.tables import missing_library
from ablation_core.errors import DataError, first_line

_ID = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w.-]+))?(?:/(?P<config>[\w.-]+))?", re.ASCII)
_EVALUATED = ("validation", "test", "dev", "valid")


@dataclass(frozen=True)
class HubDataset:
    """What a reference names: a data set of a hub, or a folder; and a column."""

    name: str
    revision: str | None
    config: str | None
    folder: Path | None
    column: str


def parse(ref: str) -> HubDataset:
    """`hf:owner/name@revision/config#column`, or `hf:FOLDER#column`, in its parts.

    Raises:
        DataError: it is neither.
    """
    place, column = split_column(ref.removeprefix("hf:"))
    if not os.path.isdir(place):  # an id has no such sign
        place, _, column = ref.removeprefix("hf:").partition("#")
    column = column or DEFAULT_COLUMN
    if os.path.isdir(place):
        return HubDataset(place, None, None, Path(place), column)
    match = _ID.fullmatch(place)
    if match is None:
        raise DataError(
            f"Cannot read {ref!r}: write hf:owner/name, hf:owner/name/config#column, or hf: and a folder that "
            f"save_to_disk has made."
        )
    return HubDataset(match["name"], match["revision"], match["config"], None, column)


def read_rows(ref: str, split: str) -> Iterator[dict]:
    """The rows of the part, in order, as dictionaries.

    Raises:
        DataError: there is no such data set, it cannot be reached or read.
    """
    yield from read_labelled(ref, split)[0]


def read_labelled(ref: str, split: str) -> tuple[Iterator[dict], dict[str, tuple[str, ...]]]:
    """The rows of the part, and of each column that numbers classes the names that the data set gives them.

    Raises:
        DataError: as `read_rows`.
    """
    wanted = parse(ref)
    try:
        parts = _open(wanted)
    except ModuleNotFoundError as error:
        raise missing_library(error) from error
    except Exception as error:
        raise DataError(_sentence(wanted, error)) from error
    return _guarded(wanted, _part(parts, split)), class_names(next(iter(parts.values())))


def class_names(dataset: Any) -> dict[str, tuple[str, ...]]:
    """Of a data set of the library: each column of numbered classes, and their names."""
    features = getattr(dataset, "features", None)
    if not isinstance(features, Mapping):  # of one column alone
        return {}
    return {
        name: tuple(map(str, feature.names))
        for name, feature in features.items()
        if type(feature).__name__ == "ClassLabel" and feature.names
    }


def _guarded(wanted: HubDataset, rows: Iterator[dict]) -> Iterator[dict]:
    try:
        yield from rows
    except (DataError, GeneratorExit):
        raise
    except Exception as error:
        raise DataError(_sentence(wanted, error)) from error


def _open(wanted: HubDataset) -> dict[str, Iterable[dict]]:
    """The data set's parts by their names."""
    import datasets

    datasets.disable_progress_bars()
    if wanted.folder is not None:
        folder = wanted.folder
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            found: Any = datasets.load_from_disk(str(folder))
        else:
            found = datasets.load_dataset(str(folder), streaming=True)
    else:
        offline = os.environ.get("HF_HUB_OFFLINE") == "1"  # then only what was prepared before can be read
        found = datasets.load_dataset(wanted.name, wanted.config, revision=wanted.revision, streaming=not offline)
    return dict(found) if isinstance(found, dict) else {"": found}


def _part(parts: dict[str, Iterable[dict]], split: str) -> Iterator[dict]:
    evaluated = next((name for name in _EVALUATED if name in parts), None)
    if evaluated and "train" in parts:
        yield from parts[evaluated if split == "evaluation" else "train"]
        return
    only = parts.get("train") or parts.get(evaluated or "") or next(iter(parts.values()))
    for number, row in enumerate(only):
        if number % 2 == (split != "evaluation"):
            yield row


def texts(ref: str, split: str) -> Iterator[Any]:
    """The column's values of the part."""
    wanted, found = parse(ref), False
    for row in read_rows(ref, split):
        if not found and wanted.column not in row:
            raise DataError(
                f"{wanted.name} has no column {wanted.column!r}; it has {', '.join(map(str, row))}. Write {_plain(ref)}#COLUMN."
            )
        found = True
        yield row[wanted.column]


def _plain(ref: str) -> str:
    return ref.partition("#")[0]


def _sentence(wanted: HubDataset, error: Exception) -> str:
    import datasets

    if wanted.folder is not None:
        return (
            f"{wanted.folder} is not a folder that datasets can read ({first_line(error)}); save_to_disk makes one. For a "
            f"folder of .txt files write folder:{wanted.folder}."
        )
    name = wanted.name + (f"@{wanted.revision}" if wanted.revision else "")
    gated = type(error).__name__ in ("GatedRepoError", "DatasetNotFoundError") and "gated" in str(error).lower()
    if gated:
        return f"{name} is gated: accept its conditions on its page, then log in with 'hf auth login'."
    if isinstance(error, datasets.exceptions.DatasetNotFoundError):
        return f"There is no data set {name!r} on the hub ({first_line(error)})."
    if "config" in str(error).lower() and isinstance(error, ValueError):
        return f"{name}: {first_line(error)} Write hf:{name}/CONFIG."
    why = "the hub is switched off by HF_HUB_OFFLINE, and it was not downloaded before; " * (
        os.environ.get("HF_HUB_OFFLINE") == "1"
    )
    return f"The data set {name} cannot be read: {why}{first_line(error)}"


def folder_digest(folder: Path) -> str:
    """A digest of a folder's file names, sizes and times."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = (f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def source_digest(ref: str) -> str:
    """The digest of a folder; empty for a hub's data set, whose content shows in the windows' own fingerprint."""
    wanted = parse(ref)
    return "" if wanted.folder is None else folder_digest(wanted.folder)
