"""Axes on which an outlier flattens nothing, and titles longer than their axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

OUTLIER = 20  # times the size of three quarters of the values: a value that would flatten all others on a linear axis
# Of a y axis whose title is longer than the axis: above it, in reading direction.
ON_TOP: dict[str, Any] = {
    "titleAngle": 0,
    "titleAlign": "left",
    "titleAnchor": "end",
    "titleBaseline": "bottom",
    "titleX": -32,
    "titleY": -8,
}


@dataclass(frozen=True)
class Span:
    """An axis on which an outlier flattens nothing: linear up to `bend`, logarithmic beyond, on both sides of 0."""

    low: float
    high: float
    bend: float


def span_of(*values: Sequence[float], factor: float = 1.0, least: float = 0.0) -> Span | None:
    """The axis that these values need; None where a linear one shows them all.

    Args:
        factor: what the values are multiplied by before they are drawn.
        least: what is not small, however small the others are.
    """
    drawn = factor * np.concatenate([np.asarray(one, dtype=float) for one in values] or [np.empty(0)])
    drawn = drawn[np.isfinite(drawn)]
    sizes = np.abs(drawn[drawn != 0])
    usual = max(np.quantile(sizes, 0.75, method="lower"), least) if len(sizes) else 0.0
    if not len(sizes) or sizes.max() <= OUTLIER * usual:
        return None
    return Span(min(1.1 * drawn.min(), 0.0), max(1.1 * drawn.max(), 0.0), float(f"{usual:.0e}"))


def spanned(span: Span | None, title: str, linear: alt.Scale, **axis: Any) -> dict[str, Any]:
    """Title, scale and axis of a channel whose values need this span."""
    if span is None:
        return {"title": title, "scale": linear, "axis": alt.Axis(**axis)}
    scale = alt.Scale(type="symlog", constant=span.bend, domain=[span.low, span.high], nice=False)
    powers = [10.0**k for k in range(math.floor(math.log10(span.bend)) + 1, 20)]
    ticks = sorted({0.0, *powers, *(-power for power in powers)})
    ticks = [tick for tick in ticks if span.low <= tick <= span.high]
    return {
        "title": [title, f"(logarithmic beyond ±{span.bend:g})"],
        "scale": scale,
        "axis": alt.Axis(values=ticks, **axis),
    }
