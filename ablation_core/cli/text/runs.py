"""Runs over heads and positions as text for the terminal."""

import math
from collections import Counter
from collections.abc import Sequence

from ablation_core.cli.text.phrases import MOST_HEADS, change_of, counted_sequences, measured_on
from ablation_core.engine.metrics import Metric, main_metric
from ablation_core.report.numbers import sample_of
from ablation_core.report.sentences import format_interval
from ablation_core.runs.adaptive import AdaptiveResult
from ablation_core.runs.comparison_result import ComparisonResult
from ablation_core.runs.maps.position_map import PositionMapResult
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.stats.intervals import Interval


def format_sweep(result: SweepResult) -> str:
    """What was measured, and the heads with a significant change, the most harmful first, for each method.

    The change is that of the loss; of a task, that of its logit difference.
    """
    document, metric = result.to_dict(), main_metric(result.metrics)
    lines = [measured_on(document) + f": {change_of(metric)}, 95% intervals"]
    floors = {floor["method"]: floor for floor in document["noise_floor"]}
    for number, method in enumerate(document["methods"]):
        rows = [(head["head"], head["results"][number]) for head in document["heads"]]
        judged = [(head, row, row["p_values"].get(metric.name)) for head, row in rows]
        lines += _significant_heads(method, judged, result.significant(method, metric.name), metric, document)
        if floor := floors.get(method):
            low, high = floor[metric.name]["low"], floor[metric.name]["high"]
            span = "not a number" if low is None or high is None else f"{low:+.5f} to {high:+.5f}"
            lines.append(f"  {floor['sets']} random sets of as many neurons of one layer: {span}")
    for pair in document["agreement"][metric.name]:
        rho = Interval(**pair["spearman"])
        if rho.mean is not None and rho.low is not None:
            names = " and ".join(pair["methods"])
            lines.append(f"rank agreement of {names}: {rho.mean:.2f} [{rho.low:.2f}, {rho.high:.2f}]")
    return "\n".join(lines)


def format_adaptive(result: AdaptiveResult) -> str:
    """How the heads were decided, and the significant ones, the most harmful first, for each method."""
    metric = result.metric
    lines = [f"{result.looks} of {result.looks_planned} looks, {result.taken:.0%} of a whole sweep's predictions"]
    if result.description["first_order_estimates"]:
        lines[-1] += "; first-order estimates carry them over to all sequences"
    lines.insert(0, f"{measured_on(result.description)}: {change_of(metric)}")
    for number, method in enumerate(result.description["methods"]):
        rows = [(head["head"], head["results"][number]) for head in result.heads]
        verdicts = Counter(row["verdict"] for _, row in rows)
        counted = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
        judged = [(head, row, row["p"]) for head, row in rows]
        found = {head for head, row in rows if row["told_from_no_effect"]}
        first, *rest = _significant_heads(method, judged, found, metric, result.description)
        lines += [f"{first}; verdicts: {counted}", *rest]
    return "\n".join(lines)


def _significant_heads(
    method: str, rows: Sequence[tuple[str, dict, float | None]], found: set[str], metric: Metric, document: dict
) -> list[str]:
    """One method's heads; that no test was possible is not that nothing was found.

    Args:
        rows: each head with its row and its p-value.
        found: the heads with a significant change.
    """
    if rows and all(p is None for _, _, p in rows):
        return [
            f"{method}: no test was possible over {counted_sequences(document['data'])}, so that nothing is said of its "
            f"{len(rows)} heads; raise --predictions, or shorten --seq-len."
        ]
    significant = [(head, row) for head, row, _ in rows if head in found]
    untested = sum(p is None for _, _, p in rows)
    lines = [
        f"{method}: {len(significant)} of {len(rows)} heads significant (FDR 5%)"
        + (f"; {untested} could not be tested" if untested else "")
    ]
    ordered = sorted(significant, key=lambda item: -metric.worse * item[1]["change"][metric.name]["mean"])
    width = max((len(head) for head, _ in ordered), default=0)
    for head, row in ordered[:MOST_HEADS]:
        taken = f"  {row['predictions']:,} predictions" if "predictions" in row else ""
        lines.append(f"  {head:>{max(6, width)}}  {format_interval(Interval(**row['change'][metric.name]))}{taken}")
    if more := len(ordered) - MOST_HEADS:
        lines += [f"  {more} more: --json"] if more > 0 else []
    return lines


def format_position_map(result: PositionMapResult) -> str:
    """The cells with a significant change, the most harmful first, for each method."""
    metric = main_metric(result.metrics)
    lines = [
        f"{measured_on(result.description)}: change of {metric.label} without each of {len(result.rows)} heads or layers at "
        f"one of {len(result.positions)} positions, in nats per prediction, 95% intervals"
    ]
    for method in result.methods:
        changes, found = result.changes(method, metric.name), result.significant(method, metric.name)
        lines.append(f"{method}: {len(found)} of {len(changes)} cells significant (FDR 5%)")
        ordered = sorted(found, key=lambda cell: -metric.worse * changes[cell])
        for row, position in ordered[:MOST_HEADS]:
            change = Interval(**result.row_of((row, position), method)["change"][metric.name])
            lines.append(f"  {row:>6} at position {position:>4}  {format_interval(change)}")
        if (more := len(ordered) - MOST_HEADS) > 0:
            lines.append(f"  {more} more: --json")
    return "\n".join(lines)


def format_comparison(result: ComparisonResult) -> str:
    """The heads whose change differs between the two sides, the greatest difference first.

    The change is that of the loss; of two tasks, that of their logit difference.
    """
    (one, other), metric = result.names, main_metric(result.metrics)
    data = " and ".join(
        dict.fromkeys(f"{sample_of(side['model'], side['data'])} of {side['data']['ref']}" for side in result.sides)
    )
    found = sorted(
        (head for head in result.heads if head.significant(metric.name)),
        key=lambda head: -abs(head.difference[metric.name].mean),
    )
    tested = [head for head in result.heads if head.q.get(metric.name) is not None]
    models = " and ".join(dict.fromkeys(side["model"]["ref"] for side in result.sides))
    lines = [
        f"{models} on {data}: change of {metric.label} without each head by {result.method}, in nats per prediction, 95% "
        f"intervals",
        f"{len(found)} of {len(result.heads)} heads change {one} and {other} by significantly different amounts (FDR 5%)"
        if tested
        else "no test was possible over so few sequences; raise --predictions, or shorten --seq-len.",
    ]
    for head in found[:MOST_HEADS]:
        changes = (f"{side[metric.name].mean:+.5f}" for side in head.changes)
        difference = format_interval(head.difference[metric.name])
        lines.append(f"  {head.head:>6}  {' → '.join(changes)}   difference {difference}")
    if (more := len(found) - MOST_HEADS) > 0:
        lines.append(f"  {more} more: --json")
    rho = result.agreement(metric.name)
    if math.isfinite(rho.mean):
        span = "" if rho.low is None else f" [{rho.low:.2f}, {rho.high:.2f}]"
        lines.append(f"rank agreement of the two: {rho.mean:.2f}{span}")
    return "\n".join(lines)
