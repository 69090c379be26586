"""A saved result's file: a zip archive of `result.json` and, where the result has arrays, `arrays.safetensors`.

`result.json` is plain JSON: the format and its version, what the result is, of which model and data, and the result itself as
`form.py` writes it. Reading a file runs nothing and makes nothing but results.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablation_core.errors import ReportError, first_line
from ablation_core.experiments.estimate_result import EstimateResult
from ablation_core.experiments.interaction_result import InteractionResult
from ablation_core.experiments.noise_floor import NoiseFloor
from ablation_core.experiments.results import AblationResult
from ablation_core.heads.describe import HeadDescription
from ablation_core.presentation import Presented
from ablation_core.runs.adaptive import AdaptiveResult
from ablation_core.runs.comparison_result import ComparisonResult
from ablation_core.runs.maps.position_map import PositionMapResult
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.runs.sweep import SweepResult
from ablation_core.saved.form import WrongForm, decode, encode
from ablation_core.storage import matches_schema, project_version

FORMAT, VERSION = "ablation-explorer result", 1
KINDS: dict[str, tuple[type[Presented], str]] = {
    "AblationResult": (AblationResult, "ablation"),
    "SweepResult": (SweepResult, "head map"),
    "AdaptiveResult": (AdaptiveResult, "adaptive head map"),
    "PositionMapResult": (PositionMapResult, "map by position"),
    "CurveResult": (CurveResult, "pruning curves"),
    "EstimateResult": (EstimateResult, "estimate"),
    "InteractionResult": (InteractionResult, "interactions"),
    "ComparisonResult": (ComparisonResult, "comparison"),
    "HeadDescription": (HeadDescription, "head"),
    "NoiseFloor": (NoiseFloor, "noise floor"),
}
MOST_BYTES = 256_000_000  # of one result, unpacked
JSON, ARRAYS = "result.json", "arrays.safetensors"
HEADER: dict[str, Any] = {"name": str, "kind": str, "note": str, "saved": str, "model": str, "data": str, "page": dict}


@dataclass(frozen=True)
class SavedEntry:
    """What is known of a saved result before it is read whole.

    Attributes:
        kind: a key of `KINDS`.
        saved: when, as ISO 8601.
        model, data: what it was measured with.
        page: the `path` of the page that shows it again and its `params`; empty where it was not kept from a page.
    """

    name: str
    kind: str
    note: str
    saved: str
    model: str
    data: str
    page: dict
    bytes: int = 0

    @property
    def label(self) -> str:
        """The kind in people's words."""
        return KINDS[self.kind][1] if self.kind in KINDS else self.kind

    def to_dict(self) -> dict:
        names = ("name", "kind", "note", "saved", "model", "data", "bytes")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Saved:
    """A saved result with what is known of it."""

    entry: SavedEntry
    result: Presented


def pack(header: Mapping[str, Any], result: Presented) -> bytes:
    """A saved result's file.

    Raises:
        ReportError: it is larger than is read again.
    """
    document, arrays = encode(result)
    described = {"format": FORMAT, "version": VERSION, "made by": project_version(), **header, "result": document}
    if (size := sum(array.nbytes for array in arrays.values())) > MOST_BYTES:
        raise ReportError(
            f"Its figures of single predictions have {size / 1e6:.0f} MB, and at most {MOST_BYTES / 1e6:.0f} MB are saved; save "
            f"results of fewer heads, positions, steps or methods each."
        )
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(JSON, json.dumps(described, allow_nan=False, ensure_ascii=False, indent=1))
        if arrays:
            from safetensors.numpy import save

            archive.writestr(ARRAYS, save(arrays))
    return made.getvalue()


def read_header(content: bytes) -> tuple[SavedEntry, dict, zipfile.ZipFile]:
    """What a saved result's file says of itself.

    Raises:
        WrongForm: it is damaged, or of a later version; as the end of a sentence.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        check_whole(archive)
        sizes = {one.filename: one.file_size for one in archive.infolist()}
        if not {JSON} <= set(sizes) <= {JSON, ARRAYS} or sum(sizes.values()) > MOST_BYTES:
            raise WrongForm("it holds something else than a result, or too much")
        document = json.loads(archive.read(JSON))
    except (
        OSError,
        ValueError,
        zipfile.BadZipFile,
        NotImplementedError,
        RecursionError,
        RuntimeError,
        EOFError,
    ) as error:
        raise WrongForm(f"it is cut short, or not one of this project's ({first_line(error)})") from error
    except Exception as error:  # zlib.error and whatever else a damaged archive raises
        if isinstance(error, WrongForm):
            raise
        raise WrongForm(f"it cannot be unpacked ({first_line(error)})") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise WrongForm("it is not a saved result of this project")
    if document.get("version") != VERSION:
        raise WrongForm(f"it has version {str(document.get('version'))[:20]}, and this program reads version {VERSION}")
    if not matches_schema(document, HEADER | {"result": dict}):
        raise WrongForm("it does not say what it is")
    return SavedEntry(**{name: document[name] for name in HEADER}, bytes=len(content)), document, archive


def check_whole(archive: zipfile.ZipFile) -> None:
    """Refuse an archive with something before it: of an export that is cut short, a result inside it would be found.

    Raises:
        WrongForm: it does not begin where its file begins.
    """
    if min((one.header_offset for one in archive.infolist()), default=0):
        raise WrongForm("it is cut short, or something stands before it")


def unpack(content: bytes) -> Saved:
    """A saved result of its file.

    Raises:
        WrongForm: it is damaged, or of a later version; as the end of a sentence.
    """
    entry, document, archive = read_header(content)
    if entry.kind not in KINDS:
        raise WrongForm(f"it is a {entry.kind[:40]}, which this version does not know")
    try:
        arrays = {}
        if ARRAYS in archive.namelist():
            from safetensors.numpy import load

            arrays = load(archive.read(ARRAYS))
        result = decode(KINDS[entry.kind][0], document["result"], arrays)
        _check_predictions(result)
        result.to_dict() if hasattr(
            result, "to_dict"
        ) else result.to_frame()  # what lies in plain dictionaries is as it must be
    except WrongForm:
        raise
    except Exception as error:  # a file from anywhere may hold anything
        raise WrongForm(f"what it holds does not fit together ({first_line(error)})") from error
    return Saved(entry, result)


def _check_predictions(result: Any) -> None:
    """Refuse figures of single predictions that are not all of the same predictions.

    Raises:
        WrongForm: some have more or fewer.
    """
    result = result.total_effect if isinstance(result, HeadDescription) else result
    parts: list[Mapping[str, Any]] = []
    if isinstance(result, AblationResult) and result.predictions is not None:
        scored = result.predictions
        parts = [
            {"sequence": scored.sequence},
            scored.baseline.values,
            *(one.values for one in scored.ablated.values()),
        ]
    elif isinstance(result, InteractionResult) and result.changes is not None:
        parts = [result.changes]
    result = result.cells if isinstance(result, PositionMapResult) else result
    if isinstance(result, SweepResult | CurveResult) and result.predictions is not None:
        parts = list(result.predictions.values())
    if len({array.shape for part in parts for array in part.values()}) > 1:
        raise WrongForm("its figures of single predictions are not all of the same predictions")


def contents_of(content: bytes) -> bytes:
    """What is in a result's file, whatever the archive around it looks like."""
    _, document, archive = read_header(content)
    arrays = archive.read(ARRAYS) if ARRAYS in archive.namelist() else b""
    return json.dumps([document["kind"], document["result"]], sort_keys=True).encode() + arrays
