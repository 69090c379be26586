"""Sweeps and curves as tidy frames, the form that the charts draw and the tables show."""

import math
from typing import Any

import pandas as pd

from ablation_core.engine.metrics import METRICS
from ablation_core.report.numbers import NONE, number
from ablation_core.runs.pruning_result import TABLE_AT, CurveResult
from ablation_core.runs.sweep_result import SweepResult

HeadEstimates = dict[str, tuple[float, float]]  # head → estimated change and its standard error

STATES = ("significant", "not significant", "estimate")


def significant_heads(result: SweepResult, method: str, metric: str) -> set[str]:
    """The heads with a significant effect: q at most 5% or, for a divergence, which is not tested, more than every random set."""
    if METRICS[metric].tested:
        return result.significant(method, metric)
    floor = result.floor(method, metric)
    return {head for head, value in result.changes(method, metric).items() if floor is not None and value > floor[1]}


def map_frame(
    result: SweepResult,
    method: str,
    metric: str,
    picked: str | None = None,
    estimates: HeadEstimates | None = None,
) -> pd.DataFrame:
    """One row per head that is measured or estimated: its change, interval, q and state, the largest change first."""
    significant, adjusted, rows = significant_heads(result, method, metric), {}, []
    if METRICS[metric].tested:
        adjusted = result.adjusted(method, metric)
    estimates = estimates or {}
    for head in result.wanted:
        layer, number = map(int, head.split("."))
        row: dict[str, Any] = {"layer": layer, "head": number, "label": head, "picked": head == picked}
        estimate, error = estimates.get(head, (math.nan, math.nan))
        row |= {"estimate": estimate, "estimate error": error}
        if span := result.rows.get(head, {}).get(method, {}).get("change", {}).get(metric):
            bounds = {name: math.nan if value is None else value for name, value in span.items()}
            row |= {
                "value": bounds.pop("mean"),
                **bounds,
                "q": adjusted.get(head),
                "state": STATES[head not in significant],
            }
        else:
            row |= {"value": estimate, "low": math.nan, "high": math.nan, "q": None, "state": STATES[2]}
        if math.isfinite(row["value"]):
            rows.append(row)
    columns = ["layer", "head", "label", "picked", "value", "low", "high", "q", "state", "estimate", "estimate error"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.sort_values("value", key=lambda value: -abs(value), ignore_index=True)


def method_frame(result: SweepResult, head: str, metric: str, chosen: str) -> pd.DataFrame:
    """One row per method: its effect on one head, in the form of `frames.change_frame`."""
    rows = []
    for method in result.methods:
        if span := result.rows.get(head, {}).get(method, {}).get("change", {}).get(metric):
            mean, low, high = (span[bound] for bound in ("mean", "low", "high"))
            ends = (mean, mean) if low is None else (low, high)
            low, high, _ = result.floor(method, metric) or (math.nan, math.nan, 0)
            row = {"kind": method, "mean": mean, "low": ends[0], "high": ends[1], "chosen": method == chosen}
            rows.append(row | {"floor_low": low, "floor_high": high})
    columns = ["kind", "mean", "low", "high", "chosen", "floor_low", "floor_high"]
    return pd.DataFrame(rows, columns=columns).dropna(subset="mean")


def agreement_frame(result: SweepResult, metric: str) -> pd.DataFrame:
    """One row an ordered pair of methods: their rank correlation with its interval."""
    rows = []
    for pair in result.agreement(metric):
        for one, other in (pair["methods"], pair["methods"][::-1]):
            rows.append({"one": one, "other": other, "heads": pair["heads"], **pair["spearman"]})
    rows += [
        {"one": method, "other": method, "heads": len(result.changes(method, metric)), "mean": 1.0, "low": 1, "high": 1}
        for method in result.methods
    ]
    return pd.DataFrame(rows, columns=["one", "other", "heads", "mean", "low", "high"]).rename(columns={"mean": "rho"})


def pair_frame(result: SweepResult, one: str, other: str, metric: str) -> pd.DataFrame:
    """One row per head that both methods have measured: both changes."""
    first, second = result.changes(one, metric), result.changes(other, metric)
    rows = [{"label": head, "x": first[head], "y": second[head]} for head in first if head in second]
    return pd.DataFrame(rows, columns=["label", "x", "y"]).dropna()


def estimate_frame(result: SweepResult, method: str, metric: str, estimates: HeadEstimates) -> pd.DataFrame:
    """One row per head that is measured and estimated: the estimate across, the exact change up."""
    exact = result.changes(method, metric)
    rows = [{"label": head, "x": estimates[head][0], "y": exact[head]} for head in exact if head in estimates]
    return pd.DataFrame(rows, columns=["label", "x", "y"]).dropna()


def curve_frame(result: CurveResult, metric: str) -> pd.DataFrame:
    """One row per method and step that every seed has measured: the mean over seeds, the least and the greatest."""
    rows = [
        {"kind": method, "percent": percent, **result.band(method, metric, percent)}
        for method in result.description["methods"]
        for percent in result.description["percents"]
    ]
    return pd.DataFrame(rows, columns=["kind", "percent", "mean", "low", "high"]).dropna()


def point_frame(result: CurveResult, metric: str) -> pd.DataFrame:
    """One row per measured point."""
    rows = [
        {"kind": method, "seed": seed, "percent": percent, "value": result.value(seed, percent, method, metric)}
        for method in result.description["methods"]
        for seed, percent in result.points
    ]
    return pd.DataFrame(rows, columns=["kind", "seed", "percent", "value"]).dropna()


def table_frame(result: CurveResult, metric: str) -> pd.DataFrame:
    """One row per method: the metric at 50 and 90 per cent, as the mean over seeds with the least and the greatest."""
    form, rows = METRICS[metric].cell_format.lstrip("+"), []
    for method in result.description["methods"]:
        row = {"method": method}
        for percent in TABLE_AT:
            band = result.band(method, metric, percent)
            mean, low, high = (number(band[name], form) for name in ("mean", "low", "high"))
            between = " to " if low.startswith("−") or high.startswith("−") else "–"
            row[f"at {percent}%"] = mean if mean == NONE else f"{mean} ({low}{between}{high})"
        rows.append(row)
    return pd.DataFrame(rows)


def rank_frame(result: CurveResult, metric: str) -> pd.DataFrame:
    """One row per method, the smallest damage first: mean rank, mean level, difference from the best; empty while partial."""
    ranks, rows = result.ranks(metric), []
    if ranks["best"] is None:
        return pd.DataFrame()
    for method in sorted(ranks["mean_rank"], key=ranks["mean_rank"].get):
        heights = result.heights(method, metric)
        behind = ranks["behind"].get(method, {})
        rows.append(
            {
                "method": method,
                "mean rank": ranks["mean_rank"][method],
                "mean height": sum(heights) / len(heights),
                "behind the best": behind.get("mean"),
                "low": behind.get("low"),
                "high": behind.get("high"),
                "p": behind.get("p"),
            }
        )
    return pd.DataFrame(rows)
