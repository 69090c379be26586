"""What kind of head each one is, on the Head map: scores as colours of the map, and a score against harm over all heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from ablation_core.data.uploads import named
from ablation_core.engine.metrics import METRICS
from ablation_core.errors import AblationError, as_markdown
from ablation_core.report import frames, run_frames
from ablation_core.report.charts import head_maps
from ablation_core.report.heads import scatter
from ablation_core.report.heads.frames import head_scatter_frame
from ablation_core.report.heads.sentences import score_sentence
from ablation_core.report.run_frames import HeadEstimates
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.selection import Head
from ablation_core.ui.export_row import Chart, ExportContent
from ablation_core.ui.heads.computed import computed_scores
from ablation_core.ui.picking import draw_choice
from ablation_core.ui.sidebar.view import View
from ablation_core.ui.widgets import dark_page

if TYPE_CHECKING:
    from ablation_core.data.dataset import Data
    from ablation_core.heads.kinds import Score
    from ablation_core.heads.scores import HeadScores

EFFECT = "effect"
_KEY = "colour"  # of the widget and of the address
_MAP, _SCATTER = "score map", "score scatter"


def choose_colour(view: View, data: Data) -> tuple[Score, HeadScores] | None:
    """The choice of what the map's colours show: the effect (None), or a score with all scores, which are then computed.

    A model whose attention cannot be seen gets its sentence, and the effect.
    """
    from ablation_core.heads.scores import scores_for

    rows = {row.label.lower(): row for row in scores_for(view.model)}
    if st.session_state.get(_KEY, EFFECT) not in {EFFECT, *rows}:  # chosen with a model of another kind
        st.session_state[_KEY] = EFFECT
    chosen = st.selectbox(
        "Colours show", [EFFECT, *rows], key=_KEY, bind="query-params",
        help="The effect of removing each head, or a score that says what kind of head it is.",
    )  # fmt: skip
    if chosen not in rows:
        return None
    try:
        return rows[chosen], computed_scores(view, data)
    except AblationError as error:
        st.info(as_markdown(error))
        return None


def show_score_map(
    view: View, data: Data, score: Score, scores: HeadScores, head: Head, choose: Callable[[Mapping[str, Any]], None]
) -> None:
    """Every head coloured by a score; a click picks a head."""
    values, shape = _values(scores, score), view.info.shape
    layer, number = head
    title = _title(score)
    draw_choice(
        head_maps.head_map,
        frames.head_frame(values, shape),
        title=title,
        dark=dark_page(),
        variant=(shape, title),
        key=_MAP,
        shown={"layer": layer, "head": number},
        choose=choose,
        alt=f"Map of all heads coloured by their score {score.label}; the one on show is outlined.",
    )
    count = f"{len(scores.per_sequence[score.name]):,}"
    unit = "images" if view.info.modality == "vision" else "sequences"
    where = f"{count} such sequences" if score.repeated else f"{count} {unit} of {as_markdown(named(data.ref))}"
    st.caption(f"**{score.label}**: {score.definition}, over {where}.")


def show_score_scatter(
    view: View, score: Score, scores: HeadScores, result: SweepResult, estimates: HeadEstimates, metric: str, head: str,
    choose: Callable[[Mapping[str, Any]], None],
) -> None:  # fmt: skip
    """The score of each head against the change without it, by any method.

    Args:
        estimates: of the view's own method, which stand in for what is not measured.
    """
    row = METRICS[metric]
    st.subheader(f"{score.label} against effect", anchor=False)
    methods = _methods(result, metric, view.method, estimates)
    if not methods:
        st.caption("No head's effect is known yet: measure first.")
        return
    if st.session_state.get("scored by") not in methods:
        st.session_state["scored by"] = methods[0]
    method = st.pills("Effect by", methods, key="scored by", required=True, wrap=True) or methods[0]
    changes = run_frames.map_frame(result, method, metric, None, estimates if method == view.method else None)
    effects = dict(zip(changes["label"], changes["value"], strict=True))
    frame = head_scatter_frame(_values(scores, score), effects, head)
    sentence = score_sentence(score.label, row.noun, method, frame)
    st.markdown(sentence)
    draw_choice(
        scatter.head_scatter,
        frame,
        across=_title(score),
        up=f"{row.change_heading}, by {method}",
        key=_SCATTER,
        shown={"label": head},
        choose=choose,
        variant=(score.name, metric, method),
        alt=f"{len(frame)} heads: {score.label} against {row.change_heading} by {method}. {sentence}",
    )
    estimated = int((changes["state"] == run_frames.STATES[2]).sum())
    rest = f" {estimated} of them are estimated, not measured." if estimated else ""
    st.caption(f"One point per head; head {head} is the large one.{rest} Click a point to see that head.")


def score_columns(frame: pd.DataFrame, score: Score, scores: HeadScores) -> pd.DataFrame:
    """A table of heads with their score as a further column.

    Args:
        frame: with a column `head`, `3.2`.
    """
    values = _values(scores, score)
    places = [tuple(map(int, head.split("."))) for head in frame["head"]]
    return frame.assign(**{score.label.lower(): [float(values[place]) for place in places]})


def with_scores(content: ExportContent, view: View, score: Score, scores: HeadScores) -> ExportContent:
    """What the page exports, with the map of the score and the table of all scores."""
    words = f"Every head, {score.label}"
    chart = Chart(
        lambda: head_maps.head_map(frames.head_frame(_values(scores, score), view.info.shape), _title(score)),
        f"Map of every head of {view.info.ref} by its score {score.label}: {score.definition}.",
    )
    tables = content.tables | {"Scores of every head": scores.to_frame}
    return replace(content, charts=content.charts | {words: chart}, tables=tables)


def _title(score: Score) -> str:
    return f"{score.label}{f', {score.unit}' if score.unit else ''}"


def _values(scores: HeadScores, score: Score) -> np.ndarray:
    values = scores[score.name]
    assert values is not None  # only scores that make sense are offered
    return values


def _methods(result: SweepResult, metric: str, wanted: str, estimates: HeadEstimates) -> Sequence[str]:
    """The methods by which effects are known, the view's own first."""
    measured = [name for name in result.methods if result.changes(name, metric)]
    if wanted in measured or estimates:
        return [wanted, *(name for name in measured if name != wanted)]
    return measured
