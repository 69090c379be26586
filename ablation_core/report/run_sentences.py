"""What a sweep and a curve say, in neutral sentences."""

import math
from collections import Counter

from ablation_core.engine.metrics import METRICS
from ablation_core.report.run_frames import HeadEstimates, significant_heads
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.runs.sweep import SweepResult
from ablation_core.stats.correlation import rank_agreement


def sweep_sentence(result: SweepResult, method: str, metric: str) -> str:
    """How many heads stand out by a method, which most, and what random neurons do."""
    row = METRICS[metric]
    unit, form = f" {row.unit}" if row.unit else "", row.change_format
    changes = {head: value for head, value in result.changes(method, metric).items() if math.isfinite(value)}
    if not changes:
        return f"No head is measured by {method} yet."
    data, count = result.description["data"], len(result.wanted)
    so_far = "" if len(changes) == count else f" ({len(changes)} measured so far)"
    significant = significant_heads(result, method, metric)
    rule = "5 % false discoveries over the map" if row.tested else f"a {row.label} above every random set's"
    most_taken = "at most " if "looks_after_sequences" in result.description else ""
    text = (
        f"By {method}, **{len(significant)} of {count} heads**{so_far} can be told from no effect on {row.noun} ({rule}), on "
        f"{most_taken}{data['predictions']:,} predictions of {data['ref']}."
    )
    most = max(changes, key=lambda head: abs(changes[head]))
    kept = result.rows[most][method]["change"][metric]
    span = "" if kept["low"] is None else f" (95 % interval {kept['low']:{form}} to {kept['high']:{form}})"
    text += f" Largest: head {most}, {changes[most]:{form}}{unit}{span}."
    if floor := result.floor(method, metric):
        low, high, sets = floor
        beyond = sum(not low <= value <= high for value in changes.values())
        text += (
            f" {sets} random sets of as many neurons of one layer: {low:{form}} to {high:{form}}{unit}; "
            f"{beyond} head{'s' * (beyond != 1)} lie{'s' * (beyond == 1)} beyond."
        )
    return text


def shown_sentence(described: dict) -> str:
    """What a run is of: model, data, statistics, settings."""
    data, made = described["data"], described["statistics"]
    windows = f" of {data['seq_len']} tokens" if data["seq_len"] else ""
    text = (
        f"Shown: {described['model']['ref']} on {data['predictions']:,} predictions of {data['ref']} ({data['split']} "
        f"part), {data['sequences']:,} {'windows' if data['seq_len'] else 'images'}{windows}, seed {data['seed']}"
    )
    if made is None:
        return f"{text}."
    return (
        f"{text}; values from {made['tokens']:,} positions of {made['data']} (statistics {made['digest'][:8]}), "
        f"{described['bins']} bins for the peak."
    )


def adaptive_sentence(result: SweepResult, method: str) -> str:
    """How an adaptive sweep has decided the heads by a method, and on how few predictions."""
    rows = [result.rows[head][method] for head in result.wanted if method in result.rows.get(head, {})]
    counted = Counter(row["verdict"] for row in rows)
    parts = [f"{counted[verdict]} {words}" for verdict, words in _VERDICTS.items() if counted[verdict]]
    if open_ones := len(result.wanted) - len(rows) + counted["open"]:
        parts.append(f"{open_ones} not decided yet")
    guided = ", carried over to all sequences by first-order estimates of each"
    return (
        f"Adaptive, with {result.share:.0%} of a whole sweep's predictions"
        f"{guided if result.description.get('first_order_estimates') else ''}: "
        f"of {len(result.wanted)} heads {', '.join(parts)}."
    )


_VERDICTS = {
    "told": "told from no effect",
    "small": "surely small",
    "unlikely": "given up, since all predictions would hardly tell them",
    "not told": "not told, which more predictions would hardly change",
    "no number": "without a number",
}


def estimate_sentence(result: SweepResult, method: str, metric: str, estimates: HeadEstimates) -> str:
    """How far the instant estimate and the exact values order the measured heads alike."""
    if not estimates:
        return ""
    exact = result.changes(method, metric)
    both = [head for head in exact if head in estimates]
    rho = rank_agreement([exact[head] for head in both], [estimates[head][0] for head in both])
    if not math.isfinite(rho.mean):
        return f"{len(estimates) - len(both)} heads show an instant estimate."
    span = "" if rho.low is None else f" (95 % interval {rho.low:.2f} to {rho.high:.2f})"
    return (
        f"On {len(both)} heads the instant estimate orders them like the exact change with a rank correlation of "
        f"{rho.mean:.2f}{span}."
    )


def curve_levels(result: CurveResult, metric: str) -> dict[str, float]:
    """The clean model's height, and that of guessing blindly among the model's classes or tokens, by their words."""
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
    """Which method ranks first over the whole curve, and whether the seeds tell it from the next."""
    ranks, described = result.ranks(metric), result.description
    seeds, methods = described["seeds"], described["methods"]
    if ranks["best"] is None:
        wanted = len(seeds) * len(described["percents"]) * len(methods)
        done = sum(method in rows for rows in result.points.values() for method in methods)
        return f"{done} of {wanted} points measured so far; ranks follow once all are."
    if len(methods) == 1:
        return ""
    best, order = ranks["best"], sorted(ranks["mean_rank"], key=ranks["mean_rank"].get)
    text = f"Least harmful over the whole curve: **{best}** (mean rank {ranks['mean_rank'][best]:.2f} over {len(seeds)} seeds)"
    gaps = {method: ranks["behind"][method] for method in order if method != best}
    nearest = min(gaps, key=lambda method: math.inf if gaps[method]["mean"] is None else gaps[method]["mean"])
    gap = gaps[nearest]
    if gap["mean"] is None:
        return f"{text}."
    row = METRICS[metric]
    form, unit = row.change_format, f" {row.unit}" if row.unit else ""
    text += f"; {nearest} does {gap['mean']:{form}}{unit} more harm"
    if gap["low"] is None:
        return f"{text}. One seed gives no interval."
    distance = "told apart" if gap["low"] > 0 or gap["high"] < 0 else "not told apart"
    return f"{text} (95 % interval {gap['low']:{form}} to {gap['high']:{form}}, paired over seeds): {distance}."
