"""What a result means, in a neutral sentence."""

import math

from ablation_core.experiment import AblationResult, MethodResult
from ablation_core.noise import NoiseFloor


def verdict(result: AblationResult, method: str, floor: NoiseFloor | None = None) -> str:
    """One method's change of loss in words: its size, its interval, and whether it can be told from no effect."""
    row = next(row for row in result.results if row.method == method)
    change, count = row.change["loss"], f"{result.data['predictions']:,} predictions"
    what = f"Ablating {result.neurons:,} neuron{'s' * (result.neurons != 1)} ({result.select}) by {method}"
    if not result.neurons:
        return "Nothing is selected, so nothing changes."
    if not math.isfinite(change.mean):
        return f"{what} makes predictions that are not numbers any more; no change can be given."
    if change.low is None:
        return f"{what} changes the loss by {change.mean:+.4f} nats; a single sequence gives no interval."
    span = f"{change.mean:+.4f} nats a prediction (95 % interval {change.low:+.4f} to {change.high:+.4f})"
    if not change.shows_effect:
        return f"{what}: {span}, indistinguishable from no effect at this sample size of {count}."
    word = "raises" if change.mean > 0 else "lowers"
    text = f"{what} {word} the loss by {span}, on {count}."
    if floor is not None and floor.sets == floor.sets_wanted:
        inside = floor.low <= change.mean <= floor.high
        where = "no more than" if inside else "unlike"
        text += (
            f" That is {where} what {floor.sets} random sets of as many neurons of the same layers did "
            f"({floor.low:+.4f} to {floor.high:+.4f})."
        )
    return text


def comparison(result: AblationResult) -> str:
    """Which methods harm least and most here, and whether their intervals part them."""
    rows = [row for row in result.results if math.isfinite(row.change["loss"].mean)]
    rows.sort(key=lambda row: row.change["loss"].mean)
    if len(rows) < 2 or not result.neurons or rows[0].change["loss"].low is None:
        return ""
    least, most = rows[0], rows[-1]
    text = f"Least harmful here: {least.method} ({_mean(least)}); most: {most.method} ({_mean(most)})."
    if most.change["loss"].low <= least.change["loss"].high:
        text += " Their intervals overlap: this sample does not rank them."
    return text


def _mean(row: MethodResult) -> str:
    return f"{row.change['loss'].mean:+.4f}"
