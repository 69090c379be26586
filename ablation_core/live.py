"""An ablation's answer as it grows: partial outcomes while the person watches, kept once it is whole."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import streamlit as st

from ablation_core.data import Data
from ablation_core.experiment import AblationResult, AblationRun, AblationSpec
from ablation_core.harm import Harm, find_harm
from ablation_core.methods import METHODS, Method
from ablation_core.noise import NoiseFloor, noise_floor
from ablation_core.server import SEED, shared_data, shared_recording, shared_results
from ablation_core.ui import View

KEPT_RESULTS = 64


@dataclass(frozen=True)
class Outcome:
    """An ablation's result so far; once it is whole, the noise floor and each method's harm to single predictions."""

    result: AblationResult
    floor: NoiseFloor | None
    harms: dict[str, Harm] = field(default_factory=dict)


def fitting_methods(data: Data) -> list[Method]:
    """The methods that can be used on this data: a donor is another input of it."""
    return [method for method in METHODS.values() if method.constant or data.pool > 1]


def ablations(view: View) -> Iterator[Outcome]:
    """All methods on the view's selection: partial outcomes about twice a second, then the whole one.

    A change of mind ends it between two batches; a whole outcome is kept for every session of the server.
    """
    data = shared_data(view.model, view.data_ref, view.predictions, "evaluation")
    for note in data.notes:
        st.caption(note)
    key = (view.model.fingerprint, data.fingerprint, view.statistics.digest, str(view.selection), view.bins)
    kept = shared_results()
    if key in kept:
        yield kept[key]
        return
    recording = shared_recording(view.model, data)
    spec = AblationSpec(view.selection, tuple(fitting_methods(data)), view.bins, SEED)
    run = AblationRun(view.model, data, spec, view.statistics, recording)
    bar, shown = st.progress(0.0), time.monotonic()
    while run.steps_done < run.steps:
        run.step()
        bar.progress(run.steps_done / run.steps, f"{run.steps_done} of {run.steps} batches")
        if time.monotonic() - shown > 0.5 and 1 < run.steps_done < run.steps:
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
