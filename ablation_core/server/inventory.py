"""The inventory of models, statistics and data sets, with size and origin; importing and deleting statistics."""

from pathlib import Path

from ablation_core import bundled
from ablation_core.activations import files
from ablation_core.activations.files import CacheEntry
from ablation_core.activations.statistics import Statistics
from ablation_core.bundled import fashion_mnist
from ablation_core.data.uploads import contents, list_uploads, reference
from ablation_core.errors import StatisticsError, first_line
from ablation_core.server.models_here import Item, folder_bytes
from ablation_core.storage import CACHE, PUBLISHED, working_folder

MAX_STATISTICS_BYTES = 50_000_000


def list_data(folder: Path = CACHE) -> list[Item]:
    """The data sets that come with Python, the system or the project, and what people uploaded."""
    full = fashion_mnist.is_here()
    items = [
        Item("python-docs", "text", "the language reference inside every CPython", "comes with Python", None),
        Item("python-code", "text", "source files of the standard library", "comes with Python", None),
        Item("fashion-mnist", "images", "3,000 test images of Fashion-MNIST", "bundled", folder_bytes(fashion_mnist.SAMPLE_FOLDER)),
        Item("fashion-mnist:full", "images", "all 70,000 images of Fashion-MNIST", "here" if full else "to fetch (30 MB)", None),
    ]  # fmt: skip
    for upload in list_uploads(folder):
        kind = "images" if upload.kind == "images" else "text"
        words = f"{upload.name}: {contents(upload)}"
        items.append(Item(reference(upload, folder), kind, words, "uploaded", upload.bytes))
    return items


def is_bundled(entry: CacheEntry) -> bool:
    """Whether statistics came with the project."""
    return entry.path.is_relative_to(PUBLISHED) and entry.path.relative_to(PUBLISHED).as_posix() in bundled.STATISTICS


def import_statistics(content: bytes, folder: Path = CACHE) -> Path:
    """Save an uploaded statistics file of ours and return its path in the cache folder.

    Only numbers are read from it, with the checks of `files.load_statistics`; it is then written again under a name of
    our own.

    Raises:
        StatisticsError: it is too large, damaged, not a statistics file, or the cache has other numbers in its place.
    """
    if len(content) > MAX_STATISTICS_BYTES:
        raise StatisticsError(f"The file is larger than {MAX_STATISTICS_BYTES // 1_000_000} MB; it cannot be imported.")
    try:
        with working_folder(folder) as temporary:
            uploaded = temporary / "uploaded"  # without the ending by which statistics are listed
            uploaded.write_bytes(content)
            try:
                statistics = files.load_statistics(uploaded)
            except StatisticsError as error:
                raise StatisticsError(str(error).replace(str(uploaded), "that was uploaded")) from error
    except OSError as error:
        raise StatisticsError(f"The file cannot be read: {first_line(error)}") from error
    path = files.statistics_path(statistics, folder)
    if path.exists() and not _same(path, statistics):
        raise StatisticsError(
            "The cache folder already has different statistics of the same model, data and settings; delete those first "
            "if the new ones are right."
        )
    return files.save_statistics(statistics, folder)


def delete_statistics(path: Path, folder: Path = CACHE) -> None:
    """Delete a statistics file of the cache folder.

    Raises:
        StatisticsError: it came with the project, or is not a statistics file of this folder.
    """
    entry = next((entry for entry in files.list_statistics(folder)[0] if entry.path == path), None)
    if entry is not None and is_bundled(entry):
        raise StatisticsError(f"{path.name} comes with the project and cannot be deleted.")
    if entry is None or entry.path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
        raise StatisticsError(f"{path.name} is not a statistics file of the cache folder; nothing was deleted.")
    try:
        path.unlink()
    except OSError as error:
        raise StatisticsError(f"{path.name} cannot be deleted: {first_line(error)}") from error


def _same(path: Path, statistics: Statistics) -> bool:
    try:
        return files.load_statistics(path).digest == statistics.digest
    except StatisticsError:  # a damaged file may be replaced
        return True
