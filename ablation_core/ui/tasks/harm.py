"""What the harm of constants on a task is made of: a bar for each, and a sentence about the chosen one."""

from collections.abc import Mapping

import streamlit as st

from ablation_core.engine.metrics import Metric
from ablation_core.errors import as_markdown
from ablation_core.experiments.harm_split import PARTS
from ablation_core.report.charts import method_charts
from ablation_core.report.tasks.harm import harm_frame, harm_sentence
from ablation_core.ui.widgets import draw_once


def show_harm_parts(changes: Mapping[str, float], metric: Metric, method: str) -> None:
    """Nothing where the methods measured do not give the split.

    Args:
        changes: the mean change by each method.
    """
    frame = harm_frame(changes, metric)
    if metric.divergence or frame.empty:
        return
    way = "fall" if metric.worse < 0 else "rise"
    st.markdown("**What the harm is made of**")
    draw_once(
        method_charts.harm_parts(frame, f"harm: {way} of {metric.noun}, {metric.unit or 'pp'}", PARTS),
        alt=f"Each constant's harm in four parts: {', '.join(PARTS)}.",
    )
    st.caption(as_markdown(harm_sentence(changes, method, metric)))
