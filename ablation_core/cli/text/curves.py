"""Pruning curves, and the plan of a reproduction, as text for the terminal."""

import math
from collections.abc import Sequence

from ablation_core.cli.text.phrases import measured_on
from ablation_core.engine.metrics import METRICS, main_metric
from ablation_core.report.sentences import format_interval
from ablation_core.runs.paper import Part
from ablation_core.runs.pruning import PERCENTS
from ablation_core.runs.pruning_result import TABLE_AT, CurveResult
from ablation_core.stats.intervals import Interval


def format_curve(result: CurveResult) -> str:
    """Each metric at the percents that were asked for, and the mean ranks, for each method.

    Of the usual eleven, 50 and 90 per cent are shown.
    """
    document, metrics = result.to_dict(), [METRICS[name] for name in result.metrics]
    percents = document["percents"] if tuple(document["percents"]) != tuple(PERCENTS) else TABLE_AT
    rows = [
        {"percent": percent, "method": method} | {name: result.band(method, name, percent) for name in result.metrics}
        for percent in percents
        for method in document["methods"]
    ]
    width = max(12, *(len(method) for method in document["methods"]))
    lines = [
        measured_on(document) + f", over {len(document['seeds'])} seeds",
        " " * (width + 5) + "   ".join(f"{metric.heading:>26}" for metric in metrics),
    ]
    for row in rows:
        cells = []
        for metric in metrics:
            mean, low, high = (
                format(math.nan if row[metric.name][bound] is None else row[metric.name][bound], metric.format)
                for bound in ("mean", "low", "high")
            )
            cells.append(f"{f'{mean} ({low} to {high})':>26}")
        lines.append(f"{row['percent']:3}% {row['method']:{width}}" + "   ".join(cells))
    if percents is TABLE_AT:
        lines.append("other percents: --json")
    metric = main_metric(result.metrics)
    ranks = document["ranks"][metric.name]
    if ranks["best"] is None:
        return "\n".join(lines)
    order = sorted(ranks["mean_rank"].items(), key=lambda item: item[1])
    lines.append(
        f"mean rank by the curve's mean height in {metric.label}: "
        + ", ".join(f"{method} {rank:.2f}" for method, rank in order)
    )
    if ranks["p"] is not None:
        lines.append(f"Friedman's test of equal ranks over {len(document['seeds'])} seeds: p = {ranks['p']:.3f}")
    side = "above" if metric.worse > 0 else "below"
    for method, gap in ranks["behind"].items():
        if gap["low"] is not None:
            lines.append(
                f"{method} lies {format_interval(Interval(gap['mean'], gap['low'], gap['high']))} nats {side} {ranks['best']}, paired over seeds"
            )
    return "\n".join(lines)


def format_plan(parts: Sequence[Part], speed: float) -> str:
    """What would run, with estimated memory and time."""
    wide, data_wide = (2 + max(28, *map(len, names)) for names in ([p.model for p in parts], [p.data for p in parts]))
    lines = [
        f"{'model':{wide}}{'data':{data_wide}}{'predictions':>12}{'methods':>9}{'passes':>8}{'memory, GiB':>13}{'time':>12}"
    ]
    for part in parts:
        hours = part.seconds(speed) / 3600
        time = f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
        lines.append(
            f"{part.model:{wide}}{part.data:{data_wide}}{part.predictions:12,}{len(part.methods):9}{part.passes:8}"
            f"{part.memory / 2**30:13.1f}{time:>12}"
        )
    lines.append(
        f"3 seeds, 0 to 100% in steps of 10; time at {speed / 1e9:,.0f} GFLOP/s, as measured here; a graphics "
        f"processor at half of 100 TFLOP/s takes {speed / 5e13:.2%} of it."
    )
    return "\n".join(lines)
