"""Neurons in numbers: what the Distributions page says about one, as a JSON document and as text."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from ablation_core.activations.files import as_statistics
from ablation_core.activations.neuron_summary import summarise_neuron
from ablation_core.activations.statistics import Statistics
from ablation_core.data.arguments import measures
from ablation_core.experiments.provenance import describe_model, describe_statistics
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Head, Selection


@measures
def describe_neurons(
    model: LoadedModel,
    statistics: Statistics | str | Path,
    select: str | Selection | Iterable[Head],
    *,
    bins: int = 100,
) -> dict:
    """The figures of neurons' distributions: the JSON document of `python -m ablation_core neurons --json`.

    >>> from ablation_core import describe_neurons, load_model
    >>> document = describe_neurons(load_model("opt-mini"), "python-docs", "3.2:0-1")
    >>> [row["neuron"] for row in document["neurons"]], sorted(document["neurons"][0]["values"])
    (['3.2:0', '3.2:1'], ['mean', 'median', 'peak', 'zero'])

    Values are in activation units; null stands for what is not a finite number.

    Args:
        statistics: themselves, their file, or the data set that they were made from.
        select: neurons as text, heads as pairs such as `[(3, 2)]`, or a `Selection`.
        bins: the peak's binning.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    known = as_statistics(statistics, model)
    assert known is not None
    statistics, selection, neurons = known, Selection.read(select, model.shape), []
    for (layer, head), picked in selection.chosen:
        for neuron in picked:
            reading = summarise_neuron(statistics, layer, head, neuron, bins)
            figures = asdict(reading) | {"sentence": reading.sentence}
            neurons.append({"neuron": f"{layer}.{head}:{neuron}"} | {k: _plain(v) for k, v in figures.items()})
    return {
        "model": describe_model(model),
        "statistics": describe_statistics(statistics),
        "bins": bins,
        "neurons": neurons,
    }


def format_neurons(document: dict) -> str:
    """The document as text for the terminal: one paragraph per neuron, in activation units."""
    lines = []
    for row in document["neurons"]:
        values = ", ".join(f"{kind} {_number(value)}" for kind, value in row["values"].items() if kind != "zero")
        lines.append(f"{row['neuron']:>8}  {values}, std {_number(row['std'])}\n          {row['sentence']}")
    return "\n".join(lines) or "No neurons are selected."


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.5g}"


def _plain(value: object) -> object:
    """JSON knows no NaN, no infinity and no tuples."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
