"""Ablate's answer so far: the chosen method's figures and the sentences that read them, or an estimate of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from ablation_core.engine.metrics import Metric, metrics_in
from ablation_core.errors import as_markdown
from ablation_core.report.numbers import interval_text, number, sample_unit
from ablation_core.report.sentences import comparison, loss_split, verdict

if TYPE_CHECKING:
    from ablation_core.experiments.noise_floor import NoiseFloor
    from ablation_core.experiments.results import AblationResult
    from ablation_core.stats.intervals import Interval
    from ablation_core.ui.ablation.job import AblationProgress, QuickEstimate

_FIGURE = 138  # pixels, so that three stand beside each other in the answer's column


def show_result(now: AblationProgress, method: str, metrics: Sequence[str], wanted: int) -> None:
    """The answer so far: an estimate, or what is measured and on how much.

    Args:
        metrics: the names of those that are shown.
        wanted: how many predictions are to be measured.
    """
    result = now.result
    if result is None:
        if now.estimate:
            _show_estimate(now.estimate, method)
        else:
            st.caption("Nothing has been measured yet.")
        return
    _show_numbers(result, now.floor, method, metrics)
    st.markdown(as_markdown(f"{verdict(result, method, now.floor)} {comparison(result)}"))
    if split := loss_split(result, method):
        st.markdown(as_markdown(split))
    done = result.data["predictions"]
    if done < wanted:
        st.caption(
            f"So far: {done:,} of {wanted:,} {sample_unit(result.model['modality'])}; intervals narrow as more are measured."
        )


def _show_numbers(result: AblationResult, floor: NoiseFloor | None, method: str, metrics: Sequence[str]) -> None:
    """The chosen method's figures: baseline, ablated, change with its interval."""
    row = next((row for row in result.results if row.method == method), result.results[0])
    before, after = result.baseline, row.performance
    figures: list[tuple[Metric, str, str, str, str]] = []
    for metric in metrics_in(row.change):
        if metric.name not in metrics:
            continue
        change = row.change[metric.name]
        clean = "0" if metric.divergence else f"{before[metric.name]:{metric.format}}"
        changed = interval_text(change.mean, change.low, change.high, metric.change_format)
        figures.append((metric, metric.heading, clean, f"{after[metric.name]:{metric.format}}", changed))
        for one in metric.derived:
            clean, ablated = (f"{performance[one.name]:{one.format}}" for performance in (before, after))
            figures.append((metric, one.label, clean, ablated, _ratio(change)))
    with st.container(horizontal=True):  # as many beside each other as there is room for
        for metric, name, baseline, ablated, text in figures:
            colour = _colour(row.change[metric.name], metric, floor.band(row.method, metric.name) if floor else None)
            mean, *interval = text.split(" [", 1)
            lines = [
                f"**{name[0].upper()}{name[1:]}**",
                f"{baseline} → **{ablated}**",
                f":{colour}[{as_markdown(mean)}]",
            ]
            lines += [
                f":{colour}[:small[{as_markdown(f'[{rest}')}]]" for rest in interval
            ]  # whole, on a line of its own
            st.container(width=_FIGURE).markdown("  \n".join(lines))


def _colour(change: Interval, metric: Metric, band: tuple[float, float] | None) -> str:
    """Red for worse, blue for better, grey for no significant effect. A divergence is never negative, so that its interval
    never holds 0: it counts as worse where it exceeds the noise floor."""
    if metric.divergence:
        return "red" if band is not None and change.mean > band[1] else "gray"
    return ("red" if metric.worse * change.mean > 0 else "blue") if change.shows_effect else "gray"


def _ratio(change: Interval) -> str:
    """The change of what is derived from a mean by the exponential, as a factor: the change, exponentiated."""
    mean, low, high = (None if nats is None else _factor(nats) for nats in (change.mean, change.low, change.high))
    return "× " + interval_text(mean, low, high, ".4f")


def _factor(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf  # beyond that a float overflows


def _show_estimate(estimate: QuickEstimate, method: str) -> None:
    """The estimate, of the chosen method first, with the number of predictions behind it."""
    changes = estimate.changes
    first = method if method in changes else next(iter(changes))
    others = ", ".join(f"{name} {number(change, '+.4f')}" for name, change in changes.items() if name != first)
    st.markdown(
        f"**Estimate from {estimate.predictions} predictions**: {first} changes the loss by "
        f"{number(changes[first], '+.4f')} nats per prediction ({others})."
    )
    st.caption(
        "From gradients on one window; a second-order estimate. It can be far off, and for a small change even have the "
        "wrong sign. With several heads selected it is the sum of theirs. Measured values follow and replace it."
    )
