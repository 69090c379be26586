"""Ablate's comparison: every method's effect in one chart and one table, as far as they are measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from ablation_core.data.uploads import named
from ablation_core.engine.metrics import METRICS
from ablation_core.errors import as_markdown
from ablation_core.report import frames
from ablation_core.report.charts import method_charts
from ablation_core.report.numbers import is_points, sample_unit
from ablation_core.report.sentences import floor_words
from ablation_core.report.tasks.harm import mean_changes
from ablation_core.ui.tasks.harm import show_harm_parts
from ablation_core.ui.widgets import draw, with_digits

if TYPE_CHECKING:
    import pandas as pd

    from ablation_core.experiments.results import AblationResult
    from ablation_core.ui.ablation.job import AblationProgress
    from ablation_core.ui.sidebar.view import View

_DERIVED = [one for metric in METRICS.values() for one in metric.derived]
_HEADINGS = {metric.name: metric.heading for metric in METRICS.values()} | {one.name: one.label for one in _DERIVED}
_COLUMNS = {name: st.column_config.NumberColumn(heading) for name, heading in _HEADINGS.items()} | {
    "moved": st.column_config.NumberColumn(
        "moved, std", help="How far the values are moved: root mean square, in standard deviations."
    ),
    "residual": st.column_config.NumberColumn(
        "residual stream's length", help="Its mean change after the ablated layers."
    ),
}
_DIGITS = {
    **{metric.name: metric.format for metric in METRICS.values()},
    **{one.name: one.format for one in _DERIVED},
    "moved": ".2f",
    "residual": ".1%",
}


def show_methods(view: View, progress: AblationProgress, metrics: Sequence[str]) -> None:
    """All methods side by side, each with its own noise floor, as far as they are measured.

    Args:
        metrics: the names of those that are shown.
    """
    result, floor = progress.result, progress.floor
    if result is None:
        st.caption("All methods side by side, once the first predictions are measured.")
        return
    metric = st.session_state.get("metric") or "loss"
    row = METRICS[metric if metric in metrics else "loss"]
    frame = frames.change_frame(result, row.name, view.method, floor)
    banded = bool(frame["floor_low"].notna().any())
    draw(
        method_charts.changes,
        frame,
        title=row.change_title,
        variant=(tuple(frame["kind"]), banded, method_charts.change_span(frame, is_points(row.change_format))),
        points=is_points(row.change_format),
        key="changes",
        alt="The change by each method with its 95% interval.",
    )
    unit = sample_unit(view.model.modality, "sequences")
    counted = result.data["predictions"]
    sample = (
        f"{counted:,} {unit}"
        if view.model.predicts_class
        else f"{counted:,} predictions in {result.data['sequences']:,} sequences"
    )
    notes = [f"{sample} of {named(result.data['ref'])}", f"95% intervals, paired, resampling whole {unit}"]
    if banded and floor is not None:
        notes.append(f"grey bands: noise floor, {floor_words(floor.sets)}")
    st.caption(as_markdown("; ".join(notes) + "."))
    parts = frames.split_frame(result)
    if len(parts):
        st.markdown("**What the optimal constants explain**")
        draw(
            method_charts.loss_parts,
            parts,
            parts=frames.SPLIT,
            variant=tuple(parts["kind"]),
            alt="Each constant's increase in loss in two parts: what even the optimal constants cost, and the rest.",
        )
    show_harm_parts(*mean_changes(result), view.method)
    table = methods_table(result, metrics)
    first = [name for name in table if not name.startswith("change") and name not in ("moved", "residual")]
    st.dataframe(
        with_digits(table, _DIGITS), column_order=first, column_config=_COLUMNS, hide_index=True, width="stretch"
    )


def methods_table(result: AblationResult, metrics: Sequence[str]) -> pd.DataFrame:
    """Every figure by every method, without those that say nothing about this model."""
    table = frames.result_frame(result)
    return table[[name for name in table if "top10" not in name or "top10" in metrics]]
