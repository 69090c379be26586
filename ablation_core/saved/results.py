"""Results that a person keeps under a name: saved, listed, loaded again as what they were, exported and imported.

    save_result(result, "prose, no head 3.2")
    load_result("prose, no head 3.2").to_frame("predictions")

Each is one file (`archive.py`) in the folder `saved` of the cache folder, written whole or not at all. What is damaged, or of a
later version, is said in a sentence and left where it is. An export is a zip archive of such files.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablation_core.errors import ReportError, first_line
from ablation_core.experiments.results import AblationResult
from ablation_core.models.info import ModelInfo, how_they_differ
from ablation_core.models.loaded import LoadedModel
from ablation_core.presentation import Presented
from ablation_core.runs.comparison_result import ComparisonResult
from ablation_core.saved.archive import (
    HEADER,
    JSON,
    KINDS,
    Saved,
    SavedEntry,
    check_whole,
    contents_of,
    pack,
    read_header,
    unpack,
)
from ablation_core.saved.form import WrongForm
from ablation_core.saved.shelves import ENDING, MOST_NAME, FolderShelf, Shelf, check_free, checked_name, file_of
from ablation_core.storage import CACHE

MOST_IMPORTED = 100_000_000  # bytes of a file that is imported
MOST_NOTE = 2000  # characters


def save_result(
    result: Presented, name: str, *, note: str = "", cache: str | Path = CACHE, replace: bool = False
) -> Path:
    """Keep a result under a name.

    >>> from tempfile import TemporaryDirectory
    >>> from ablation_core import NoiseFloor, load_result, save_result
    >>> with TemporaryDirectory() as folder:  # leave `cache` out to keep it
    ...     path = save_result(NoiseFloor(-0.001, 0.002, 8), "floor of 3.2", cache=folder)
    ...     load_result("floor of 3.2", cache=folder)
    NoiseFloor(low=-0.001, high=0.002, sets=8, sets_wanted=8, bands={})

    Args:
        result: what `ablate`, `sweep`, `curve`, `estimate`, `interact`, `compare`, `describe_head` or `noise_floor` returned.
        note: a sentence or two of your own.
        replace: whether a result that has this name already gives way.

    Returns:
        Its file.

    Raises:
        ReportError: it is no result, the name is taken or empty, or it cannot be written.
    """
    shelf = FolderShelf(Path(cache))
    keep(shelf, result, name, note=note, replace=replace)
    return shelf.folder / file_of(name)


def load_result(name: str, *, cache: str | Path = CACHE, model: LoadedModel | ModelInfo | None = None) -> Any:
    """A saved result, as what it was.

    >>> from ablation_core import load_result
    >>> load_result("none of this name")
    Traceback (most recent call last):
    ablation_core.errors.ReportError: There is no saved result named 'none of this name'.

    Args:
        model: where given, a result of another model is refused.

    Raises:
        ReportError: there is none of this name; or it is damaged, of a later version, or of another model.
    """
    result = find(FolderShelf(Path(cache)), name).result
    if model is not None:
        made = _described(result)["model"].get("fingerprint")
        if made != model.fingerprint:
            raise ReportError(
                f"The saved result {name!r} is of another model: its fingerprint is {made}, that of {model.ref} is "
                f"{model.fingerprint} ({how_they_differ(made, model.fingerprint)})."
            )
    return result


def keep(
    shelf: Shelf,
    result: Presented,
    name: str,
    *,
    note: str = "",
    page: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> SavedEntry:
    """Keep a result on a shelf; `page` says which page shows it again.

    Raises:
        ReportError: as `save_result`.
    """
    kind = type(result).__name__
    if kind not in KINDS or not isinstance(result, KINDS[kind][0]):
        raise ReportError(
            f"A {kind} is not a result that can be saved; save what ablate, sweep, curve or the like returned."
        )
    name = checked_name(name) if replace else check_free(shelf, name)
    if len(note) > MOST_NOTE:
        raise ReportError(f"A note has at most {MOST_NOTE:,} characters, not {len(note):,}.")
    described = _described(result)
    header: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "note": note,
        "saved": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": str(described["model"].get("ref", "")),
        "data": str(described["data"].get("ref", "")),
        "page": dict(page or {}),
    }
    content = pack(header, result)
    _write(shelf, file_of(name), content)
    return SavedEntry(**header, bytes=len(content))


def _described(result: Any) -> dict:
    """The model and the data that a result says it was measured with; empty where it says nothing."""
    document = getattr(result, "description", None) or getattr(result, "provenance", None) or {}
    if isinstance(result, AblationResult):
        document = {"model": result.model, "data": result.data}
    if isinstance(result, ComparisonResult):
        one, other = (side["data"]["ref"] for side in result.sides)
        document = result.sides[0] | {"data": {"ref": one if one == other else f"{one}, {other}"}}
    return {part: document.get(part) or {} for part in ("model", "data")}


def entries(shelf: Shelf) -> tuple[list[SavedEntry], list[str]]:
    """What is on a shelf, the newest first, and a sentence for each file that cannot be read."""
    found, problems = [], []
    for file in shelf.files():
        try:
            entry = read_header(shelf.read(file))[0]
            if file_of(entry.name) != file:
                raise WrongForm("its name inside is another one")
            found.append(entry)
        except FileNotFoundError:  # deleted meanwhile
            continue
        except (WrongForm, OSError) as error:
            problems.append(_unreadable(file, error))
    return sorted(found, key=lambda entry: (entry.saved, entry.name), reverse=True), problems


def find(shelf: Shelf, name: str) -> Saved:
    """The saved result of a name.

    Raises:
        ReportError: there is none, or it is damaged or of a later version.
    """
    file = file_of(checked_name(name))
    if file not in shelf.files():
        raise ReportError(f"There is no saved result named {name!r}.")
    try:
        return unpack(shelf.read(file))
    except (WrongForm, OSError) as error:
        raise ReportError(_unreadable(file, error)) from error


def delete(shelf: Shelf, name: str) -> None:
    """Delete a saved result.

    Raises:
        ReportError: there is none of this name, or it cannot be deleted.
    """
    if file_of(name) not in shelf.files():
        raise ReportError(f"There is no saved result named {name!r}; nothing was deleted.")
    try:
        shelf.delete(file_of(name))
    except OSError as error:
        raise ReportError(f"The saved result {name!r} cannot be deleted: {first_line(error)}") from error


def export_results(shelf: Shelf, names: Sequence[str] | None = None) -> bytes:
    """Saved results as one file; by default all that can be read.

    Raises:
        ReportError: there is none of a name, or none at all.
    """
    chosen = [entry.name for entry in entries(shelf)[0]] if names is None else list(dict.fromkeys(names))
    if not chosen:
        raise ReportError("Nothing is saved yet, so that there is nothing to export.")
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name in chosen:
            find(shelf, name)  # says which is missing or damaged
            archive.writestr(file_of(name.strip()), shelf.read(file_of(name.strip())))
    return made.getvalue()


def import_results(shelf: Shelf, content: bytes) -> list[str]:
    """Put the results of an exported file, or a single result's file, on a shelf; returns the names that they have there.

    One that is there already is left as it is; another one of the same name gets a number behind its name.

    Raises:
        ReportError: the file is damaged, too large, or holds no result; nothing was imported then.
    """
    if len(content) > MOST_IMPORTED:
        raise ReportError(f"The file is larger than {MOST_IMPORTED // 1_000_000} MB; it cannot be imported.")
    try:
        read = [(one, unpack(one)) for one in _parts(content)]
    except WrongForm as error:
        raise ReportError(f"The file cannot be imported: {error}. Nothing was imported.") from error
    for _, saved in read:
        checked_name(saved.entry.name)  # of all, before the first is put there
    if not read:
        raise ReportError("The file holds no saved result; nothing was imported.")
    return [_put(shelf, part, saved) for part, saved in read]


def _parts(content: bytes) -> list[bytes]:
    """The files in an export; a result's own file is its only one."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            check_whole(archive)
            members = archive.infolist()
            if any(one.filename == JSON for one in members):
                return [content]
            if sum(one.file_size for one in members) > MOST_IMPORTED:
                raise WrongForm("unpacked it is too large")
            return [archive.read(one) for one in members if one.filename.endswith(ENDING)]
    except WrongForm:
        raise
    except Exception as error:  # a damaged archive raises whatever zipfile and zlib have
        raise WrongForm(f"it is cut short, or not an export of saved results ({first_line(error)})") from error


def _put(shelf: Shelf, content: bytes, saved: Saved) -> str:
    name = checked_name(saved.entry.name)
    number, taken = 1, set(shelf.files())
    free = name
    while file_of(free) in taken:
        if _same(shelf, free, saved):
            return free
        number += 1
        free = f"{name[: MOST_NAME - 6]} ({number})"
    if free != name:
        header = {part: getattr(saved.entry, part) for part in HEADER} | {"name": free}
        content = pack(header, saved.result)
    _write(shelf, file_of(free), content)
    return free


def _same(shelf: Shelf, name: str, saved: Saved) -> bool:
    """Whether the result that has this name on the shelf is this very one."""
    try:
        mine = shelf.read(file_of(name))
        header = {part: getattr(saved.entry, part) for part in HEADER}
        return contents_of(mine) == contents_of(pack(header, saved.result))
    except (OSError, WrongForm):  # damaged: it stays, and the new one gets another name
        return False


def _write(shelf: Shelf, file: str, content: bytes) -> None:
    try:
        shelf.write(file, content)
    except OSError as error:
        raise ReportError(f"The result cannot be saved: {first_line(error)}") from error


def _unreadable(file: str, error: Exception) -> str:
    return f"The saved result {file} cannot be read: {first_line(error)}. It was left where it is."
