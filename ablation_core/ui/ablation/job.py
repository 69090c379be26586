"""An ablation's result as it grows: a background job measures it, the page looks at it and stays responsive.

A slow model is estimated first, from one window, and then measured window by window, so that the interval narrows while
one watches. Changing the view stops the job and starts the next without waiting for it. A finished result is cached for
every session of the server.
"""

import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256

import streamlit as st

from ablation_core.data.dataset import Data
from ablation_core.engine.hooks import Replace
from ablation_core.errors import AblationError
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.estimate import EstimateRun
from ablation_core.experiments.estimate_result import Estimated
from ablation_core.experiments.noise_floor import SETS, NoiseFloor, noise_floor_steps
from ablation_core.experiments.predictions.per_prediction import PredictionEffects, effect_per_prediction
from ablation_core.experiments.results import AblationResult
from ablation_core.experiments.spec import AblationSpec
from ablation_core.methods.registry import METHODS, USUAL, Method, usable_methods
from ablation_core.report.numbers import sample_unit
from ablation_core.selection import Selection
from ablation_core.server.jobs import Job
from ablation_core.server.lru import LRU
from ablation_core.server.turns import fair_lock, waiting_words
from ablation_core.ui.runs.watching import me
from ablation_core.ui.shared import (
    SEED,
    shared_ablations,
    shared_clean_passes,
    shared_data,
    shared_quick_estimates,
    shared_results,
)
from ablation_core.ui.sidebar.view import View

SLOW_WEIGHTS = 30_000_000  # a model with more is estimated first and run one window at a time
PROMPT = 2.0  # seconds that a page waits for the methods' results before it draws what stands below
FLOOR_PROMPT = 0.0  # seconds that it waits for the noise floor as well
EVERY = 0.7  # seconds between two checks after that
_PULSE = 0.1  # seconds between two movements of the progress bar before that
_BETWEEN = 0.35  # seconds between two partial results: their intervals take some of the time
_MINE, _STOPPED = "my ablation", "stopped ablation"


@dataclass(frozen=True)
class QuickEstimate:
    """An ablation's estimated change of loss before it is measured, in nats per prediction, by method."""

    changes: dict[str, float]
    predictions: int


@dataclass(frozen=True)
class AblationProgress:
    """An ablation's result so far.

    Attributes:
        result: over what is measured; None before the first batch.
        floor: the noise floor, as far as its random sets are measured.
        effects: each method's effect on every prediction, once all are measured.
        learned: the replacements that were learned, once all is measured.
        estimate: of a slow model.
        share: how much of the work is done.
        doing: the present step, for the progress bar.
    """

    result: AblationResult | None
    floor: NoiseFloor | None = None
    effects: dict[str, PredictionEffects] = field(default_factory=dict)
    learned: dict[str, dict[int, Replace]] = field(default_factory=dict)
    estimate: QuickEstimate | None = None
    share: float = 1.0
    doing: str = ""

    @property
    def measured(self) -> bool:
        """Whether all methods are measured on all predictions; the noise floor may still be growing."""
        return bool(self.effects)

    @property
    def whole(self) -> bool:
        return self.measured and self.share >= 1


@dataclass(frozen=True, eq=False)
class AblationRequest:
    """A view's ablation with what decides its result."""

    view: View
    data: Data
    methods: tuple[Method, ...]

    @property
    def key(self) -> str:
        view, names = self.view, ",".join(method.name for method in self.methods)
        parts = (view.info.fingerprint, self.data.fingerprint, view.statistics.digest, view.selection, view.bins, names)
        return sha256(" | ".join(map(str, parts)).encode()).hexdigest()

    @property
    def name(self) -> str:
        return f"{self.view.info.ref} without {self.view.selection}"


def compared_methods(view: View, data: Data) -> list[Method]:
    """The usual methods and the chosen one, or all that need no learning, as far as this data has inputs to resample."""
    every = st.session_state.get("every", False)
    return [
        METHODS[name]
        for name in usable_methods(data, view.info.modality)
        if name in USUAL or name == view.method or (every and not METHODS[name].learned)
    ]


def is_slow(view: View) -> bool:
    return sum(weight.numel() for weight in view.model.module.parameters()) > SLOW_WEIGHTS


def request_of(view: View) -> AblationRequest:
    """What the view asks for: all compared methods on its selection and predictions."""
    data = shared_data(view.model, view.data_ref, view.predictions, "evaluation")
    if is_slow(view):
        data = replace(data, batch_size=1)
    return AblationRequest(view, data, tuple(compared_methods(view, data)))


def forget_failure(request: AblationRequest) -> None:
    """Let a page that is opened again try again."""
    if (ended := shared_ablations().get(request.key)) and ended.error:
        shared_ablations().forget(request.key)


def progress_of(request: AblationRequest) -> AblationProgress:
    """The result so far, at one moment; starts the job where there is neither a result nor a job.

    Raises:
        AblationError: the job ended with one.
    """
    if (
        whole := shared_results().get(request.key)
    ) is not None:  # one look-up: another session may drop it at any moment
        return whole
    if (ended := shared_ablations().get(request.key)) and not ended.running and ended.error:
        raise AblationError(ended.error)
    return begin(request).result or AblationProgress(None, share=0.0)


def wait(request: AblationRequest, seconds: float | None = None) -> AblationProgress:
    """The result once all methods are measured, or after so many seconds (`PROMPT`), with a progress bar until then."""
    began, found, place = time.monotonic(), progress_of(request), st.empty()
    patience = PROMPT if seconds is None else seconds
    while not (found.whole or is_stopped(request)):
        if time.monotonic() - began >= (min(FLOOR_PROMPT, patience) if found.measured else patience):
            break
        job = shared_ablations().get(request.key)
        if job is not None:
            place.progress(job.share, job_words(request, job))  # drawing is also where a change of mind ends this
            job.wait(_PULSE)
        found = progress_of(request)
    place.empty()
    return found


def is_stopped(request: AblationRequest) -> bool:
    """Whether this session has stopped the job by hand."""
    return st.session_state.get(_STOPPED) == request.key and shared_results().get(request.key) is None


def begin(request: AblationRequest) -> Job:
    """The job of a request, started unless it is running or was stopped by hand; this session's other one is stopped."""
    jobs, mine = shared_ablations(), st.session_state.get(_MINE)
    job = jobs.get(request.key)
    if job is not None and ((job.running and not job.stopping) or st.session_state.get(_STOPPED) == request.key):
        job.look(me())
        return job
    if mine and mine != request.key and (earlier := jobs.get(mine)):
        earlier.leave(me())
    st.session_state[_MINE] = request.key
    st.session_state.pop(_STOPPED, None)
    kept, clean_cache, view = shared_results(), shared_clean_passes(request.view.model, request.data), request.view
    model, estimates, slow = view.model, shared_quick_estimates(), is_slow(view)

    def steps() -> Generator[AblationProgress]:
        estimate = None
        if slow and view.selection.chosen:
            yield AblationProgress(None, share=0.0, doing="estimating from one window")
            with suppress(RuntimeError):  # without gradients, or memory for them, the measurement is all there is
                estimate = _quick_estimate(request, estimates)
            yield AblationProgress(None, estimate=estimate, share=0.0, doing="measuring the first window")
        spec = AblationSpec(view.selection, request.methods, view.bins, SEED)
        run = AblationRun(model, request.data, spec, view.statistics, clean_cache)
        for outcome in _measured(run, view):
            if outcome.whole:
                kept.keep(request.key, outcome)
            yield replace(outcome, estimate=estimate)

    job = jobs.start(request.key, request.name, steps, fair_lock(model))
    job.look(me())
    return job


def _measured(run: AblationRun, view: View) -> Generator[AblationProgress]:
    """Batch after batch, then the effect of every prediction, then the noise floor, set after set."""
    sets = SETS if run.spec.selection.chosen else 0
    total = run.steps + len(run.data) * sets
    outcome, shown = AblationProgress(None, share=0.0), 0.0
    after = " + noise floor" if sets else ""  # the time that is left is that of both
    while run.steps_done < run.steps:
        run.step()
        what = "windows" if run.data.batch_size == 1 else "batches"
        words = (
            f"{run.batches_done} of {len(run.data)} {what}{after}"
            if run.batches_done
            else "learning the optimal constants"
        )
        due = time.monotonic() - shown > _BETWEEN or run.steps_done == run.steps
        result = run.result() if run.batches_done and due else outcome.result
        shown = time.monotonic() if due else shown
        outcome = AblationProgress(result, share=run.steps_done / total, doing=words)
        yield outcome
    effects, learned = effect_per_prediction(run), run.replacements.learned()
    floor, names = None, [method.name for method in run.spec.methods if not method.learned]
    yield AblationProgress(outcome.result, None, effects, learned, share=run.steps / total if sets else 1.0)
    for floor in (
        noise_floor_steps(run.clean_cache, view.selection, view.statistics, SEED, names, view.bins, sets)
        if names
        else ()
    ):
        share = (run.steps + (total - run.steps) * floor.sets / floor.sets_wanted) / total
        words = f"noise floor: {floor.sets} of {floor.sets_wanted} random sets"
        yield AblationProgress(outcome.result, floor, effects, learned, share=min(share, 0.999), doing=words)
    yield AblationProgress(outcome.result, floor, effects, learned)


def _quick_estimate(request: AblationRequest, estimates: LRU) -> QuickEstimate:
    """The estimate from the first window; one serves every selection of the same model, statistics and methods."""
    view = request.view
    methods = [method for method in request.methods if not method.learned]
    one = replace(request.data, sequences=1)
    names = ",".join(method.name for method in methods)
    key = f"estimate {view.info.fingerprint} {one.fingerprint} {view.statistics.digest} {view.bins} {names}"
    result, changes = estimates.get(key), {}
    if result is None:
        run = EstimateRun(view.model, one, methods, statistics=view.statistics, bins=view.bins, seed=SEED, passes=1)
        result = estimates.keep(key, run.finish().result())
    for estimated in result.methods:
        parts = (_part(estimated.loss, view.selection, *head) for head in view.selection.chosen)
        changes[estimated.method] = float(sum(parts))
    return QuickEstimate(changes, result.description["data"]["predictions"])


def _part(loss: Estimated, selection: Selection, head: tuple[int, int], neurons: tuple[int, ...]) -> float:
    """A head's estimate or, of some of its neurons, the sum of theirs."""
    whole = len(neurons) == selection.shape.size(head[0])
    return float(loss.heads[head]) if whole else float(loss.neurons[head][list(neurons)].sum())


def show_progress(request: AblationRequest, progress: AblationProgress) -> None:
    """How far the job is, with a button that stops it; or, once stopped, one that continues."""
    bar_column, button_column = st.columns([5, 2], vertical_alignment="center")
    if is_stopped(request):
        done = 0 if progress.result is None else progress.result.data["predictions"]
        bar_column.markdown(
            f"**Stopped** after {done:,} of {request.data.predictions:,} {sample_unit(request.view.info.modality)}."
        )
        if button_column.button("Continue", key="continue the ablation", help="Measure the rest.", width="stretch"):
            st.session_state.pop(_STOPPED)
            st.rerun()
        return
    job = shared_ablations().get(request.key)
    if job is None:
        return
    words = waiting_words(request.view.info.ref) if _waits(job) else progress.doing or "starting"
    bar_column.progress(progress.share, words + job.time_left)
    if button_column.button("Stop", key="stop the ablation", help="Save what has been measured.", width="stretch"):
        st.session_state[_STOPPED] = request.key
        job.leave(me())
        st.rerun()


def job_words(request: AblationRequest, job: Job) -> str:
    """The job's present step; before its first window it may have to wait for others who run the model."""
    if _waits(job):
        return waiting_words(request.view.info.ref)
    return job.result.doing if job.result else "starting"


def _waits(job: Job) -> bool:
    return job.share == 0 and job.waiting
