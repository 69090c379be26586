"""What a long run changes for every single prediction, kept beside its ledger where it was asked for.

    sweep(model, data, "mean", keep_predictions=True).to_frame("predictions")  # one row per head, method and prediction

A folder beside the ledger's file holds a small file per unit (a head, a cell of a map, a point of a curve), and one that says
where in the data each prediction stands. Each is written whole, before the ledger's line of its unit, with a digest; what is
missing or damaged is measured again by the next run that keeps predictions.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np

from ablation_core.engine.metrics import METRICS, main_metric, metrics_in
from ablation_core.errors import StatisticsError
from ablation_core.storage import write_atomic

PLACES = "places"
_DIGEST, _ENDING = "digest", ".safetensors"
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class PredictionChanges:
    """One unit's changes of single predictions.

    Attributes:
        places: `sequence` and, where a prediction is one token or image, `position` and `target`; each (predictions,).
        changes: `change_name(method, metric)` → ablated minus baseline, float32 (predictions,).
    """

    places: Arrays
    changes: Arrays


class PredictionFiles(Mapping[str, Arrays]):
    """Unit → its changes by `change_name`, and under `PLACES` where the predictions stand; each file is read when it is asked for.

    A file that is damaged counts as missing.

    Args:
        units: those of one result: the folder may have many more, which are not to be saved with it.
    """

    def __init__(self, ledger: Path, units: Iterable[str] | None = None) -> None:
        self.folder = ledger.with_suffix(".predictions")
        self.names = None if units is None else {PLACES, *units}

    def __getitem__(self, name: str) -> Arrays:
        if (self.names is not None and name not in self.names) or (arrays := self._read(name)) is None:
            raise KeyError(name)
        return arrays

    def __iter__(self) -> Iterator[str]:
        names = sorted(unquote(path.name.removesuffix(_ENDING)) for path in self.folder.glob(f"*{_ENDING}"))
        return (name for name in names if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def methods(self, unit: str) -> set[str]:
        """The methods that a unit's changes are kept of; none where nobody could say where the predictions stand."""
        kept = self.get(unit) if PLACES in self else None
        return {name.split(": ")[0] for name in kept or ()}

    def add(self, unit: str, measured: PredictionChanges) -> None:
        """Keep a unit's changes, beside those by other methods that are there.

        Raises:
            StatisticsError: they cannot be written.
        """
        try:
            if PLACES not in self:
                self._write(PLACES, measured.places)
            self._write(unit, {**self.get(unit, {}), **measured.changes})
        except OSError as error:
            raise StatisticsError(
                f"The figures per prediction cannot be kept in {self.folder}: {error}. What was finished before is kept; make "
                f"room and run it again, or leave keep_predictions out."
            ) from error

    def _read(self, name: str) -> Arrays | None:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(self._path(name).read_bytes())
            digest = arrays.pop(_DIGEST).tobytes()
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        return arrays if digest == _digest(name, arrays) else None

    def _path(self, name: str) -> Path:
        """A layer's name has a star, which not every system takes."""
        return self.folder / (quote(name, safe=" ,@") + _ENDING)

    def _write(self, name: str, arrays: Arrays) -> None:
        from safetensors.numpy import save

        whole = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        digest = np.frombuffer(_digest(name, whole), np.uint8)
        write_atomic(self._path(name), save({**whole, _DIGEST: digest}))


def kept_predictions(ledger: Path, units: Iterable[str]) -> PredictionFiles | None:
    """What is kept of these units beside a ledger; None where nobody asked for it."""
    files = PredictionFiles(ledger, units)
    return files if files.folder.is_dir() else None


def change_name(method: str, metric: str) -> str:
    return f"{method}: {metric}"


def kept_metrics(names: Iterable[str]) -> list[str]:
    """Of these metrics those whose changes are kept: the loss and, of a task, what compares its answers."""
    known = {metric.name for metric in metrics_in(set(names))}
    return [name for name in METRICS if name in known & {"loss", main_metric(known).name}]


def _digest(name: str, arrays: Arrays) -> bytes:
    digest = hashlib.sha256(name.encode())
    for key, array in sorted(arrays.items()):
        digest.update(f" {key} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.digest()
