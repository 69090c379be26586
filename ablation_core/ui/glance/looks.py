"""The card "Where it looks": the head's attention over the input above, a window of the data, or an image's patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from ablation_core.errors import as_markdown
from ablation_core.report.heads import patterns
from ablation_core.report.heads.html import patch_overlay, strongest_looks
from ablation_core.selection import Selection
from ablation_core.ui.glance import inputs
from ablation_core.ui.glance.shown import Glance
from ablation_core.ui.heads.computed import computed
from ablation_core.ui.widgets import draw_once, single_choice

if TYPE_CHECKING:
    from ablation_core.data.dataset import Batch
    from ablation_core.data.user_input import UserInput

SOURCES = ("the prompt above", "a window of the data")
_MEAN = "all positions, mean"


def show_looks(glance: Glance) -> None:
    vision = glance.view.info.modality == "vision"
    source_column, others_column = st.columns([3, 2], vertical_alignment="bottom")
    with source_column:
        place_of, batch = _input(glance, vision)
    typed = others_column.text_input(
        "Without these heads",
        key="looks without",
        placeholder="none, or e.g. 0.1 0.4",
        help="The pattern with other heads ablated, by the sidebar's method: does this head need them?",
    )
    without = Selection.parse(typed or "", glance.view.info.shape)
    weights = _pattern(glance, place_of, batch, without)
    if without.chosen:
        moved = abs(weights - _pattern(glance, place_of, batch, Selection.parse("", glance.view.info.shape))).sum(1) / 2
        st.caption(f"Without {as_markdown(typed or '')}, {moved.mean():.0%} of this head's attention lies elsewhere.")
    if vision:
        with source_column:
            place = _choose_place(glance, len(weights))
        _show_patches(glance, weights, place)
        return
    _show_tokens(glance, weights, batch, typed)


def _input(glance: Glance, vision: bool) -> tuple[UserInput | int, Batch]:
    """A person's own input, or the number of a window of the data; and either as the model takes it."""
    if not vision:
        source = single_choice(
            st.segmented_control,
            "Attention over",
            SOURCES,
            default=SOURCES[0],
            key="over",
            help="The text that the head reads.",
        )
        if source != SOURCES[0]:
            data = inputs.evaluation_data(glance)
            number = int(st.number_input("Window", 1, data.sequences, 1, key="window", help="Its number in the data."))
            return number - 1, data.rows([number - 1])
    own = inputs.chosen_input(glance)
    return own, own.asked


def _pattern(glance: Glance, place: UserInput | int, batch: Batch, without: Selection) -> np.ndarray:
    """The head's weights, float32 (positions, positions)."""
    from ablation_core.heads.attention import layer_patterns

    view, (layer, head) = glance.view, glance.head
    (ids,) = (batch.inputs[name] for name in batch.inputs if name != "attention_mask")
    settings = (str(without), view.method, view.bins, view.statistics.digest) if without.chosen else ()
    key = ("pattern", layer, hash(ids.numpy().tobytes()), *settings)

    def make() -> np.ndarray:
        replacements = _replacements(glance, place, without) if without.chosen else {}
        return layer_patterns(view.model, batch, layer, replacements)[0]

    return computed(view, key, "Reading the attention", make)[head]


def _replacements(glance: Glance, place: UserInput | int, without: Selection) -> dict:
    from ablation_core.experiments.ablation import AblationRun
    from ablation_core.experiments.spec import AblationSpec
    from ablation_core.experiments.user_input import UserInputRun
    from ablation_core.methods.registry import METHODS
    from ablation_core.ui.shared import SEED

    view = glance.view
    method = METHODS["mean" if METHODS[view.method].learned else view.method]
    spec = AblationSpec(without, (method,), view.bins, SEED)
    if isinstance(place, int):
        run = AblationRun(view.model, inputs.evaluation_data(glance), spec, view.statistics)
        return run.replacements.of(method, [place])
    return UserInputRun(view.model, place, spec, view.statistics).replacements[method.name]


def _show_tokens(glance: Glance, weights: np.ndarray, batch: Batch, without: str) -> None:
    from ablation_core.experiments.predictions.per_prediction import token_texts

    texts = token_texts(glance.view.model, batch.inputs["input_ids"][0].tolist())
    frame = patterns.pattern_frame(weights, texts)
    chart_column, list_column = st.columns([3, 2], gap="large")
    with chart_column:
        draw_once(
            patterns.pattern_chart(frame, texts),
            alt=f"Attention pattern of head {glance.name} over {len(texts)} tokens: rows look, columns are looked at.",
        )
    with list_column:
        st.markdown("**Strongest looks**, the first token aside")
        st.html(strongest_looks(frame))
        st.caption(
            f"Each row of the picture is a token that looks, each column one that is looked at; a row's weights sum to 1. "
            f"Weights under {patterns.LEAST:.1%} are left out."
        )


def _places(glance: Glance, positions: int) -> list[str]:
    """The names of an image's positions: CLS and registers, then the patches row by row."""
    from ablation_core.heads.scores import patch_grid

    rows, columns = patch_grid(glance.view.model, positions)
    first = positions - rows * columns
    names = ["CLS", *(f"register {one}" for one in range(1, first))][:first]
    return names + [f"patch {row}, {column}" for row in range(rows) for column in range(columns)]


def _choose_place(glance: Glance, positions: int) -> str:
    """The position of an image from which the head looks."""
    places = [*_places(glance, positions), _MEAN]
    return st.selectbox("Looking from", places, key="looking from", help="The position whose attention is shown.")


def _show_patches(glance: Glance, weights: np.ndarray, place: str) -> None:
    from ablation_core.heads.scores import patch_grid

    places = _places(glance, len(weights))
    rows, columns = patch_grid(glance.view.model, len(weights))
    first = len(weights) - rows * columns
    row = weights[places.index(place)] if place in places else weights.mean(0)
    st.html(patch_overlay(inputs.picture(glance, inputs.chosen_image(glance)), row[first:].reshape(rows, columns)))
    others = "CLS and registers" if first > 1 else "CLS"
    to_others = f" {row[:first].sum():.0%} of the attention goes to {others}." if first else ""
    st.caption(f"Purple: where it looks. Hover over a patch for its weight.{to_others}")
