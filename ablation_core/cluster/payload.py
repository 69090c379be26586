"""Files that a machine elsewhere needs and does not have: a person's own text, images or model, sent as bytes.

Bundled models and data come with the project, models of a hub by their id: nothing of these is sent.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ablation_core import bundled
from ablation_core.data import hub_datasets
from ablation_core.data.files import formats
from ablation_core.data.references import IMAGE_SUFFIXES
from ablation_core.errors import EngineError
from ablation_core.loading.folders import find_folder
from ablation_core.storage import CACHE, working_folder

MOST_BYTES = 1 << 29  # larger folders belong on every machine, under the same path


@dataclass(frozen=True)
class Payload:
    """Files by their names inside a folder."""

    files: dict[str, bytes]

    @property  # computed each time: one that is kept would be sent along, and compared with itself
    def digest(self) -> str:
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            digest.update(f"{name} {len(content)} ".encode())
            digest.update(content)
        return digest.hexdigest()[:16]


def pack_model(ref: str, cache_dir: Path = CACHE) -> Payload | None:
    """The folder that a reference leads to here; None for bundled models, hub ids and folders that are too large.

    Raises:
        EngineError: it lies nowhere that could be named.
    """
    if ref.startswith("in memory"):
        raise EngineError(
            "A model from memory is not sent to a cluster: save it as a folder (save_pretrained), and load that."
        )
    folder = None if ref in bundled.NAMES else find_folder(ref, cache_dir)
    return None if folder is None else _pack(folder, (path for path in folder.rglob("*") if path.is_file()))


def pack_data(ref: str) -> Payload | None:
    """A person's own text file or folder of images; None for data sets that come with Python or the project."""
    kind, _, place = ref.partition(":")
    if ref.startswith("in memory"):
        raise EngineError(
            "Data in memory is not sent to a cluster: save it as a file, such as jsonl:FILE, and name that."
        )
    if kind in ("text", "pairs"):
        return _pack(Path(place).parent, [Path(place)])
    if kind in formats.KINDS:
        table = formats.parse(ref)
        if kind == "folder":
            return _pack(table.path, formats.folder_files(table.path))
        return _pack(table.path.parent, [table.path])
    if kind == "hf" and (folder := hub_datasets.parse(ref).folder) is not None:
        return _pack(folder, (path for path in folder.rglob("*") if path.is_file()))
    if kind == "images":
        files = (path for path in Path(place).glob("*/*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        return _pack(Path(place), files)
    return None


def unpacked_data_ref(ref: str, folder: Path) -> str:
    """The reference of sent data in the folder that it was unpacked into."""
    kind, _, place = ref.partition(":")
    if kind in ("folder", "hf"):
        column = hub_datasets.parse(ref).column if kind == "hf" else None
        return f"{kind}:{folder}" + (f"#{column}" if column else "")
    if kind in formats.KINDS:
        table = formats.parse(ref)
        return f"{kind}:{folder / table.path.name}#{table.column}"
    return f"{kind}:{folder / Path(place).name}" if kind in ("text", "pairs") else f"images:{folder}"


def _pack(folder: Path, paths: Iterable[Path]) -> Payload | None:
    chosen = sorted(paths)
    try:
        if sum(path.stat().st_size for path in chosen) > MOST_BYTES:
            return None
        return Payload({path.relative_to(folder).as_posix(): path.read_bytes() for path in chosen})
    except OSError as error:
        raise EngineError(f"{folder} cannot be read, to be sent to the cluster: {error.strerror}.") from error


def unpack(payload: Payload, digest: str, cache_dir: Path = CACHE) -> Path:
    """Write the files into a folder of the cache, which is named by their digest and there only when it is whole.

    Raises:
        EngineError: they are not what was sent, or cannot be written.
    """
    if payload.digest != digest or not all(map(_stays_inside, payload.files)):
        raise EngineError("The files that arrived are not those that were sent; start the run again.")
    parent = cache_dir / "sent"
    try:
        if not (parent / digest).is_dir():
            with working_folder(parent) as place:
                for name, content in payload.files.items():
                    (place / digest / name).parent.mkdir(parents=True, exist_ok=True)
                    (place / digest / name).write_bytes(content)
                _rename(place / digest, parent / digest)
    except OSError as error:
        raise EngineError(f"What was sent cannot be written to {parent}: {error}") from error
    return parent / digest


def _stays_inside(name: str) -> bool:
    return bool(name) and not os.path.isabs(name) and ".." not in Path(name).parts


def _rename(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError:
        if not target.is_dir():  # where it is, another worker of this machine was faster
            raise
