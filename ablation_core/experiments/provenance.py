"""What every result says of the model, the data and the statistics it was made with, and of where it was made.

`describe_run` holds what decides the numbers, and nothing else: the files of finished runs are found by it.
"""

import platform
from datetime import UTC, datetime
from functools import cache
from importlib import metadata

import torch

from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data
from ablation_core.models.loaded import LoadedModel
from ablation_core.storage import project_version


def describe_run(model: LoadedModel, data: Data, statistics: Statistics | None) -> dict:
    """The parts `model`, `data` and `statistics` of a JSON document."""
    return {
        "model": describe_model(model),
        "data": {
            "ref": data.ref,
            "split": data.split,
            "fingerprint": data.fingerprint,
            "sequences": data.sequences,
            "predictions": data.predictions,
            "seq_len": data.seq_len,
            "batch_size": data.batch_size,
            "seed": data.seed,
        }
        | ({"documents": True} if data.documents else {}),
        "statistics": None if statistics is None else describe_statistics(statistics),
    }


def describe_made(model: LoadedModel, data: Data) -> dict:
    """How and where a result was made: what changes no number beyond rounding, or was done to the data before."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": str(model.device),
        "dtype": model.dtype,
        "threads": torch.get_num_threads(),
        "windows": _windows(model, data),
        "special_positions": model.excluded_positions,
        "data_source": data.source,
        "notes": list(data.notes),
        "versions": dict(_versions()),
    }


def _windows(model: LoadedModel, data: Data) -> str:
    """How texts became sequences."""
    if model.modality == "vision":
        return "images"
    if data.seq_len is None:
        return "prompts"
    if model.modality == "text-classification":
        return "texts"
    return {True: "documents", False: "packed", None: "given"}[data.documents]


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("ablation-explorer", project_version()), ("python", platform.python_version())]
    for name in ("torch", "transformers", "tokenizers", "timm", "numpy", "scipy"):
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


def describe_model(model: LoadedModel) -> dict:
    return {
        "ref": model.ref,
        "family": model.family,
        "verified": model.architecture.verified,
        "modality": model.modality,
        "layers": model.num_layers,
        "heads": model.num_heads,
        "head_dim": model.head_dim,
        "fingerprint": model.fingerprint,
        "dtype": model.dtype,
    }


def describe_statistics(statistics: Statistics) -> dict:
    made = statistics.provenance
    return {
        "data": made["data"],
        "split": made["split"],
        "tokens": made["tokens"],
        "positions_left_out": made["positions_left_out"],
        "bins": statistics.bins,
        "binning": made["binning"],
        "digest": statistics.digest,
    }
