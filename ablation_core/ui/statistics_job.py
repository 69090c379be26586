"""Statistics computed from a page: a job runs, the page draws the statistics so far, and can be left or stopped.

Whole statistics are saved, with the same digest as the command line's; partial ones are only shown (see
`Accumulator.settled`) and never saved.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from ablation_core.activations import files
from ablation_core.activations.statistics import Statistics
from ablation_core.data.references import STATISTICS_PREDICTIONS
from ablation_core.errors import AblationError, as_markdown
from ablation_core.server.turns import fair_lock, waiting_words
from ablation_core.ui.runs.expected import say, seconds_of_statistics
from ablation_core.ui.runs.watching import me, watched
from ablation_core.ui.shared import shared_data, shared_jobs

if TYPE_CHECKING:
    from ablation_core.data.dataset import Data
    from ablation_core.models.info import ModelInfo
    from ablation_core.models.loaded import LoadedModel

EVERY = 1.5  # seconds between two partial statistics


@dataclass(frozen=True, eq=False)
class Counted:
    """The statistics so far.

    Attributes:
        share: how much of the data is counted.
        statistics: new at the first batch, and then at intervals; whole at a share of 1.
    """

    share: float
    tokens: int
    statistics: Statistics


def counting_steps(model: LoadedModel, data: Data, folder: Path | None = None) -> Generator[Counted]:
    """Count batch after batch, and save the whole statistics in the cache folder."""
    from ablation_core.activations.collect import StatisticsRun

    run, counted, looked = StatisticsRun(model, data), None, 0.0
    while run.steps_done < run.steps:
        run.step()
        whole = run.steps_done == run.steps
        if run.tokens and (counted is None or whole or time.monotonic() - looked > EVERY):
            counted, looked = run.result(), time.monotonic()
            if whole:
                files.save_statistics(counted, *([folder] if folder else []))
        if counted is not None:
            yield Counted(run.steps_done / run.steps, run.tokens, counted)


def offer(info: ModelInfo, ref: str, model: LoadedModel) -> Statistics | None:
    """A button that starts the computation or, while it is running, its progress; the statistics so far, once there are any.

    Raises:
        AblationError: the computation ended with one, or cannot be started.
    """
    key = f"statistics {info.fingerprint} {ref}"
    jobs = shared_jobs()
    job = jobs.get(key)
    if job is not None and job.running and not job.stopping:
        _progress(key, model)
        return None if job.result is None else job.result.statistics
    if job is not None and job.error:
        jobs.forget(key)
        raise AblationError(job.error)
    st.info(as_markdown(f"There are no statistics of {info.ref} on {ref} yet."))
    if others := files.other_statistics(model, ref):
        st.caption(as_markdown(others[0].upper() + others[1:]))
    data = shared_data(model, ref, STATISTICS_PREDICTIONS[model.modality], "statistics")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Compute statistics",
            key=f"compute {key}",
            type="primary",
            on_click=_begin,
            args=(key, model, data),
            help="The first charts appear after the first batch, and become more precise as more is counted.",
        )
        say(seconds_of_statistics(model, data))
    if refused := st.session_state.pop(_REFUSED, None):
        raise AblationError(refused)
    return None


_REFUSED = "statistics refused"


def _begin(key: str, model: LoadedModel, data: Data) -> None:
    try:
        files.check_can_save(model)
        shared_jobs().start(
            key, f"statistics of {model.ref} on {data.ref}", lambda: counting_steps(model, data), fair_lock(model), me()
        )
    except AblationError as error:
        st.session_state[_REFUSED] = str(error)


def _progress(key: str, model: LoadedModel) -> None:
    """How far the computation is; new partial statistics, and the end, draw the whole page again."""
    seen = shared_jobs().get(key)
    drawn = seen and seen.result and seen.result.statistics

    def is_out_of_date() -> bool:
        job = shared_jobs().get(key)
        if job is None or not job.running or job.stopping:
            return True
        return job.result is not None and job.result.statistics is not drawn

    @watched(is_out_of_date, 0.7)
    def show() -> None:
        if (job := shared_jobs().get(key)) is None:
            return
        job.look(me())
        if job.result:
            words = f"{job.result.tokens:,} positions counted"
        else:
            words = waiting_words(model.ref) if job.waiting else "counting the first positions"
        st.progress(job.share, words + job.time_left)
        if job.may_be_stopped_by(me()):
            st.button("Cancel", key=f"cancel {key}", on_click=job.stop, help="The statistics so far are discarded.")

    show()
