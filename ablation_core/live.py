"""An ablation's answer as it grows: partial outcomes while the person watches, kept once it is whole."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import streamlit as st

from ablation_core.data import Data
from ablation_core.experiment import AblationRun, AblationSpec
from ablation_core.harm import Harm, find_harm
from ablation_core.methods import METHODS, USUAL, Method, usable_methods
from ablation_core.noise import NoiseFloor, noise_floor
from ablation_core.results import AblationResult
from ablation_core.server import SEED, shared_data, shared_recording, shared_results
from ablation_core.ui import View

KEPT_RESULTS = 64


@dataclass(frozen=True)
class Outcome:
    """An ablation's result so far; once it is whole, the noise floor and each method's harm to single predictions."""

    result: AblationResult
    floor: NoiseFloor | None
    harms: dict[str, Harm] = field(default_factory=dict)


def compared_methods(view: View, data: Data) -> list[Method]:
    """The usual methods and the chosen one, or all that need no learning, as far as this data has donors for them."""
    every = st.session_state.get("every", False)
    return [
        METHODS[name]
        for name in usable_methods(data, view.model.modality)
        if name in USUAL or name == view.method or (every and not METHODS[name].learned)
    ]


def ablations(view: View) -> Iterator[Outcome]:
    """All methods on the view's selection: partial outcomes about twice a second, then the whole one.

    A change of mind ends it between two batches; a whole outcome is kept for every session of the server.
    """
    data = shared_data(view.model, view.data_ref, view.predictions, "evaluation")
    for note in data.notes:
        st.caption(note)
    methods = tuple(compared_methods(view, data))
    names = tuple(method.name for method in methods)
    key = (view.model.fingerprint, data.fingerprint, view.statistics.digest, str(view.selection), view.bins, names)
    kept = shared_results()
    if key in kept:
        yield kept[key]
        return
    recording = shared_recording(view.model, data)
    spec = AblationSpec(view.selection, methods, view.bins, SEED)
    run = AblationRun(view.model, data, spec, view.statistics, recording)
    bar, shown = st.progress(0.0), time.monotonic()
    while run.steps_done < run.steps:
        run.step()
        words = f"{run.batches_done} of {len(data)} batches" if run.batches_done else "learning the optimal constants"
        bar.progress(run.steps_done / run.steps, words)
        if time.monotonic() - shown > 0.5 and 1 < run.batches_done < len(data):
            yield Outcome(run.result(), None)
            shown = time.monotonic()
    result = run.result()
    yield Outcome(result, None)
    floor = None
    for floor in noise_floor(recording, view.selection, view.statistics, SEED):
        bar.progress(floor.sets / floor.sets_wanted, f"noise floor: {floor.sets} of {floor.sets_wanted} random sets")
    bar.empty()
    outcome = kept[key] = Outcome(result, floor, find_harm(run))
    while len(kept) > KEPT_RESULTS:
        kept.popitem(last=False)
    yield outcome
