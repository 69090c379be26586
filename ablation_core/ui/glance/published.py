"""The answers that the first page has before its model is loaded: those that come with the project."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from ablation_core.methods.registry import METHODS
from ablation_core.models.info import ModelInfo
from ablation_core.runs.answers import ExampleImage, KnownAnswers, TopAnswers, find_answers
from ablation_core.ui.glance.shown import Glance
from ablation_core.ui.runs import controls as run_controls


def published_answer(glance: Glance, asked: str) -> TopAnswers | None:
    """The input without and with the head on show, if that comes with the project, by the method that is chosen.

    Args:
        asked: the input's name, see `KnownAnswers`.
    """
    view, found = glance.view, _published_for(glance).answer(glance.name, asked)
    if found is None or not (view.method in found.after or METHODS[view.method].learned):
        return None
    return found


def published_images(glance: Glance) -> tuple[ExampleImage, ...]:
    """The example images of this data, if they come with the project."""
    return _published_for(glance).images


def _published_for(glance: Glance) -> KnownAnswers:
    view = glance.view
    if not view.whole:
        return KnownAnswers({})
    return _published(
        view.info,
        view.info.fingerprint,
        view.data_ref,
        view.statistics.digest,
        view.bins,
        view.predictions,
        run_controls.FOLDER,
    )


@st.cache_resource(max_entries=16, show_spinner=False)
def _published(
    _info: ModelInfo, fingerprint: str, data_ref: str, digest: str, bins: int, predictions: int, folder: Path
) -> KnownAnswers:
    return find_answers(_info, data_ref, digest, bins, predictions, folder)
