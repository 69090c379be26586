"""Results as frames with the figures of their documents: floats as they are, NaN where a document has null."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ablation_core.activations.neuron_summary import NeuronSummary, peak_distance
from ablation_core.activations.statistics import Statistics
from ablation_core.engine.metrics import METRICS, metrics_in
from ablation_core.errors import ReportError
from ablation_core.experiments.estimate_result import Estimated, EstimateResult
from ablation_core.experiments.interaction_result import InteractionResult
from ablation_core.experiments.noise_floor import NoiseFloor
from ablation_core.experiments.results import AblationResult
from ablation_core.heads.describe import HeadDescription
from ablation_core.runs.adaptive import AdaptiveResult
from ablation_core.runs.kept.prediction_files import PLACES, change_name
from ablation_core.runs.maps.position_map import PositionMapResult, cell_name
from ablation_core.runs.pruning_result import CurveResult, point_name
from ablation_core.runs.sweep_result import SweepResult

_DEFAULT_BINS = 100  # of the peak


def prediction_frame(result: AblationResult) -> pd.DataFrame:
    """One row per method and prediction, the clean model's first: its metrics, and the change of each that is tested.

    Raises:
        ReportError: the result was read from a document, which has means alone.
    """
    scored = result.predictions
    if scored is None:
        raise ReportError("This result holds means only; ablate again to have the figures of every prediction.")
    places, parts = scored.places(), []
    for method, scores in {"baseline": scored.baseline, **scored.ablated}.items():
        metrics = metrics_in(scores.values)
        columns: dict[str, Any] = {"method": method, **places}
        columns |= {metric.name: scores[metric.name] for metric in metrics}
        columns |= {
            f"change of {metric.name}": scores.change(metric, scored.baseline) for metric in metrics if metric.tested
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def sweep_frame(result: SweepResult) -> pd.DataFrame:
    """One row per measured head and method."""
    return _head_rows(result.to_dict()["heads"])


def sweep_predictions_frame(result: SweepResult) -> pd.DataFrame:
    """One row per measured head, method and prediction: its place, and the change of each metric that is kept.

    Raises:
        ReportError: the sweep kept none, or not of every head and method.
    """
    return _kept_frame(result.predictions, {head: {"head": head} for head in result.heads}, result.methods)


def position_predictions_frame(result: PositionMapResult) -> pd.DataFrame:
    """One row per measured cell, method and prediction: its place, and the change of each metric that is kept.

    Raises:
        ReportError: the map kept none, or not of every cell and method.
    """
    measured = set(result.cells.heads)
    units = {
        name: {"select": row, "ablated at": position}
        for row in result.rows
        for position in result.positions
        if (name := cell_name(row, position)) in measured
    }
    return _kept_frame(result.cells.predictions, units, result.methods)


def curve_predictions_frame(result: CurveResult) -> pd.DataFrame:
    """One row per measured point, method and prediction: its place, and the change of each metric that is kept.

    Raises:
        ReportError: the curves kept none, or not of every point and method.
    """
    methods = result.description["methods"]
    units = {
        point_name(seed, percent): {"seed": seed, "percent": percent}
        for (seed, percent), rows in result.points.items()
        if all(method in rows for method in methods)
    }
    return _kept_frame(result.predictions, units, methods)


def _kept_frame(
    kept: Mapping[str, Mapping[str, np.ndarray]] | None, units: Mapping[str, dict[str, Any]], methods: Iterable[str]
) -> pd.DataFrame:
    """What a long run has kept of these units, each with the columns that name it."""
    if kept is None:
        raise ReportError(
            "No figures of single predictions were kept; run it again with keep_predictions=True "
            "(--keep-predictions) to have them."
        )
    there, parts = kept.get(PLACES, {}), []
    places = {name: there[name] for name in ("sequence", "position", "target", "group") if name in there}
    for unit, named in units.items():
        changes = kept.get(unit, {})
        for method in methods:
            names = [name for name in METRICS if places and change_name(method, name) in changes]
            if not names:
                what = ", ".join(f"{column} {value}" for column, value in named.items())
                raise ReportError(
                    f"The figures of single predictions of {what} by {method} were not kept, or their file is damaged; "
                    f"run it again with keep_predictions=True (--keep-predictions): what is missing is measured again."
                )
            columns: dict[str, Any] = {**named, "method": method, **places}
            columns |= {f"change of {name}": changes[change_name(method, name)] for name in names}
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"method": []})


def adaptive_frame(result: AdaptiveResult) -> pd.DataFrame:
    """One row per head and method, also those that are not decided yet."""
    return _head_rows(result.heads)


def curve_points_frame(result: CurveResult) -> pd.DataFrame:
    """One row per seed, percentage and method."""
    return pd.DataFrame(
        [
            {"seed": point["seed"], "percent": point["percent"], **_flat(row)}
            for point in result.to_dict()["points"]
            for row in point["results"]
        ]
    )


def curve_table_frame(result: CurveResult) -> pd.DataFrame:
    """One row per method at 50 and at 90 per cent: each metric's mean over the seeds, the least and the greatest."""
    rows = []
    for row in result.to_dict()["table"]:
        spans = {name: span for name, span in row.items() if isinstance(span, dict)}
        figures = {f"{name} ({bound})": value for name, span in spans.items() for bound, value in span.items()}
        rows.append({"percent": row["percent"], "method": row["method"], **figures})
    return pd.DataFrame(rows)


def estimated_heads_frame(result: EstimateResult) -> pd.DataFrame:
    """One row per method and head: each metric's estimated change with its standard error, nats per prediction."""
    heads = [(layer, head) for layer, count in enumerate(result.shape.heads) for head in range(count)]
    rows = [
        {
            "method": method.method,
            "head": f"{layer}.{head}",
            **_estimated(method.changes, (layer, head)),
        }
        for method in result.methods
        for layer, head in heads
    ]
    return pd.DataFrame(rows)


def estimated_neurons_frame(result: EstimateResult) -> pd.DataFrame:
    """The same for every single neuron, those of the greatest estimated change of loss first."""
    parts = []
    for method in result.methods:
        known = np.isfinite(method.loss.neurons)
        layers, heads, neurons = np.nonzero(known)
        columns: dict[str, Any] = {"method": method.method}
        columns["neuron"] = [f"{a}.{b}:{c}" for a, b, c in zip(layers, heads, neurons, strict=True)]
        for name, part in method.changes.items():
            columns |= {f"{name} estimate": part.neurons[known], f"{name} standard error": part.neurons_error[known]}
        parts.append(pd.DataFrame(columns).sort_values("loss estimate", ascending=False, kind="stable"))
    return pd.concat(parts, ignore_index=True)


def floor_frame(floor: NoiseFloor) -> pd.DataFrame:
    """One row per method and metric: the least and the greatest change among the random sets."""
    bands: dict[Any, dict[str, tuple[float, float]]] = {**floor.bands} or {None: {"loss": (floor.low, floor.high)}}
    return pd.DataFrame(
        [
            {"method": method, "metric": metric, "low": low, "high": high, "sets": floor.sets}
            for method, spans in bands.items()
            for metric, (low, high) in spans.items()
        ]
    )


def pairs_frame(result: InteractionResult) -> pd.DataFrame:
    """One row per pair of heads: the change without both, the interaction, and whether it is significant."""
    rows = []
    for row in result.to_dict()["pairs"]:
        spans = {_changed(result): row["joint"]["change"][result.metric], "interaction": row["interaction"]}
        figures = {
            f"{name} ({bound})": span[bound] for name, span in spans.items() for bound in ("mean", "low", "high")
        }
        rows.append({"pair": " + ".join(row["pair"]), **figures} | {name: row[name] for name in ("p", "q", "verdict")})
    return pd.DataFrame(rows)


def _changed(result: InteractionResult) -> str:
    return f"change of {METRICS[result.metric].label}"


def single_heads_frame(result: InteractionResult) -> pd.DataFrame:
    """One row per head: the change without it alone."""
    return pd.DataFrame(
        [
            {"head": row["head"]}
            | {
                f"{_changed(result)} ({bound})": row["change"][result.metric][bound]
                for bound in ("mean", "low", "high")
            }
            for row in result.to_dict()["singles"]
        ]
    )


def interaction_predictions_frame(result: InteractionResult) -> pd.DataFrame:
    """One row per prediction: its sequence, and its change without each set of heads.

    Raises:
        ReportError: the result was not measured here, and has means alone.
    """
    if result.changes is None:
        raise ReportError("This result holds means only; measure it again to have the figures of every prediction.")
    names = {name: name if name == "sequence" else f"{_changed(result)} without {name}" for name in result.changes}
    return pd.DataFrame({names[name]: values for name, values in result.changes.items()})


def head_scores_frame(found: HeadDescription) -> pd.DataFrame:
    """One row per score of what kind of head it is, with its spread over sequences and percentile among all heads."""
    document = found.to_dict()
    return pd.DataFrame(
        [
            {
                "score": name,
                "mean": value,
                "spread": document["spread"][name],
                "percentile": document["percentile"][name],
            }
            for name, value in document["scores"].items()
        ]
    )


def summary_frame(summary: NeuronSummary) -> pd.DataFrame:
    """One row per replacement value, in activation units and in standard deviations from the mean."""
    return pd.DataFrame(
        [
            {"value of": kind, "activation": value, "distance_in_std": summary.distance_in_std(kind, "mean")}
            for kind, value in summary.values.items()
        ]
    )


def statistics_frame(statistics: Statistics, bins: int = _DEFAULT_BINS) -> pd.DataFrame:
    """One row per neuron, by layer, head and neuron; the peak in `bins` bins."""
    counted = ~np.isnan(statistics.low)  # where a layer has fewer heads there is nothing
    layers, heads, neurons = np.nonzero(counted)
    columns = {
        "layer": layers,
        "head": heads,
        "neuron": neurons,
        "mean": statistics.mean[counted],
        "median": statistics.median()[counted],
        "peak": statistics.peak(bins)[counted],
        "std": statistics.std[counted],
        "distance_in_std": peak_distance(statistics, bins)[counted],
    }
    return pd.DataFrame(columns)


def _head_rows(heads: Iterable[dict]) -> pd.DataFrame:
    return pd.DataFrame([{"head": head["head"], **_flat(row)} for head in heads for row in head["results"]])


def _flat(row: dict) -> dict[str, Any]:
    """A method's row of a document with its changes as columns: `change of loss (low)`, as `frames.result_frame` has."""
    flat = {name: value for name, value in row.items() if not isinstance(value, dict) and name != "change"}
    if moved := row.get("displacement"):
        flat |= {"moved": moved["moved"], "residual": moved["norm_change"]}
    for metric, span in (row.get("change") or {}).items():
        flat |= {f"change of {metric} ({bound})": value for bound, value in span.items()}
    flat |= {f"q of {metric}": q for metric, q in (row.get("q_values") or {}).items() if metric != "loss"}
    return flat


def _estimated(changes: Mapping[str, Estimated], place: tuple[int, int]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, part in changes.items():
        found |= {f"{name} estimate": float(part.heads[place])}
        found |= {f"{name} standard error": float(part.heads_error[place])}
    return found
