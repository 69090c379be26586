"""What a head's effects come to, in a plain sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from ablation_core.report.numbers import amount, interval_text, number
from ablation_core.stats.correlation import rank_agreement

_CHANGE = "+.3f"
_UNIT = "nats per prediction"


def head_verdict(head: str, frame: pd.DataFrame) -> str:
    """Whether a head matters, judged by all methods together; in Markdown.

    A method shows an effect where its interval excludes 0 and its change lies beyond the band of random neurons: a rise
    above the band, or a fall below it.

    >>> row = {"kind": "mean", "mean": 0.08, "low": 0.06, "high": 0.10, "floor_low": 0.0, "floor_high": 0.02}
    >>> head_verdict("2.3", pd.DataFrame([row]))
    '**Head 2.3 matters**: without it the loss rises by 0.080 nats per prediction (mean).'

    Args:
        frame: one row per method, columns kind, mean, low, high, floor_low, floor_high (NaN where there is no band).
    """
    shown = frame[["mean", "low", "high"]].notna().all(axis=1)
    rows = frame[shown]
    if not len(rows):
        return f"**Head {head}**: without it the model's losses are NaN or infinite, so there is no change to report."
    if (rows["low"] == rows["high"]).all():  # as `change_frame` draws a change without an interval
        return f"**Head {head}**: without it the loss changes by {_range(rows)}; too few sequences for an interval: raise Predictions."
    significant = (rows["low"] > 0) | (rows["high"] < 0)
    worse = rows[(rows["low"] > 0) & ~(rows["mean"] <= rows["floor_high"])]
    better = rows[(rows["high"] < 0) & ~(rows["mean"] >= rows["floor_low"])]
    if len(worse) == len(rows):
        return f"**Head {head} matters**: without it the loss rises by {_range(rows)}."
    if len(better) == len(rows):
        return f"**The model does better without head {head}**: the loss falls by {_range(rows)}."
    if len(worse) or len(better):
        return _mixed(head, rows, worse, better)
    most = amount(rows["mean"].abs().max(), _CHANGE)
    why = "no more than without as many random neurons" if significant.any() else "not significant in this sample"
    return f"**Head {head} hardly matters**: without it the loss changes by at most {most} {_UNIT}, {why}."


def _range(rows: pd.DataFrame) -> str:
    least, most = (amount(value, _CHANGE) for value in (rows["mean"].abs().min(), rows["mean"].abs().max()))
    if len(rows) == 1:
        return f"{most} {_UNIT} ({rows['kind'].iloc[0]})"
    span = most if least == most else f"{least} to {most}"
    return f"{span} {_UNIT}, whichever value replaces it"


def _mixed(head: str, rows: pd.DataFrame, worse: pd.DataFrame, better: pd.DataFrame) -> str:
    parts = []
    for found, verb in ((worse, "raises"), (better, "lowers")):
        if len(found):
            changes = (f"{row.kind} {number(row.mean, _CHANGE)}" for row in found.itertuples())
            parts.append(f"replacing it {verb} the loss with {_listed(list(changes))} {_UNIT}")
    rest = [kind for kind in rows["kind"] if kind not in {*worse["kind"], *better["kind"]}]
    end = f"; with {_listed(rest)} no more happens than without random neurons" if rest else ""
    return f"**Head {head}: it depends on the replacement**: {' and '.join(parts)}{end}."


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def score_sentence(label: str, noun: str, method: str, frame: pd.DataFrame) -> str:
    """Whether heads with a high score are the ones that matter, in Markdown.

    Args:
        label: the score's, such as `Induction`.
        noun: of the metric, such as `loss`.
        frame: one row per head, columns label, across (the score), up (the change).
    """
    if not len(frame):
        return f"No head has both a score and a change of {noun} by {method}."
    top = frame.loc[frame["across"].idxmax()]
    harm = frame["up"].rank(ascending=False, method="min")[frame["across"].idxmax()]
    first = (
        f"Head {top['label']} scores highest ({number(top['across'], '.2f')}); by {method} its change of {noun} ranks "
        f"{int(harm)} of {len(frame)}."
    )
    rho = rank_agreement(frame["across"], frame["up"])
    if not math.isfinite(rho.mean):
        return first
    return f"{first} Rank correlation of {label.lower()} and change of {noun}: {interval_text(rho.mean, rho.low, rho.high, '+.2f')}."
