"""Results as text for the terminal."""

import math
from collections import Counter
from collections.abc import Sequence

from ablation_core.experiments.estimate import EstimateResult
from ablation_core.experiments.estimate_validation import EstimateValidation
from ablation_core.experiments.results import AblationResult
from ablation_core.report.sentences import format_interval
from ablation_core.runs.adaptive import AdaptiveResult
from ablation_core.runs.paper import Part
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.runs.sweep import SweepResult
from ablation_core.stats.intervals import Interval


def format_sweep(result: SweepResult) -> str:
    """The heads told from no effect, the most harmful first, for each method."""
    document, lines = result.to_dict(), []
    floors = {floor["method"]: floor for floor in document["noise_floor"]}
    for number, method in enumerate(document["methods"]):
        rows = [(head["head"], head["results"][number]) for head in document["heads"]]
        significant = [row for row in rows if row[1]["told_from_no_effect"]]
        lines.append(f"{method}: {len(significant)} of {len(rows)} heads told from no effect (5 % false discoveries)")
        for head, row in sorted(significant, key=lambda item: -item[1]["change"]["loss"]["mean"])[:10]:
            lines.append(f"  {head:>6}  {format_interval(Interval(**row['change']['loss']))}")
        if floor := floors.get(method):
            low, high = floor["loss"]["low"], floor["loss"]["high"]
            span = "not a number" if low is None or high is None else f"{low:+.5f} to {high:+.5f}"
            lines.append(f"  {floor['sets']} random sets of as many neurons of one layer: {span}")
    for pair in document["agreement"]["loss"]:
        rho = Interval(**pair["spearman"])
        if rho.mean is not None and rho.low is not None:
            names = " and ".join(pair["methods"])
            lines.append(f"rank agreement of {names}: {rho.mean:.2f} [{rho.low:.2f}, {rho.high:.2f}]")
    return "\n".join(lines)


def format_adaptive(result: AdaptiveResult) -> str:
    """How the heads were decided, and those told from no effect, the most harmful first, for each method."""
    lines = [f"{result.looks} of {result.looks_planned} looks, {result.taken:.0%} of a whole sweep's predictions"]
    if result.description["first_order_estimates"]:
        lines[0] += "; first-order estimates carry them over to all sequences"
    for number, method in enumerate(result.description["methods"]):
        rows = [(head["head"], head["results"][number]) for head in result.heads]
        verdicts = Counter(row["verdict"] for _, row in rows)
        counted = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
        lines.append(f"{method}: of {len(rows)} heads {counted} (told from no effect at 5 % false discoveries)")
        significant = [row for row in rows if row[1]["told_from_no_effect"]]
        for head, row in sorted(significant, key=lambda item: -item[1]["change"]["loss"]["mean"])[:10]:
            change = format_interval(Interval(**row["change"]["loss"]))
            lines.append(f"  {head:>6}  {change}  {row['predictions']:,} predictions")
    return "\n".join(lines)


def format_curve(result: CurveResult) -> str:
    """Loss and top-1 at 50 and 90 per cent, and the mean ranks, for each method."""
    document = result.to_dict()
    lines = [f"{'':18}{'loss, nats':>26}   {'top-1':>24}"]
    for row in document["table"]:
        loss, top1 = (
            {bound: math.nan if value is None else value for bound, value in row[metric].items()}
            for metric in ("loss", "top1")
        )
        lines.append(
            f"{row['percent']:3} % {row['method']:12} {loss['mean']:8.4f} ({loss['low']:.4f} to {loss['high']:.4f})   "
            f"{top1['mean']:6.1%} ({top1['low']:.1%} to {top1['high']:.1%})"
        )
    ranks = document["ranks"]["loss"]
    if ranks["best"] is None:
        return "\n".join(lines)
    order = sorted(ranks["mean_rank"].items(), key=lambda item: item[1])
    lines.append(
        "mean rank by the curve's mean height in loss: " + ", ".join(f"{method} {rank:.2f}" for method, rank in order)
    )
    if ranks["p"] is not None:
        lines.append(f"Friedman's test of equal ranks over {len(document['seeds'])} seeds: p = {ranks['p']:.3f}")
    for method, gap in ranks["behind"].items():
        if gap["low"] is not None:
            lines.append(
                f"{method} lies {format_interval(Interval(gap['mean'], gap['low'], gap['high']))} nats above {ranks['best']}, paired over seeds"
            )
    return "\n".join(lines)


def format_plan(parts: Sequence[Part], speed: float) -> str:
    """What would run, with estimated memory and time."""
    lines = [f"{'model':30}{'data':22}{'predictions':>12}{'methods':>9}{'passes':>8}{'memory, GiB':>13}{'time':>12}"]
    for part in parts:
        hours = part.seconds(speed) / 3600
        time = f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
        lines.append(
            f"{part.model:30}{part.data:22}{part.predictions:12,}{len(part.methods):9}{part.passes:8}"
            f"{part.memory / 2**30:13.1f}{time:>12}"
        )
    lines.append(
        f"3 seeds, 0 to 100 % in steps of 10; time at {speed / 1e9:,.0f} GFLOP/s, as measured here; a graphics "
        f"processor at half of 100 TFLOP/s takes {speed / 5e13:.2%} of it."
    )
    return "\n".join(lines)


def format_result(result: AblationResult) -> str:
    """A result as a table for the terminal."""
    baseline = result.baseline
    verified = "" if result.model["verified"] else " (found by running it)"
    lines = [
        f"{result.model['ref']}{verified} on {result.data['predictions']:,} predictions of {result.data['ref']}: "
        f"{result.neurons} neurons ablated ({result.select or 'none'})",
        f"{'':18}{'loss, nats':>11} {'perplexity':>11} {'top-1':>7} {'top-10':>7} {'KL, nats':>9}   "
        f"change of loss, 95 % interval",
        f"{'baseline':18}{baseline.loss:11.4f} {baseline.perplexity:11.2f} {baseline.top1:7.1%} {baseline.top10:7.1%}",
    ]
    for row in result.results:
        p = row.performance
        lines.append(
            f"{row.method:18}{p.loss:11.4f} {p.perplexity:11.2f} {p.top1:7.1%} {p.top10:7.1%} {p.kl:9.5f}   "
            f"{format_interval(row.change['loss'])}"
        )
    return "\n".join(lines)


def format_estimate(result: EstimateResult, calibration: EstimateValidation | None = None) -> str:
    """The heads of the greatest estimated harm for each method, beside the exact values of those that were ablated."""
    data = result.description["data"]
    lines = [
        f"{result.description['model']['ref']} on {data['predictions']:,} predictions of {data['ref']}: estimates of second "
        f"order in nats, ± their standard error over {data['sequences']:,} sequences"
    ]
    for method in result.methods:
        exact = calibration.exact[method.method] if calibration else {}
        lines.append(
            f"{method.method + ', head':26}{'change of loss':>22}{'KL':>22}" + "   exact: loss, KL" * bool(exact)
        )
        for head in method.largest(max(10, len(exact))):
            values = [f"{part.heads[head]:+.5f} ± {part.heads_error[head]:.5f}" for part in (method.loss, method.kl)]
            name = f"{head[0]}.{head[1]}"
            measured = f"   {exact[head]['loss']:+.5f}, {exact[head]['kl']:.5f}" if head in exact else ""
            lines.append(f"{name:>26}{values[0]:>22}{values[1]:>22}{measured}")
        if calibration is None or not exact:
            continue
        for quantity, words in (("loss", "change of loss"), ("kl", "KL")):
            found = calibration.agreements[method.method][quantity]
            top = "" if found.top is None else f", {found.top} of the first 10 the same"
            lines.append(
                f"  {words} against exact values of {found.heads} heads: rank correlation {found.spearman:.2f}, "
                f"slope {found.slope:.2f}, median ratio {found.ratio:.2f}{top}"
            )
    return "\n".join(lines)
