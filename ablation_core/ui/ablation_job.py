"""An ablation's answer as it grows: a job behind the page measures, the page looks at it and stays free.

A slow model is estimated first, from one window, and then measured window by window, so that the interval shrinks while
one looks. A change of mind stops the job and begins the next without waiting for it. A whole answer is kept for every
session of the server.
"""

import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256

import streamlit as st

from ablation_core.data.dataset import Data
from ablation_core.engine.hooks import Replace
from ablation_core.errors import AblationError
from ablation_core.experiments.ablation import AblationRun, AblationSpec
from ablation_core.experiments.estimate import Estimated, EstimateRun
from ablation_core.experiments.noise_floor import SETS, NoiseFloor, noise_floor_steps
from ablation_core.experiments.per_prediction import PredictionEffects, effect_per_prediction
from ablation_core.experiments.results import AblationResult
from ablation_core.methods.registry import METHODS, USUAL, Method, usable_methods
from ablation_core.selection import Selection
from ablation_core.server.jobs import Job
from ablation_core.server.lru import LRU
from ablation_core.server.turns import fair_lock, waiting_words
from ablation_core.ui.shared import (
    SEED,
    shared_ablations,
    shared_clean_passes,
    shared_data,
    shared_quick_estimates,
    shared_results,
)
from ablation_core.ui.sidebar import View

SLOW_WEIGHTS = 30_000_000  # a model with more is estimated first and run one window at a time
PROMPT = 2.0  # seconds that a page waits for a whole answer before it draws what stands below
EVERY = 0.7  # seconds between two looks after that
_PULSE = 0.1  # seconds between two movements of the progress bar before that
_BETWEEN = 0.35  # seconds between two partial results: their intervals take some of the time
_MINE, _STOPPED = "my ablation", "stopped ablation"


@dataclass(frozen=True)
class Estimate:
    """What an ablation is estimated to do before it is measured: by each method the change of loss, in nats."""

    changes: dict[str, float]
    predictions: int


@dataclass(frozen=True)
class AblationProgress:
    """An ablation's answer so far.

    Attributes:
        result: over what is measured; None before the first batch.
        floor: the noise floor, once the result is over all predictions.
        harms: each method's harm to single predictions, once all is done.
        learned: the replacements that were learned, once all is done.
        guess: the estimate, of a slow model.
        share: how much of the work is done.
        doing: what is being done now, in words.
    """

    result: AblationResult | None
    floor: NoiseFloor | None = None
    harms: dict[str, PredictionEffects] = field(default_factory=dict)
    learned: dict[str, dict[int, Replace]] = field(default_factory=dict)
    guess: Estimate | None = None
    share: float = 1.0
    doing: str = ""

    @property
    def whole(self) -> bool:
        return bool(self.harms)


@dataclass(frozen=True, eq=False)
class AblationRequest:
    """A view's ablation with what decides its answer."""

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
    """The usual methods and the chosen one, or all that need no learning, as far as this data has donors for them."""
    every = st.session_state.get("every", False)
    return [
        METHODS[name]
        for name in usable_methods(data, view.info.modality)
        if name in USUAL or name == view.method or (every and not METHODS[name].learned)
    ]


def is_slow(view: View) -> bool:
    return sum(weight.numel() for weight in view.model.module.parameters()) > SLOW_WEIGHTS


def asked(view: View) -> AblationRequest:
    """What the view asks: all compared methods on its selection and predictions."""
    data = shared_data(view.model, view.data_ref, view.predictions, "evaluation")
    if is_slow(view):
        data = replace(data, batch_size=1)
    return AblationRequest(view, data, tuple(compared_methods(view, data)))


def watched(question: AblationRequest, seconds: float | None = None) -> Iterator[AblationProgress]:
    """The answer as it grows, for so many seconds (`PROMPT`) at most; begins the job where there is neither answer nor job.

    Raises:
        AblationError: the job ended by one.
    """
    kept, jobs = shared_results(), shared_ablations()
    if (whole := kept.get(question.key)) is not None:  # one look-up: another session may drop it at any moment
        yield whole
        return
    if (ended := jobs.get(question.key)) and not ended.running and ended.error:
        jobs.forget(question.key)  # the next look tries again
        raise AblationError(ended.error)
    job, place = begin(question), st.empty()
    shown, until = AblationProgress(None), time.monotonic() + (PROMPT if seconds is None else seconds)
    while job.running and time.monotonic() < until:
        job.wait(_PULSE)
        place.progress(job.share, _words(question, job))  # drawing is also where a change of mind ends this
        now = job.result or shown
        if now.share < 1 and (now.result is not shown.result or now.guess is not shown.guess):
            shown = now
            yield now
    place.empty()
    if (whole := kept.get(question.key)) is not None:
        yield whole
    elif job.error and not job.running:
        jobs.forget(question.key)
        raise AblationError(job.error)
    elif job.result is not None:
        yield job.result


def begin(question: AblationRequest) -> Job:
    """The job that answers, begun where it is not under way or was stopped by hand; this session's other one is stopped."""
    jobs, mine = shared_ablations(), st.session_state.get(_MINE)
    job = jobs.get(question.key)
    if job is not None and ((job.running and not job.stopping) or st.session_state.get(_STOPPED) == question.key):
        job.look(_me())
        return job
    if mine and mine != question.key and (earlier := jobs.get(mine)):
        earlier.leave(_me())
    st.session_state[_MINE] = question.key
    st.session_state.pop(_STOPPED, None)
    kept, clean_cache, view = shared_results(), shared_clean_passes(question.view.model, question.data), question.view
    model, guesses, slow = view.model, shared_quick_estimates(), is_slow(view)

    def steps() -> Generator[AblationProgress]:
        guess = None
        if slow and view.selection.chosen:
            yield AblationProgress(None, share=0.0, doing="estimating from one window")
            with suppress(RuntimeError):  # without gradients, or memory for them, the measurement is all there is
                guess = _guess(question, guesses)
            yield AblationProgress(None, guess=guess, share=0.0, doing="measuring the first window")
        spec = AblationSpec(view.selection, question.methods, view.bins, SEED)
        run = AblationRun(model, question.data, spec, view.statistics, clean_cache)
        for outcome in _measured(run, view):
            if outcome.whole:
                kept.keep(question.key, outcome)
            yield replace(outcome, guess=guess)

    job = jobs.start(question.key, question.name, steps, fair_lock(model))
    job.look(_me())
    return job


def _me() -> str:
    """This session among those that watch a job."""
    return st.session_state.setdefault("me", uuid.uuid4().hex)


def _measured(run: AblationRun, view: View) -> Generator[AblationProgress]:
    """Batch after batch, then the noise floor's sets, then the whole answer."""
    sets = SETS if run.spec.selection.chosen else 0
    total = run.steps + len(run.data) * sets / max(len(run.spec.methods), 1)
    outcome, shown = AblationProgress(None, share=0.0), 0.0
    while run.steps_done < run.steps:
        run.step()
        what = "windows" if run.data.batch_size == 1 else "batches"
        words = (
            f"{run.batches_done} of {len(run.data)} {what}" if run.batches_done else "learning the optimal constants"
        )
        due = time.monotonic() - shown > _BETWEEN or run.steps_done == run.steps
        result = run.result() if run.batches_done and due else outcome.result
        shown = time.monotonic() if due else shown
        outcome = AblationProgress(result, share=run.steps_done / total, doing=words)
        yield outcome
    floor = None
    for floor in noise_floor_steps(run.clean_cache, view.selection, view.statistics, SEED):
        share = (run.steps + (total - run.steps) * floor.sets / floor.sets_wanted) / total
        words = f"noise floor: {floor.sets} of {floor.sets_wanted} random sets"
        yield replace(outcome, share=min(share, 0.999), doing=words)
    yield AblationProgress(outcome.result, floor, effect_per_prediction(run), run.learned())


def _guess(question: AblationRequest, guesses: LRU) -> Estimate:
    """The estimate from the first window; one serves every selection of the same model, statistics and methods."""
    view = question.view
    methods = [method for method in question.methods if not method.learned]
    one = replace(question.data, sequences=1)
    names = ",".join(method.name for method in methods)
    key = f"guess {view.info.fingerprint} {one.fingerprint} {view.statistics.digest} {view.bins} {names}"
    result, changes = guesses.get(key), {}
    if result is None:
        run = EstimateRun(view.model, one, methods, statistics=view.statistics, bins=view.bins, seed=SEED, passes=1)
        result = guesses.keep(key, run.finish().result())
    for estimated in result.methods:
        parts = (_part(estimated.loss, view.selection, *head) for head in view.selection.chosen)
        changes[estimated.method] = float(sum(parts))
    return Estimate(changes, result.description["data"]["predictions"])


def _part(loss: Estimated, selection: Selection, head: tuple[int, int], neurons: tuple[int, ...]) -> float:
    """A head's estimate or, of some of its neurons, the sum of theirs."""
    whole = len(neurons) == selection.shape.head_dim
    return float(loss.heads[head]) if whole else float(loss.neurons[head][list(neurons)].sum())


def keep_watching(question: AblationRequest, show: Callable[[AblationProgress], None], controls: bool = False) -> None:
    """Look at the job every moment, while the rest of the page can be used; the page is drawn anew once it is done.

    Args:
        show: draws an outcome here, and nowhere else: what a fragment draws elsewhere can break the page.
        controls: whether the progress, with a button that stops it, stands below.
    """
    stopped = st.session_state.get(_STOPPED) == question.key

    def look() -> None:
        job = shared_ablations().get(question.key)
        if job is None or (not job.running and not stopped):
            st.rerun()
        job.look(_me())
        show(job.result or AblationProgress(None, share=0.0))
        if controls:
            _controls(question, job, stopped)

    st.fragment(look, run_every=None if stopped else EVERY)()


def _controls(question: AblationRequest, job: Job, stopped: bool) -> None:
    bar_column, button_column = st.columns([5, 1], vertical_alignment="center")
    if stopped:
        bar_column.caption(f"Stopped at {job.share:.0%}; what is shown is measured on the part that was done.")
        if button_column.button("Go on", key="go on with the ablation", help="Measure the rest."):
            st.session_state.pop(_STOPPED)
            st.rerun()
        return
    bar_column.progress(job.share, f"{_words(question, job)}{job.time_left}")
    if button_column.button("Stop", key="stop the ablation", help="Keep what is measured so far."):
        st.session_state[_STOPPED] = question.key
        job.leave(_me())
        st.rerun()


def _words(question: AblationRequest, job: Job) -> str:
    """What the job is doing; before its first window it may have to wait for others who run the model."""
    if job.share == 0 and job.waiting:
        return waiting_words(question.view.info.ref)
    return job.result.doing if job.result else "beginning"
