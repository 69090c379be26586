"""What a sweep and a curve say, in neutral sentences."""

import math
from collections import Counter

from ablation_core.data.uploads import named
from ablation_core.engine.metrics import METRICS
from ablation_core.report.numbers import amount, number, sample_of, span_text
from ablation_core.report.run_frames import HeadEstimates, significant_heads
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.stats.correlation import rank_agreement


def sweep_sentence(result: SweepResult, method: str, metric: str) -> str:
    """How many heads have a significant effect with a method, which has the largest, and what random neurons do."""
    row = METRICS[metric]
    what, form = row.noun, row.change_format
    unit = f" {row.unit}" if row.unit else ""
    changes = {head: value for head, value in result.changes(method, metric).items() if math.isfinite(value)}
    if not changes:
        return f"No head has been measured with {method} yet."
    data, count = result.description["data"], len(result.wanted)
    so_far = "" if len(changes) == count else f" ({len(changes)} measured so far)"
    significant = significant_heads(result, method, metric)
    rule = "FDR 5%" if row.tested else f"a {row.label} above every random set's"
    most_taken = "at most " if "looks_after_sequences" in result.description else ""
    text = (
        f"With {method}, **{len(significant)} of {count} heads**{so_far} have a significant effect on {what} ({rule}), on "
        f"{most_taken}{sample_of(result.description['model'], data)} of {named(data['ref'])}."
    )
    most = max(changes, key=lambda head: abs(changes[head]))
    kept = result.rows[most][method]["change"][metric]
    span = "" if kept["low"] is None else f" (95% interval {span_text(kept['low'], kept['high'], form)})"
    text += f" Largest change: head {most}, {number(changes[most], form)}{unit}{span}."
    if floor := result.floor(method, metric):
        low, high, sets = floor
        beyond = sum(not low <= value <= high for value in changes.values())
        text += (
            f" Noise floor, {sets} random sets of as many neurons from one layer: {span_text(low, high, form)}{unit}; "
            f"{beyond} head{'s' * (beyond != 1)} exceed{'s' * (beyond == 1)} it."
        )
    return text


def shown_sentence(described: dict) -> str:
    """What a run is of: model, data, statistics, settings."""
    data, made, positions = described["data"], described["statistics"], described.get("positions", "all")
    windows = f" of {data['seq_len']} tokens" if data["seq_len"] else ""
    sample = sample_of(described["model"], data)
    counted = f", {data['sequences']:,} windows{windows}" if sample.endswith("predictions") else windows
    text = (
        f"Shown: {described['model']['ref']} on {sample} of {named(data['ref'])} ({data['split']} part){counted}, "
        f"seed {data['seed']}"
    ) + (f", ablated at positions {positions}" if positions != "all" else "")
    if made is None:
        return f"{text}."
    return (
        f"{text}; replacement values from {made['tokens']:,} positions of {named(made['data'])} (statistics {made['digest'][:8]}), "
        f"{described['bins']} bins for the peak."
    )


def adaptive_sentence(result: SweepResult, method: str) -> str:
    """What an adaptive sweep has found for each head with a method, and on how few predictions."""
    rows = [result.rows[head][method] for head in result.wanted if method in result.rows.get(head, {})]
    counted = Counter(row["verdict"] for row in rows)
    parts = [f"{counted[verdict]} {words}" for verdict, words in _VERDICTS.items() if counted[verdict]]
    if open_ones := len(result.wanted) - len(rows) + counted["open"]:
        parts.append(f"{open_ones} undecided so far")
    guided = ", extended to all sequences by first-order estimates"
    return (
        f"Adaptive, with {result.share:.0%} of a full sweep's predictions"
        f"{guided if result.description.get('first_order_estimates') else ''}: "
        f"of {len(result.wanted)} heads {', '.join(parts)}."
    )


_VERDICTS = {
    "told": "significant",
    "small": "certainly small",
    "unlikely": "stopped for futility",
    "not told": "not significant",
    "no number": "NaN or infinite",
}


def estimate_sentence(result: SweepResult, method: str, metric: str, estimates: HeadEstimates) -> str:
    """How well the instant estimate ranks the measured heads."""
    if not estimates:
        return ""
    exact = result.changes(method, metric)
    both = [head for head in exact if head in estimates]
    rho = rank_agreement([exact[head] for head in both], [estimates[head][0] for head in both])
    if not math.isfinite(rho.mean):
        return f"{len(estimates) - len(both)} heads show an instant estimate so far."
    span = "" if rho.low is None or rho.high is None else f" (95% interval {span_text(rho.low, rho.high, '.2f')})"
    return (
        f"On {len(both)} measured heads, the rank correlation between the instant estimate and the exact change is "
        f"{number(rho.mean, '.2f')}{span}."
    )


def curve_levels(result: CurveResult, metric: str) -> dict[str, float]:
    """The clean model's level and the level of guessing at random among the model's classes or tokens, by their labels."""
    classes = result.description["classes"]
    row = METRICS[metric]
    found: dict[str, float] = {}
    if row.chance is not None:
        chance = row.chance(classes)
        found[f"chance: 1 of {classes:,}, {chance:{row.change_format.lstrip('+')}}"] = chance
    if result.baseline is not None and (level := result.baseline.get(metric)) is not None:
        found[f"baseline {level:{row.axis_format}}"] = level
    return found


def curve_sentence(result: CurveResult, metric: str) -> str:
    """Which method ranks first over the whole curve, and whether it is significantly better than the next."""
    ranks, described = result.ranks(metric), result.description
    seeds, methods = described["seeds"], described["methods"]
    if ranks["best"] is None:
        wanted = len(seeds) * len(described["percents"]) * len(methods)
        done = sum(method in rows for rows in result.points.values() for method in methods)
        return f"{done} of {wanted} points measured so far; ranks follow once all are."
    if len(methods) == 1:
        return ""
    best, order = ranks["best"], sorted(ranks["mean_rank"], key=ranks["mean_rank"].get)
    text = f"Smallest damage over the whole curve: **{best}** (mean rank {ranks['mean_rank'][best]:.2f} over {len(seeds)} seeds)"
    gaps = {method: ranks["behind"][method] for method in order if method != best}
    nearest = min(gaps, key=lambda method: math.inf if gaps[method]["mean"] is None else gaps[method]["mean"])
    gap = gaps[nearest]
    if gap["mean"] is None:
        return f"{text}."
    row = METRICS[metric]
    form, unit = row.change_format, f" {row.unit}" if row.unit else ""
    text += f"; {nearest} does {amount(gap['mean'], form)}{unit} more"
    if gap["low"] is None:
        return f"{text}. With one seed there is no interval."
    distance = "significant" if gap["low"] > 0 or gap["high"] < 0 else "not significant"
    return f"{text} (95% interval {span_text(gap['low'], gap['high'], form)}, paired over seeds): {distance}."
