"""How interactions of heads show themselves beyond a list of pairs: a matrix, and the sentence that says what they mean."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import altair as alt
import pandas as pd

from ablation_core.engine.metrics import METRICS
from ablation_core.experiments.interaction_result import InteractionResult, PairInteraction
from ablation_core.report.charts.looks import DARK_INK, HARM, HELP, LIGHT_INK, faded, ink
from ablation_core.report.numbers import amount, interval_text, number
from ablation_core.stats.intervals import Interval

_MEANING = {
    "redundant": "redundant: each covers for the other, and neither's single effect shows what the two do",
    "synergistic": "synergistic: each needs the other, so that their single effects overlap",
    "independent": "independent: their effects add up",
    "undecided": "undecided: the interval holds 0, but it is too wide to call them independent",
}


def matrix_frame(result: InteractionResult) -> pd.DataFrame:
    """One row per ordered pair of heads with its interaction, and one per head with its single change (`alone`)."""
    pairs = {pair.pair: pair for pair in result.pairs}
    rows = []
    for one, other in permutations(result.singles, 2):
        pair: PairInteraction = pairs.get((one, other)) or pairs[other, one]
        span = pair.interaction
        rows.append(
            {"one": one, "other": other, "value": span.mean, "low": span.low, "high": span.high, "q": pair.q, "is": pair.verdict, "alone": False}
        )  # fmt: skip
    for head, change in result.singles.items():
        rows.append(
            {"one": head, "other": head, "value": change.mean, "low": change.low, "high": change.high, "q": None, "is": "alone", "alone": True}
        )  # fmt: skip
    return pd.DataFrame(rows).assign(
        shown=lambda frame: [number(value, METRICS[result.metric].cell_format) for value in frame["value"]]
    )


def pairs_table(result: InteractionResult) -> pd.DataFrame:
    """One row per pair as people read it, the largest interaction first."""

    def text(part: Interval) -> str:
        return interval_text(part.mean, part.low, part.high, METRICS[result.metric].change_format)

    pairs = sorted(result.pairs, key=lambda pair: -abs(pair.interaction.mean))
    return pd.DataFrame(
        [
            {
                "pair": " + ".join(pair.pair),
                "interaction": text(pair.interaction),
                "q": pair.q,
                "verdict": pair.verdict,
                "change without both": text(pair.joint),
            }
            for pair in pairs
        ]
    )


def interaction_matrix(result: InteractionResult, dark: bool = False) -> alt.LayerChart:
    """Every two heads' interaction, red where the joint harm is more than the sum; on the diagonal each head's single change,
    not coloured."""
    frame, heads, metric = matrix_frame(result), list(result.singles), METRICS[result.metric]
    coloured = frame.loc[~frame["alone"], "value"].abs()
    most = max(float(coloured.max()), 1e-12) if coloured.notna().any() else 1.0
    axis = alt.Axis(labelAngle=0, domain=False, ticks=False, title=None)
    base = alt.Chart(frame).encode(x=alt.X("one:N", sort=heads, axis=axis), y=alt.Y("other:N", sort=heads, axis=axis))
    tooltip = [
        alt.Tooltip("one:N", title="head"),
        alt.Tooltip("other:N", title="and"),
        alt.Tooltip("value:Q", title=f"interaction (alone: {metric.change_heading})", format=metric.change_format),
        alt.Tooltip("low:Q", title="95% interval from", format=metric.change_format),
        alt.Tooltip("high:Q", title="to", format=metric.change_format),
        alt.Tooltip("q:Q", title="q over the pairs", format=".3f"),
        alt.Tooltip("is:N"),
    ]
    colours = [HELP, faded(HELP), faded(HARM), HARM][:: metric.worse]
    scale = alt.Scale(type="sqrt", domain=[-most, -1e-9 * most, 1e-9 * most, most], range=colours)
    legend = alt.Legend(
        title=f"interaction: {metric.change_heading}", orient="top", gradientLength=220, titleLimit=300, tickCount=3
    )
    cells = base.transform_filter("!datum.alone").mark_rect(cornerRadius=3, stroke="#80808090", strokeWidth=1)
    cells = cells.encode(color=alt.Color("value:Q", scale=scale, legend=legend), tooltip=tooltip)
    singles = base.transform_filter("datum.alone").mark_rect(
        cornerRadius=3, stroke="#80808090", strokeWidth=1, fill="#80808014"
    )
    strong = f"!datum.alone && abs(datum.value) >= {0.65 * most}"
    colour = alt.condition(strong, alt.value(DARK_INK), alt.value(LIGHT_INK)) if dark else alt.value(ink(dark))
    texts = base.mark_text(
        fontSize=11,
        tooltip=None,
        fontWeight=alt.expr("datum.is === 'redundant' || datum.is === 'synergistic' ? 'bold' : 'normal'"),
        fontStyle=alt.expr("datum.alone ? 'italic' : 'normal'"),
    ).encode(text="shown:N", color=colour)
    chart = alt.LayerChart(layer=[cells, singles.encode(tooltip=tooltip), texts])
    return chart.properties(height=130 + max(110, min(40 * len(heads), 480)))


def meaning_sentence(result: InteractionResult) -> str:
    """What the pairs are, and what the clearest of them is."""
    counted = Counter(pair.verdict for pair in result.pairs)
    if all(pair.q is None for pair in result.pairs):
        return "There are too few sequences for an interval, so that nothing is said of the pairs: raise Predictions."
    words = ", ".join(f"{counted[name]} {name}" for name in _MEANING if counted[name])
    first = max(
        result.pairs, key=lambda pair: (pair.verdict in ("redundant", "synergistic"), abs(pair.interaction.mean))
    )
    text = f"{' and '.join(first.pair)} are {_MEANING[first.verdict]}"
    excess = result.excess
    together = ""
    if len(result.singles) > 2 and excess.shows_effect:
        metric = METRICS[result.metric]
        more, moves = "more" if metric.worse * excess.mean > 0 else "less", "rises" if metric.worse > 0 else "falls"
        size = f"{amount(excess.mean, metric.change_format)} {metric.unit}".rstrip()
        together = f" All together {metric.noun} {moves} by {size} {more} than the single changes add up to."
    count = len(result.pairs)
    return f"Of {count} pair{'s' * (count != 1)}: {words}. **{text}.**{together}"
