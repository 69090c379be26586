"""Results as text for the terminal."""

import math
from collections import Counter
from collections.abc import Sequence

from ablation_core.engine.metrics import METRICS, Metric, main_metric, metrics_in
from ablation_core.experiments.estimate import EstimateResult
from ablation_core.experiments.estimate_validation import TOP, EstimateValidation
from ablation_core.experiments.interactions import InteractionResult
from ablation_core.experiments.results import AblationResult, Performance
from ablation_core.report.sentences import format_interval
from ablation_core.report.tasks.harm import harm_sentence, mean_changes
from ablation_core.runs.adaptive import AdaptiveResult
from ablation_core.runs.comparison_result import ComparisonResult
from ablation_core.runs.maps.position_map import PositionMapResult
from ablation_core.runs.paper import Part
from ablation_core.runs.pruning import PERCENTS
from ablation_core.runs.pruning_result import TABLE_AT, CurveResult
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.stats.intervals import Interval

MOST_HEADS = 10  # shown for each method; all are in the JSON document


def format_sweep(result: SweepResult) -> str:
    """What was measured, and the heads with a significant change, the most harmful first, for each method.

    The change is that of the loss; of a task, that of its logit difference.
    """
    document, metric = result.to_dict(), main_metric(result.metrics)
    lines = [_measured_on(document) + f": {_change_of(metric)}, 95 % intervals"]
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


def _measured_on(document: dict) -> str:
    """The model and the data of a document, as a sentence's beginning."""
    data, positions = document["data"], document.get("positions", "all")
    counted = f"{data['predictions']:,} predictions ({_sequences(data)}) of {data['ref']}"
    return f"{document['model']['ref']} on {counted}" + (f", at positions {positions}" if positions != "all" else "")


def _sequences(data: dict) -> str:
    return f"{data['sequences']:,} sequence{'s' * (data['sequences'] != 1)}"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _change_of(metric: Metric) -> str:
    return f"change of {metric.label} without each head, in nats per prediction"


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
            f"{method}: no test was possible over {_sequences(document['data'])}, so that nothing is said of its "
            f"{len(rows)} heads; raise --predictions, or shorten --seq-len."
        ]
    significant = [(head, row) for head, row, _ in rows if head in found]
    untested = sum(p is None for _, _, p in rows)
    lines = [
        f"{method}: {len(significant)} of {len(rows)} heads significant (FDR 5 %)"
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
        f"{_measured_on(result.description)}: change of {metric.label} without each of {len(result.rows)} heads or layers at "
        f"one of {len(result.positions)} positions, in nats per prediction, 95 % intervals"
    ]
    for method in result.methods:
        changes, found = result.changes(method, metric.name), result.significant(method, metric.name)
        lines.append(f"{method}: {len(found)} of {len(changes)} cells significant (FDR 5 %)")
        ordered = sorted(found, key=lambda cell: -metric.worse * changes[cell])
        for row, position in ordered[:MOST_HEADS]:
            change = Interval(**result.row_of((row, position), method)["change"][metric.name])
            lines.append(f"  {row:>6} at position {position:>4}  {format_interval(change)}")
        if (more := len(ordered) - MOST_HEADS) > 0:
            lines.append(f"  {more} more: --json")
    return "\n".join(lines)


def format_adaptive(result: AdaptiveResult) -> str:
    """How the heads were decided, and the significant ones, the most harmful first, for each method."""
    metric = result.metric
    lines = [f"{result.looks} of {result.looks_planned} looks, {result.taken:.0%} of a whole sweep's predictions"]
    if result.description["first_order_estimates"]:
        lines[-1] += "; first-order estimates carry them over to all sequences"
    lines.insert(0, f"{_measured_on(result.description)}: {_change_of(metric)}")
    for number, method in enumerate(result.description["methods"]):
        rows = [(head["head"], head["results"][number]) for head in result.heads]
        verdicts = Counter(row["verdict"] for _, row in rows)
        counted = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
        judged = [(head, row, row["p"]) for head, row in rows]
        found = {head for head, row in rows if row["told_from_no_effect"]}
        first, *rest = _significant_heads(method, judged, found, metric, result.description)
        lines += [f"{first}; verdicts: {counted}", *rest]
    return "\n".join(lines)


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
        _measured_on(document) + f", over {len(document['seeds'])} seeds",
        " " * (width + 6) + "   ".join(f"{metric.heading:>26}" for metric in metrics),
    ]
    for row in rows:
        cells = []
        for metric in metrics:
            mean, low, high = (
                format(math.nan if row[metric.name][bound] is None else row[metric.name][bound], metric.format)
                for bound in ("mean", "low", "high")
            )
            cells.append(f"{f'{mean} ({low} to {high})':>26}")
        lines.append(f"{row['percent']:3} % {row['method']:{width}}" + "   ".join(cells))
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
        f"3 seeds, 0 to 100 % in steps of 10; time at {speed / 1e9:,.0f} GFLOP/s, as measured here; a graphics "
        f"processor at half of 100 TFLOP/s takes {speed / 5e13:.2%} of it."
    )
    return "\n".join(lines)


def format_result(result: AblationResult) -> str:
    """A result as a table for the terminal."""
    metrics = metrics_in(result.baseline.means)
    headings = [words for metric in metrics for words in (metric.heading, *(one.label for one in metric.derived))]
    widths = [max(len(words), 6) + 1 for words in headings]

    def cells(performance: Performance, divergences: bool = True) -> str:
        """A performance's figures under their headings."""
        texts = []
        for metric in metrics:
            value = performance[metric.name]
            texts.append(f"{value:{metric.format}}" if divergences or not metric.divergence else "")
            texts += [f"{one.function(value):{one.format}}" for one in metric.derived]
        return " ".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))

    column = max(18, *(len(row.method) + 1 for row in result.results), 0)
    verified = "" if result.model["verified"] else " (found by running it)"
    lines = [
        f"{result.model['ref']}{verified} on {result.data['predictions']:,} predictions of {result.data['ref']}: "
        f"{result.neurons} neurons ablated ({result.select or 'none'})",
        " " * column
        + " ".join(f"{words:>{width}}" for words, width in zip(headings, widths, strict=True))
        + "   change of loss, 95 % interval",
        f"{'baseline':{column}}{cells(result.baseline, divergences=False)}".rstrip(),
    ]
    for row in result.results:
        lines.append(f"{row.method:{column}}{cells(row.performance)}   {format_interval(row.change['loss'])}")
    changes, metric = mean_changes(result)
    sentences = [harm_sentence(changes, row.method, metric) for row in result.results]
    lines += [sentence.replace("\N{MINUS SIGN}", "-") for sentence in sentences if sentence]
    return "\n".join(lines)


def format_estimate(result: EstimateResult, calibration: EstimateValidation | None = None) -> str:
    """The heads of the greatest estimated harm for each method, beside the exact values of those that were ablated."""
    data = result.description["data"]
    lines = [
        f"{result.description['model']['ref']} on {data['predictions']:,} predictions of {data['ref']}: estimates of second "
        f"order in nats, ± their standard error over {_sequences(data)}"
    ]
    for method in result.methods:
        exact, metrics = calibration.exact[method.method] if calibration else {}, metrics_in(method.changes)
        words = {metric.name: metric.label if metric.divergence else f"change of {metric.label}" for metric in metrics}
        labels = ", ".join(metric.label for metric in metrics)
        width = max(22, *(len(one) + 2 for one in words.values()))
        columns = "".join(f"{one:>{width}}" for one in words.values())
        lines.append(f"{method.method + ', head':26}{columns}" + f"   exact: {labels}" * bool(exact))
        for head in method.largest(max(10, len(exact))):
            parts = [method[metric.name] for metric in metrics]
            values = [f"{part.heads[head]:+.5f} ± {part.heads_error[head]:.5f}" for part in parts]
            name = f"{head[0]}.{head[1]}"
            found = (
                [f"{exact[head][m.name]:{'' if m.divergence else '+'}.5f}" for m in metrics] if head in exact else []
            )
            measured = f"   {', '.join(found)}" if found else ""
            lines.append(f"{name:>26}{''.join(f'{value:>{width}}' for value in values)}{measured}")
        if calibration is None or not exact:
            continue
        for metric in metrics:
            compared = calibration.agreements[method.method][metric.name]
            top = (
                ""
                if compared.top is None
                else f", {compared.top} of the first {TOP} the same (by chance {compared.top_by_chance:.1f})"
            )
            lines.append(
                f"  {words[metric.name]} against exact values of {compared.heads} heads: rank correlation "
                f"{compared.spearman:.2f}, slope {compared.slope:.2f}, median ratio {compared.ratio:.2f}{top}"
            )
    return "\n".join(lines)


def format_interactions(result: InteractionResult) -> str:
    """Each head alone, every pair, and what the pairs do beyond their heads."""
    described = result.description
    lines = [
        f"{described['model']['ref']} on {described['data']['predictions']:,} predictions of {described['data']['ref']}, by "
        f"{result.method}: change of loss in nats per prediction, 95 % interval",
    ]
    lines += [f"{head:>16}  {format_interval(change)}" for head, change in result.singles.items()]
    lines.append(
        f"{'all together':>16}  {format_interval(result.joint)}; beyond the sum {format_interval(result.excess)}"
    )
    lines.append("interaction: the change of both minus both single changes")
    for pair in result.pairs:
        q = "" if pair.q is None else f"  q = {pair.q:.3f}"
        lines.append(f"{' and '.join(pair.pair):>16}  {format_interval(pair.interaction)}{q}  {pair.verdict}")
    return "\n".join(lines)


def format_comparison(result: ComparisonResult) -> str:
    """The heads whose change differs between the two sides, the greatest difference first."""
    one, other = result.names
    data = " and ".join(
        dict.fromkeys(f"{side['data']['predictions']:,} predictions of {side['data']['ref']}" for side in result.sides)
    )
    found = sorted(
        (head for head in result.heads if head.significant()), key=lambda head: -abs(head.difference["loss"].mean)
    )
    tested = [head for head in result.heads if head.q.get("loss") is not None]
    models = " and ".join(dict.fromkeys(side["model"]["ref"] for side in result.sides))
    lines = [
        f"{models} on {data}: change of loss without each head by {result.method}, in nats per prediction, 95 % intervals",
        f"{len(found)} of {len(result.heads)} heads change {one} and {other} by significantly different amounts (FDR 5 %)"
        if tested
        else "no test was possible over so few sequences; raise --predictions, or shorten --seq-len.",
    ]
    for head in found[:MOST_HEADS]:
        changes = (f"{side['loss'].mean:+.5f}" for side in head.changes)
        lines.append(f"  {head.head:>6}  {' → '.join(changes)}   difference {format_interval(head.difference['loss'])}")
    if (more := len(found) - MOST_HEADS) > 0:
        lines.append(f"  {more} more: --json")
    rho = result.agreement("loss")
    if math.isfinite(rho.mean):
        span = "" if rho.low is None else f" [{rho.low:.2f}, {rho.high:.2f}]"
        lines.append(f"rank agreement of the two: {rho.mean:.2f}{span}")
    return "\n".join(lines)
