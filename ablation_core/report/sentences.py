"""What a result means, in a neutral sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ablation_core.experiments.results import AblationResult, MethodResult
from ablation_core.report.numbers import amount, number, sample_of, span_text

if TYPE_CHECKING:
    from ablation_core.experiments.noise_floor import NoiseFloor
    from ablation_core.experiments.predictions.by_token import TokenHarm
    from ablation_core.stats.intervals import Interval

_CHANGE = "+.4f"


def verdict(result: AblationResult, method: str, floor: NoiseFloor | None = None) -> str:
    """One method's change of loss in words: its size, its interval, and whether it is significant."""
    row = next((row for row in result.results if row.method == method), None)
    if row is None:
        return f"{method} needs a second input to take activations from, and there is only one."
    if not result.neurons:
        return "No neurons are selected, so nothing changes. Pick a head."
    change, count = row.change["loss"], sample_of(result.model, result.data)
    what = f"Replacing {result.neurons:,} neuron{'s' * (result.neurons != 1)} ({result.select}) with {method} values"
    if not math.isfinite(change.mean):
        return f"{what} gives losses that are NaN or infinite, so there is no change to report."
    if change.low is None or change.high is None:
        return (
            f"{what} changes the loss by {number(change.mean, _CHANGE)} nats per prediction on {count}; too few "
            f"sequences for an interval: raise Predictions."
        )
    if not change.shows_effect:
        return (
            f"{what} changes the loss by {number(change.mean, _CHANGE)} nats per prediction (95% interval "
            f"{span_text(change.low, change.high, _CHANGE)}): no significant effect in this sample of {count}."
        )
    word = "raises" if change.mean > 0 else "lowers"
    ends = sorted((abs(change.low), abs(change.high)))
    text = (
        f"{what} {word} the loss by {amount(change.mean, _CHANGE)} nats per prediction (95% interval "
        f"{amount(ends[0], _CHANGE)} to {amount(ends[1], _CHANGE)}), on {count}."
    )
    if floor is not None and (band := floor.band(method)) is not None:
        text += f" Noise floor, {floor_words(floor.sets)}: {span_text(*band, _CHANGE)}."
    return text


def floor_words(sets: int) -> str:
    """What a noise floor is of: the one definition, for every method and page."""
    return f"{sets} random sets of as many neurons from the same layers, replaced by the same method"


def comparison(result: AblationResult) -> str:
    """Which methods raise the loss least and most, and whether their difference is significant."""
    rows = [row for row in result.results if math.isfinite(row.change["loss"].mean)]
    between = result.least_to_most
    if len(rows) < len(result.results) or between is None or not result.neurons:
        return ""
    if between.low is None or between.high is None:
        return ""
    rows.sort(key=lambda row: row.change["loss"].mean)
    text = f"Smallest increase in loss: {rows[0].method} ({_mean(rows[0])}); largest: {rows[-1].method} ({_mean(rows[-1])})"
    difference = span_text(between.low, between.high, ".4f")
    if not between.shows_effect:
        return f"{text}; the two are not significantly different (paired difference {difference})."
    return f"{text}; paired difference {difference}."


def loss_split(result: AblationResult, method: str) -> str:
    """What even the optimal constants cost, where they were learned, and what the method's constants cost beyond them.

    The split is between constants: a resampled value can cost less than any of them. `frames.split_frame` has it of all.
    """
    rows = {row.method: row for row in result.results}
    optimal = rows.get("optimal")
    if optimal is None or optimal.learning is None or not result.neurons:
        return ""
    if not math.isfinite(optimal.change["loss"].mean):
        return ""
    learning, row = optimal.learning, rows.get(method)
    settled = "converged" if learning.converged else "the loss was still falling slightly when learning ended"
    text = (
        f"Unavoidable loss: the optimal constants, learned on the statistics part starting from the {learning.start} "
        f"({settled}), still change the loss by {number(optimal.change['loss'].mean, _CHANGE)} nats per prediction."
    )
    extra = row.excess if row is not None and is_constant(method) else None
    if extra is None or not math.isfinite(extra.mean):
        return text
    span = "" if extra.low is None or extra.high is None else f" ({span_text(extra.low, extra.high, _CHANGE)})"
    return f"{text} Extra loss from an unusual value: {method} {number(extra.mean, _CHANGE)}{span}."


def harm_sentence(harms: Sequence[TokenHarm], things: str = "predictions") -> str:
    """Which tokens lose most in sum: the first with its figures, the next two behind it.

    Args:
        harms: as `by_token.harm_by_token` sorts them.
        things: what is counted.
    """
    losing = [harm for harm in harms if harm.total > 0]
    if not losing:
        return "No token's loss rises in sum."
    count, first = sum(harm.predictions for harm in harms), losing[0]
    text = f"{first.token}: {first.predictions:,} of {count:,} {things}, {_each(first)}, {first.share:.0%} of all harm."
    if others := losing[1:3]:
        named = (f"{harm.token} ({harm.predictions:,}, {_each(harm)}, {harm.share:.0%})" for harm in others)
        text += f" Then {' and '.join(named)}."
    return text


def _each(harm: TokenHarm) -> str:
    return f"{number(harm.mean, '.2f' if harm.mean >= 0.1 else '.1g')} nats each"


def is_constant(method: str) -> bool:
    """Whether a method puts in one constant per neuron that it does not learn: what the optimal one is compared with."""
    from ablation_core.methods.registry import METHODS

    return method in METHODS and METHODS[method].constant is not None


def _mean(row: MethodResult) -> str:
    return number(row.change["loss"].mean, _CHANGE)


def format_interval(interval: Interval) -> str:
    """A change in a terminal, where a minus is a hyphen."""
    if interval.mean is None or not math.isfinite(interval.mean):
        return "not a number"
    if interval.low is None:
        return f"{interval.mean:+.5f} (too few sequences for an interval)"
    return f"{interval.mean:+.5f} [{interval.low:+.5f}, {interval.high:+.5f}]"
