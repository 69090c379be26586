"""What every result says of the model, the data and the statistics it was made with."""

from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data
from ablation_core.models.loaded import LoadedModel


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
        },
        "statistics": None if statistics is None else describe_statistics(statistics),
    }


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
