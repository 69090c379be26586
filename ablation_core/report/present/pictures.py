"""Results as charts: each picks the frame and the chart that the pages have too."""

from __future__ import annotations

import math
from collections.abc import Iterable

import altair as alt
import pandas as pd

from ablation_core.activations.neuron_summary import NeuronSummary, summarise_neuron
from ablation_core.activations.statistics import Statistics
from ablation_core.engine.metrics import METRICS, Metric
from ablation_core.errors import ReportError
from ablation_core.experiments.estimate_result import EstimateResult
from ablation_core.experiments.interaction_result import InteractionResult
from ablation_core.experiments.noise_floor import NoiseFloor
from ablation_core.experiments.results import AblationResult
from ablation_core.heads.describe import HeadDescription
from ablation_core.report import frames, run_frames
from ablation_core.report.charts import effect_maps, head_maps, looks, method_charts, neuron_charts, run_charts
from ablation_core.report.numbers import is_points
from ablation_core.report.present.interactions import interaction_matrix
from ablation_core.report.present.tables import floor_frame, pairs_frame, summary_frame
from ablation_core.report.run_sentences import curve_levels
from ablation_core.runs.adaptive import AdaptiveResult
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.selection import ModelShape, Selection

UNIT = "activation"


def ablation_chart(result: AblationResult, metric: str = "loss", floor: NoiseFloor | None = None) -> alt.LayerChart:
    """Each method's change of a metric with its 95% interval; of a noise floor the band too."""
    row = _metric(metric, result.baseline.means)
    frame = frames.change_frame(result, metric, "", floor)
    return method_charts.changes(frame, row.change_title, is_points(row.change_format))


def sweep_chart(result: SweepResult, metric: str = "loss", method: str | None = None) -> alt.LayerChart:
    """The map of every head's change by one method; by default the first."""
    row, method = _metric(metric, result.metrics), _one_of(method, result.methods)
    frame = run_frames.map_frame(result, method, metric)
    if frame.empty:
        raise ReportError(f"No head has been measured with {method} yet.")
    layers, heads = _size(result.description["model"])
    return effect_maps.effect_map(frame, f"{row.change_title}, {method}", row, layers, heads)


def adaptive_chart(result: AdaptiveResult, metric: str = "loss", method: str | None = None) -> alt.LayerChart:
    """The map, as of a sweep."""
    return sweep_chart(result.as_sweep(), metric, method)


def curve_chart(result: CurveResult, metric: str = "loss") -> alt.LayerChart:
    """One line per method with its band over the seeds, every point, the baseline and chance."""
    row = _metric(metric, result.metrics)
    bands, points = run_frames.curve_frame(result, metric), run_frames.point_frame(result, metric)
    if points.empty:
        raise ReportError("No point has been measured yet.")
    return run_charts.pruning_curves(bands, points, row.heading, row.axis_format, curve_levels(result, metric))


def estimate_chart(result: EstimateResult, metric: str = "loss", method: str | None = None) -> alt.LayerChart:
    """The map of every head's estimated change by one method; by default the first."""
    method = _one_of(method, [made.method for made in result.methods])
    changes = next(made.changes for made in result.methods if made.method == method)
    row, shape = _metric(metric, changes), result.shape
    estimates = {
        f"{layer}.{head}": (
            float(changes[metric].heads[layer, head]),
            float(changes[metric].heads_error[layer, head]),
        )
        for layer, count in enumerate(shape.heads)
        for head in range(count)
    }
    unmeasured = SweepResult(result.description | {"methods": [method]}, None, {}, tuple(estimates), 0.0)
    frame = run_frames.map_frame(unmeasured, method, metric, estimates=estimates)
    return effect_maps.effect_map(frame, f"estimated {row.change_title}, {method}", row, shape.layers, max(shape.heads))


def floor_chart(floor: NoiseFloor, metric: str = "loss") -> alt.LayerChart:
    """One bar per method from the least to the greatest change among the random sets, and the zero line."""
    frame = floor_frame(floor)
    row = _metric(metric, frame["metric"])
    frame = frame[frame["metric"] == metric].assign(method=lambda rows: rows["method"].fillna("random sets"))
    points = is_points(row.change_format)
    for bound in ("low", "high"):
        frame[bound] *= 100 if points else 1
    scale = alt.X("low:Q", title=row.change_title)
    bars = (
        alt.Chart(frame)
        .mark_bar(color=looks.GREY, height=14, opacity=0.5)
        .encode(x=scale, x2="high:Q", y=alt.Y("method:N", title=None))
    )
    zero = alt.Chart(pd.DataFrame({"low": [0.0]})).mark_rule(color=looks.GREY, strokeWidth=1.5).encode(x=scale)
    return alt.LayerChart(layer=[bars, zero]).properties(height=40 * len(frame) + 40)


def interaction_chart(result: InteractionResult, kind: str = "pairs", most: int = 20) -> alt.LayerChart:
    """The interaction of each pair of heads with its 95% interval, the largest first; or, of the kind `matrix`, all of them
    as a matrix."""
    if kind not in ("pairs", "matrix"):
        raise ReportError(f"Interactions have no picture {kind!r}; choose from pairs, matrix.")
    if kind == "matrix":
        return interaction_matrix(result)
    frame = pairs_frame(result)
    if frame.empty:
        raise ReportError("One head alone has no interaction.")
    named = {f"interaction ({bound})": bound for bound in ("mean", "low", "high")}
    drawn = frame[["pair", *named]].rename(columns=named | {"pair": "kind"})
    drawn = drawn.sort_values("mean", key=lambda mean: -mean.abs()).head(most)
    drawn = drawn.assign(
        low=drawn["low"].fillna(drawn["mean"]), high=drawn["high"].fillna(drawn["mean"]),
        chosen=False, floor_low=math.nan, floor_high=math.nan,
    )  # fmt: skip
    row = METRICS[result.metric]
    return method_charts.changes(drawn, f"interaction: {row.label}{row.per_prediction(', ')}")


def head_chart(found: HeadDescription, metric: str = "loss") -> alt.LayerChart:
    """What changes without the head, by each method."""
    return ablation_chart(found.total_effect, metric)


def summary_chart(summary: NeuronSummary) -> alt.Chart:
    """The neuron's four values on one axis, in standard deviations from its mean."""
    frame = summary_frame(summary).rename(columns={"value of": "kind", "distance_in_std": "value"})
    return method_charts.replaced_values(frame[["kind", "value"]].assign(name="this neuron"))


def statistics_chart(
    statistics: Statistics, select: str | None = None, bins: int = 100, log: bool = False
) -> alt.LayerChart:
    """The map of how far peak and mean lie apart, or of one neuron (`"3.2:5"`) the histogram with its values."""
    shape = statistics_shape(statistics)
    if select is None:
        frame = frames.head_frame(frames.head_distances(statistics, bins), shape, set())
        return head_maps.head_map(frame, "distance between peak and mean, std")
    chosen = Selection.read(select, shape)
    if len(chosen) != 1:
        raise ReportError(f"{select} names {len(chosen):,} neurons; a histogram is of one, such as 3.2:5.")
    ((layer, head), (neuron,)) = chosen.chosen[0]
    bars = frames.histogram_frame(statistics, layer, head, neuron, bins)
    marks = frames.mark_frame(summarise_neuron(statistics, layer, head, neuron, bins), bars)
    return neuron_charts.neuron_histogram(bars, marks, UNIT, log)


def statistics_shape(statistics: Statistics) -> ModelShape:
    """The shape of the model that they were made of, seen in which heads have histograms."""
    counted = ~pd.isna(statistics.low)
    return ModelShape(tuple(int(layer.any(-1).sum()) for layer in counted), statistics.low.shape[-1])


def _metric(name: str, known: Iterable[str]) -> Metric:
    names = [metric for metric in METRICS if metric in set(known)]
    if name not in names:
        raise ReportError(f"The result has no metric {name!r}; choose from {', '.join(names)}.")
    return METRICS[name]


def _one_of(method: str | None, methods: list[str]) -> str:
    if method is None:
        return methods[0]
    if method not in methods:
        raise ReportError(f"The result has no method {method!r}; choose from {', '.join(methods)}.")
    return method


def _size(model: dict) -> tuple[int, int]:
    heads = model["heads"]
    return model["layers"], heads if isinstance(heads, int) else max(heads)
