"""The rows: what each result shows of itself. A new result is a row here, and inherits `presentation.Presented`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from ablation_core.engine.metrics import main_metric
from ablation_core.report.frames import result_frame
from ablation_core.report.html import result_table
from ablation_core.report.present import comparisons, interactions, pictures, side_by_side, tables, words
from ablation_core.report.tasks import position_charts

Frame = Callable[[Any], pd.DataFrame]


@dataclass(frozen=True)
class Presentation:
    """A row of `PRESENTATIONS`.

    Attributes:
        tables: name → what makes it of a result; the first is the main one.
        chart: of a result, and of what else it can be drawn by.
        sentences: of a result; an empty one is left out, and double asterisks mean bold.
        readable: the table that a notebook shows, where that is not the main one.
    """

    tables: Mapping[str, Frame]
    chart: Callable[..., alt.LayerChart | alt.Chart]
    sentences: Callable[[Any], list[str]]
    readable: Frame | None = None

    @property
    def shown(self) -> Frame:
        return self.readable or next(iter(self.tables.values()))


PRESENTATIONS = {
    "AblationResult": Presentation(
        {"methods": result_frame, "predictions": tables.prediction_frame},
        pictures.ablation_chart,
        words.ablation_sentences,
        readable=result_table,
    ),
    "SweepResult": Presentation(
        {"heads": tables.sweep_frame, "predictions": tables.sweep_predictions_frame},
        pictures.sweep_chart,
        words.sweep_sentences,
    ),
    "AdaptiveResult": Presentation({"heads": tables.adaptive_frame}, pictures.adaptive_chart, words.adaptive_sentences),
    "PositionMapResult": Presentation(
        {"cells": position_charts.position_table, "predictions": tables.position_predictions_frame},
        position_charts.picked_chart,
        lambda result: [
            position_charts.position_sentence(result, method, main_metric(result.metrics).name)
            for method in result.methods
        ],
    ),
    "CurveResult": Presentation(
        {
            "points": tables.curve_points_frame,
            "table": tables.curve_table_frame,
            "predictions": tables.curve_predictions_frame,
        },
        pictures.curve_chart,
        words.curve_sentences,
        readable=tables.curve_table_frame,
    ),
    "EstimateResult": Presentation(
        {"heads": tables.estimated_heads_frame, "neurons": tables.estimated_neurons_frame},
        pictures.estimate_chart,
        words.estimate_sentences,
    ),
    "NoiseFloor": Presentation({"bands": tables.floor_frame}, pictures.floor_chart, words.floor_sentences),
    "InteractionResult": Presentation(
        {
            "pairs": tables.pairs_frame,
            "heads": tables.single_heads_frame,
            "predictions": tables.interaction_predictions_frame,
        },
        pictures.interaction_chart,
        words.interaction_sentences,
        readable=interactions.pairs_table,
    ),
    "ComparisonResult": Presentation(
        {"heads": comparisons.comparison_frame},
        comparisons.comparison_chart,
        comparisons.comparison_sentences,
        readable=comparisons.differing_frame,
    ),
    "HeadDescription": Presentation(
        {"scores": tables.head_scores_frame, "predictions": lambda found: tables.prediction_frame(found.total_effect)},
        pictures.head_chart,
        words.head_sentences,
    ),
    "SavedComparison": Presentation(
        {"differences": side_by_side.differences_frame},
        side_by_side.differences_chart,
        side_by_side.differences_sentences,
        readable=side_by_side.differences_table,
    ),
    "NeuronSummary": Presentation({"values": tables.summary_frame}, pictures.summary_chart, words.summary_sentences),
    "Statistics": Presentation(
        {"neurons": tables.statistics_frame}, pictures.statistics_chart, words.statistics_sentences
    ),
}
