"""The card "What kind of head it is": seven scores, and each score against the effect of removing a head, over all heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from ablation_core.engine.metrics import METRICS
from ablation_core.report.heads import scatter
from ablation_core.report.heads.frames import head_scatter_frame
from ablation_core.ui.boxes import put
from ablation_core.ui.glance import inputs
from ablation_core.ui.glance.effects import effects_of
from ablation_core.ui.glance.shown import Glance
from ablation_core.ui.heads.computed import computed_scores
from ablation_core.ui.picking import draw_choice
from ablation_core.ui.widgets import single_choice

if TYPE_CHECKING:
    from ablation_core.heads.scores import HeadScores

_PICKED = "a head was picked on a scatter"


def show_kind(glance: Glance) -> None:
    from ablation_core.heads.kinds import SCORES

    scores = computed_scores(glance.view, inputs.evaluation_data(glance))
    known = [row for name, row in SCORES.items() if name in scores.per_sequence]
    table_column, scatter_column = st.columns([1, 1], gap="large")
    with table_column:
        st.dataframe(
            score_table(scores, glance),
            hide_index=True,
            width="stretch",
            row_height=30,
            column_config={
                "score": st.column_config.NumberColumn(format="%.3f"),
                "spread": st.column_config.NumberColumn(format="%.3f", help="Standard deviation over the sequences."),
                "rank": st.column_config.TextColumn(help="Among all heads of the model; 1 has the highest score."),
            },
        )
        lines = "  \n".join(f"**{row.label}**: {row.definition}{f', {row.unit}' if row.unit else ''}." for row in known)
        st.caption(lines)
    with scatter_column:
        labels = {row.label: row.name for row in known}
        label = single_choice(
            st.pills, "Score against effect", list(labels), default=known[0].label, key="score", wrap=True,
            help="Each point is a head: its score, and the change of loss without it.",
        )  # fmt: skip
        values = scores[labels[label]]
        effects, words = effects_of(glance)
        if not effects or values is None:
            st.caption(words)
            return
        frame = head_scatter_frame(values, effects, glance.name)
        draw_scatter(glance, frame, label, words, f"scatter {label}")


def score_table(scores: HeadScores, glance: Glance) -> pd.DataFrame:
    """One row per score of the head: its mean, spread, and rank among all heads."""
    from ablation_core.heads.kinds import SCORES

    rows = []
    for name in scores.per_sequence:
        mean, spread = scores[name], scores.spread(name)
        assert mean is not None and spread is not None
        own, known = mean[glance.head], mean[pd.notna(mean)]
        rows.append(
            {
                "kind": SCORES[name].label,
                "score": float(own),
                "spread": float(spread[glance.head]),
                "rank": f"{int((known > own).sum()) + 1} of {len(known)}",
            }
        )
    return pd.DataFrame(rows)


def draw_scatter(glance: Glance, frame: pd.DataFrame, across: str, words: str, key: str, same: bool = False) -> None:
    """A point per head; a click shows that head."""

    def pick(mark: Mapping[str, Any]) -> None:
        put("select", str(mark["label"]))
        st.session_state[_PICKED] = True

    draw_choice(
        scatter.head_scatter,
        frame,
        across=across,
        up=METRICS["loss"].change_title,
        same=same,
        key=key,
        shown={"label": glance.name},
        choose=pick,
        alt=f"{len(frame)} heads: {across} against the change of loss; the head on show is dark.",
    )
    st.caption(f"{words} Head {glance.name} is the large point. Click a point to see that head.")
    if st.session_state.pop(_PICKED, False):
        st.rerun()  # the whole page shows the clicked head
