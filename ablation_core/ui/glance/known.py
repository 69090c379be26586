"""What is known of every head before anything is measured or loaded: the saved sweep of a model and its data, and the
answers to the example input, which come with the project.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from ablation_core.methods.registry import METHODS
from ablation_core.models.info import ModelInfo
from ablation_core.runs.sweep_result import SweepResult, kept_sweeps
from ablation_core.selection import Head
from ablation_core.server.answers import ExampleImage, KnownAnswers, TopAnswers, find_answers
from ablation_core.storage import reading_places
from ablation_core.ui.runs import controls as run_controls
from ablation_core.ui.runs.choice import may_be_shown

if TYPE_CHECKING:
    from ablation_core.ui.sidebar.view import View


@dataclass(frozen=True, eq=False)
class KnownEffects:
    """A saved sweep and its file."""

    path: Path
    sweep: SweepResult

    def method(self, wanted: str) -> str:
        """The method that is drawn: the one wanted where it was measured, else the mean, else any."""
        return next((name for name in (wanted, "mean") if name in self.sweep.methods), self.sweep.methods[0])

    @property
    def strongest_head(self) -> Head | None:
        """The head that matters most whichever value replaces it: its smallest change of loss is the largest.

        One whose change is significant by every method, where there is one.
        """
        changes = [self.sweep.changes(method, "loss") for method in self.sweep.methods]
        heads = set.intersection(*(set(one) for one in changes)) if changes else set()
        sure = heads.intersection(*(self.sweep.significant(method, "loss") for method in self.sweep.methods))
        if not heads:
            return None
        # The name decides between equals, so that everyone sees the same head.
        layer, head = max(sorted(sure or heads), key=lambda name: min(one[name] for one in changes)).split(".")
        return int(layer), int(head)


def known_effects(info: ModelInfo, data_ref: str) -> KnownEffects | None:
    """The whole sweep of this model on this data with the most predictions; None where there is none to show."""
    return _known(info, info.fingerprint, data_ref, _files(run_controls.FOLDER), run_controls.FOLDER)


def _files(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """The saved sweeps as they are now."""
    paths = (path for place in reading_places(folder) for path in (place / "runs").glob("sweep-*.jsonl"))
    states = ((str(path), path.stat()) for path in paths)
    return tuple(sorted((path, state.st_mtime_ns, state.st_size) for path, state in states))


@st.cache_resource(max_entries=16, show_spinner=False)
def _known(
    _info: ModelInfo, fingerprint: str, data_ref: str, files: tuple[tuple[str, int, int], ...], folder: Path
) -> KnownEffects | None:
    for path, sweep in kept_sweeps(_info, folder, data_ref=data_ref).items():  # the most predictions first
        if may_be_shown(sweep.description) and len(sweep.heads) == len(sweep.wanted):
            return KnownEffects(path, sweep)
    return None


def published_answer(view: View, head: str, asked: str) -> TopAnswers | None:
    """The input with and without a head, if that comes with the project, by the method that is chosen.

    Args:
        asked: the input's name, see `KnownAnswers`.
    """
    found = _published_for(view).answer(head, asked)
    if found is None or not (view.method in found.after or METHODS[view.method].learned):
        return None
    return found


def published_images(view: View) -> tuple[ExampleImage, ...]:
    """The example images of this data, if they come with the project."""
    return _published_for(view).images


def _published_for(view: View) -> KnownAnswers:
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
