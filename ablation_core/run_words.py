"""What a sweep and a curve say, in neutral sentences."""

import math

from ablation_core.agreement import rank_agreement
from ablation_core.curve import CurveResult
from ablation_core.run_frames import Estimates, told_heads
from ablation_core.sweep import SweepResult

_UNITS = {"loss": ("the loss", " nats", "+.4f"), "top1": ("top-1", "", "+.2%"), "top10": ("top-10", "", "+.2%")}
_KL = ("the predictions", " nats", ".5f")


def sweep_sentence(result: SweepResult, method: str, metric: str) -> str:
    """How many heads stand out by a method, which most, and what random neurons do."""
    what, unit, form = _UNITS.get(metric, _KL)
    changes = {head: value for head, value in result.changes(method, metric).items() if math.isfinite(value)}
    if not changes:
        return f"No head is measured by {method} yet."
    data, count = result.description["data"], len(result.wanted)
    so_far = "" if len(changes) == count else f" ({len(changes)} measured so far)"
    told = told_heads(result, method, metric)
    rule = "5 % false discoveries over the map" if metric != "kl" else "a KL above every random set's"
    text = (
        f"By {method}, **{len(told)} of {count} heads**{so_far} can be told from no effect on {what} ({rule}), on "
        f"{data['predictions']:,} predictions of {data['ref']}."
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


def estimate_sentence(result: SweepResult, method: str, metric: str, estimates: Estimates) -> str:
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
    form, unit = ("+.4f", " nats") if metric == "loss" else ("+.2%", "")
    text += f"; {nearest} does {gap['mean']:{form}}{unit} more harm"
    if gap["low"] is None:
        return f"{text}. One seed gives no interval."
    apart = "told apart" if gap["low"] > 0 or gap["high"] < 0 else "not told apart"
    return f"{text} (95 % interval {gap['low']:{form}} to {gap['high']:{form}}, paired over seeds): {apart}."
