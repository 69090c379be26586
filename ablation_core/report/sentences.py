"""What a result means, in a neutral sentence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ablation_core.experiments.results import AblationResult, MethodResult

if TYPE_CHECKING:
    from ablation_core.experiments.noise_floor import NoiseFloor
    from ablation_core.stats.intervals import Interval


def verdict(result: AblationResult, method: str, floor: NoiseFloor | None = None) -> str:
    """One method's change of loss in words: its size, its interval, and whether it can be told from no effect."""
    row = next((row for row in result.results if row.method == method), None)
    if row is None:
        return f"{method} needs another input to take activations from, and there is only one."
    change, count = row.change["loss"], f"{result.data['predictions']:,} predictions"
    what = f"Ablating {result.neurons:,} neuron{'s' * (result.neurons != 1)} ({result.select}) by {method}"
    if not result.neurons:
        return "Nothing is selected, so nothing changes."
    if not math.isfinite(change.mean):
        return f"{what} makes predictions that are not numbers any more; no change can be given."
    if change.low is None:
        return (
            f"{what} changes the loss by {change.mean:+.4f} nats on {count}; so few sequences give no interval: "
            f"ask for more predictions."
        )
    span = f"{change.mean:+.4f} nats a prediction (95 % interval {change.low:+.4f} to {change.high:+.4f})"
    if not change.shows_effect:
        return f"{what}: {span}, indistinguishable from no effect at this sample size of {count}."
    word = "raises" if change.mean > 0 else "lowers"
    text = f"{what} {word} the loss by {span}, on {count}."
    if floor is not None and floor.sets == floor.sets_wanted:
        text += (
            f" For scale: {floor.sets} random sets of as many neurons of the same layers, mean-ablated, changed it by "
            f"{floor.low:+.4f} to {floor.high:+.4f}."
        )
    return text


def comparison(result: AblationResult) -> str:
    """Which methods harm least and most here, and whether this sample tells these two apart."""
    rows = [row for row in result.results if math.isfinite(row.change["loss"].mean)]
    between = result.least_to_most
    if len(rows) < len(result.results) or between is None or between.low is None or not result.neurons:
        return ""
    rows.sort(key=lambda row: row.change["loss"].mean)
    text = f"Least harmful here: {rows[0].method} ({_mean(rows[0])}); most: {rows[-1].method} ({_mean(rows[-1])})"
    if not between.shows_effect:
        return f"{text}; this sample does not tell the two apart."
    return f"{text}; paired, they lie {between.low:.4f} to {between.high:.4f} apart."


def harm_split(result: AblationResult, method: str) -> str:
    """How much of a method's harm is lost information and how much displacement, where the best constants were learned."""
    rows = {row.method: row for row in result.results}
    optimal = rows.get("optimal")
    if (
        optimal is None
        or optimal.learning is None
        or not result.neurons
        or not math.isfinite(optimal.change["loss"].mean)
    ):
        return ""
    learning = optimal.learning
    settled = "converged" if learning.converged else "still falling a little when learning ended"
    text = (
        f"The best constants, learned on the statistics part from the {learning.start} ({settled}), still cost "
        f"{optimal.change['loss'].mean:+.4f} nats: the price of the information removed."
    )
    others = [rows[method]] if method != "optimal" and method in rows else list(rows.values())
    for row in others:
        if row.method != "optimal" and row.excess is not None and math.isfinite(row.excess.mean):
            span = "" if row.excess.low is None else f" ({row.excess.low:+.4f} to {row.excess.high:+.4f})"
            text += f" Displacement adds {row.excess.mean:+.4f}{span} by {row.method}."
    return text


def _mean(row: MethodResult) -> str:
    return f"{row.change['loss'].mean:+.4f}"


def format_interval(interval: Interval) -> str:
    if interval.mean is None or not math.isfinite(interval.mean):
        return "not a number"
    if interval.low is None:
        return f"{interval.mean:+.5f} (too few sequences for an interval)"
    return f"{interval.mean:+.5f} [{interval.low:+.5f}, {interval.high:+.5f}]"
