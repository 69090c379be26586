"""The map's values where no sweep is saved: the instant estimate of every head, the same as on the Head map page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from ablation_core.errors import AblationError, as_markdown
from ablation_core.report.run_frames import HeadEstimates
from ablation_core.runs.ledger import run_path
from ablation_core.runs.sweep_result import SweepResult, empty_sweep
from ablation_core.server.turns import fair_lock
from ablation_core.ui.glance.shown import Glance
from ablation_core.ui.runs import controls as run_controls
from ablation_core.ui.runs.watching import watched
from ablation_core.ui.shared import (
    AFTER_FIRST_PICTURE,
    is_loaded,
    let_loading_begin,
    shared_data,
    shared_estimates,
    shared_jobs,
)

EVERY = 0.7  # seconds between two looks


@dataclass(frozen=True, eq=False)
class EstimatedMap:
    """Estimates of every head, after some part of the data.

    Attributes:
        sweep: one without a measured head, for its description.
        key: what decides the estimates.
    """

    sweep: SweepResult
    method: str
    estimates: HeadEstimates
    key: str
    predictions: int
    share: float


def estimated_map(glance: Glance) -> EstimatedMap | None:
    """The estimates so far; started where there are none. Says what it waits for, and draws the page again when it is there."""
    view = glance.view
    if not view.whole:
        return None
    if not is_loaded(view.info.ref):
        let_loading_begin(AFTER_FIRST_PICTURE)
        _watch(lambda: is_loaded(view.info.ref), "The model is being loaded; an estimate of every head follows.")
        return None
    from ablation_core.methods.registry import METHODS, USUAL, usable_methods
    from ablation_core.runs.sweep import SweepSpec
    from ablation_core.runs.units import describe_work
    from ablation_core.server import head_map

    model = view.model
    try:
        data = shared_data(model, view.data_ref, view.predictions, "evaluation")
    except AblationError as error:
        st.error(as_markdown(error), icon="⚠️")
        return None
    names = [name for name in usable_methods(data, model.modality) if name in {*USUAL, view.method}]
    spec = SweepSpec(tuple(METHODS[name] for name in names), view.bins)
    described = describe_work(model, data, view.statistics, view.bins)
    store = shared_estimates()
    key = (
        f"estimate for {run_path(run_controls.FOLDER, 'sweep', described).name} {' '.join(names)}"  # as on the Head map
    )
    found = store.get(key)
    if found is None or found.share < 1:
        run_controls.begin_once(
            key,
            f"Instant estimate of {model.ref}",
            lambda: head_map.estimate_steps(model, data, spec, view.statistics, store, key),
            fair_lock(model),
        )
        job = shared_jobs().get(key)
        if job is None or job.running:
            seen = found is not None
            _watch(
                lambda: _state(key) != ("running", seen),
                "Estimating every head …"
                if found is None
                else f"Estimating every head: {found.share:.0%} of the data.",
            )
        elif found is None:
            st.caption(
                as_markdown(
                    job.error or f"{model.ref} has no gradients, so the effect of its heads cannot be estimated."
                )
            )
    if found is None:
        return None
    method = "mean" if METHODS[view.method].learned else view.method
    estimates = head_map.head_estimates(found, method, "loss")
    return EstimatedMap(
        empty_sweep(model, described, names),
        method,
        estimates,
        f"{key} {found.share}",
        head_map.predictions(found),
        found.share,
    )


def _state(key: str) -> tuple[str, bool]:
    job = shared_jobs().get(key)
    return "running" if job is None or job.running else "ended", shared_estimates().get(key) is not None


def _watch(is_out_of_date: Callable[[], bool], words: str) -> None:
    @watched(is_out_of_date, EVERY)
    def said() -> None:
        st.caption(words)

    said()
