"""The exports of the Head map and the Pruning curves page: script, command, charts, tables, report."""

from collections.abc import Callable

import altair as alt
import pandas as pd

from ablation_core.data.uploads import named
from ablation_core.engine.metrics import METRICS
from ablation_core.report import code, export, run_frames
from ablation_core.report.charts import effect_maps, method_charts, run_charts
from ablation_core.report.numbers import is_points
from ablation_core.report.run_frames import HeadEstimates
from ablation_core.report.run_sentences import (
    curve_levels,
    curve_sentence,
    estimate_sentence,
    shown_sentence,
    sweep_sentence,
)
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.server import access
from ablation_core.ui.export_row import Chart, ExportContent


def sweep_exports(
    result: SweepResult,
    method: str,
    metric: str,
    head: str,
    estimates: HeadEstimates,
    neurons: pd.DataFrame,
    adaptive: bool = False,
) -> ExportContent:
    """The map of one method, a head by every method, and whether the methods agree.

    Args:
        neurons: the estimates of single neurons, as `server.head_map.neuron_estimates` makes them.
    """
    described, row = result.description, METRICS[metric]
    title, form = row.change_heading, row.cell_format
    layers, heads = described["model"]["layers"], described["model"]["heads"]
    most_heads = heads if isinstance(heads, int) else max(heads)
    what = f"{described['model']['ref']} without each head by {method}, on {named(described['data']['ref'])}"
    first = sweep_sentence(result, method, metric)

    def heads_frame() -> pd.DataFrame:
        return run_frames.map_frame(result, method, metric, head, estimates)

    def one_head() -> alt.LayerChart:
        return method_charts.changes(run_frames.method_frame(result, head, metric, method), title, is_points(form))

    drawn = {
        f"Every head, {title}, by {method}": Chart(
            lambda: effect_maps.effect_map(heads_frame(), title, row, layers, most_heads),
            f"Map of {what}: {_plain(first)}",
        )
    }
    tables: dict[str, Callable[[], pd.DataFrame]] = {f"Every head, by {method}": lambda: head_table(heads_frame())}
    if len(run_frames.method_frame(result, head, metric, method)):
        words = f"Head {head}, {title}, by every method"
        drawn[words] = Chart(one_head, f"{words}, with 95% intervals; grey bands: the noise floor by each method.")
        tables[f"Head {head}, by every method"] = lambda: run_frames.method_frame(result, head, metric, method).drop(
            columns="chosen"
        )
    agreement = run_frames.agreement_frame(result, metric).dropna(subset="rho")
    if len(agreement) > len(result.methods):
        drawn["Rank agreement of the methods, Spearman"] = Chart(
            lambda: run_charts.agreement_matrix(agreement, result.methods),
            f"Rank correlations of the heads' changes by every two methods, {what}.",
        )
        tables["Rank agreement of the methods"] = lambda: agreement
    exact = run_frames.estimate_frame(result, method, metric, estimates)
    if len(exact):
        drawn["Estimate and exact change, one point per head"] = Chart(
            lambda: run_charts.pair_scatter(exact, "estimate", "exact", title, form),
            f"Instant estimate against exact change of every measured head, {what}.",
        )
    if len(neurons):
        tables[f"Every neuron, estimated, by {method}"] = lambda: neurons
    name = export.file_name("head-map", described["model"]["ref"], method, metric, ending="").rstrip(".")
    findings = [first, estimate_sentence(result, method, metric, estimates), shown_sentence(described)]
    return ExportContent(
        name,
        access.ACCESS.public(code.sweep_script(described, result.methods, adaptive)),
        access.ACCESS.public(code.sweep_command(described, result.methods, adaptive)),
        drawn,
        tables,
        export.run_provenance(described),
        keeps=(result, "pages/head_map.py") if result.rows else None,
    ).with_report(
        what, list(map(_plain, findings)), lambda: {title: make() for title, make in list(tables.items())[:3]}
    )


def head_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The map as a table to read: without coordinates and empty columns."""
    return frame.drop(columns=["layer", "head", "picked"]).rename(columns={"label": "head"}).dropna(axis=1, how="all")


def curve_exports(result: CurveResult, metric: str) -> ExportContent:
    """The curves, the table at 50 and 90%, the ranks, and every point."""
    described, title, form = result.description, METRICS[metric].heading, METRICS[metric].axis_format
    drawn_units = "heads" if described["whole_heads"] else "neurons"
    what = f"{described['model']['ref']} with more and more {drawn_units} removed, on {named(described['data']['ref'])}"
    bands, points = run_frames.curve_frame(result, metric), run_frames.point_frame(result, metric)
    sentence = curve_sentence(result, metric)
    drawn = {
        f"Pruning curves, {title}": Chart(
            lambda: run_charts.pruning_curves(bands, points, title, form, curve_levels(result, metric)),
            f"{title} against the share of {drawn_units} ablated, a line for each method: {_plain(sentence)}",
        )
    }
    ranks = run_frames.rank_frame(result, metric)
    tables = {"With 50 and 90% ablated": lambda: run_frames.table_frame(result, metric)}
    if len(ranks):
        tables[f"Over the whole curve, by {metric}"] = lambda: ranks
    tables |= {"Means over seeds": lambda: bands, "Every point": lambda: points}
    name = export.file_name("pruning", described["model"]["ref"], drawn_units, metric, ending="").rstrip(".")
    findings = [_plain(sentence), shown_sentence(described)]
    return ExportContent(
        name,
        access.ACCESS.public(code.curve_script(described)),
        access.ACCESS.public(code.curve_command(described)),
        drawn,
        tables,
        export.run_provenance(described),
        keeps=(result, "pages/pruning_curves.py") if result.points else None,
    ).with_report(what, findings, lambda: {title: make() for title, make in list(tables.items())[:3]})


def _plain(sentence: str) -> str:
    """Without marks of bold type."""
    return sentence.replace("**", "")
