"""What all sessions of a server share: models, data, statistics, clean passes and results, each bounded in number.

Streamlit hashes neither modules nor, reliably, large arrays: everything here is found by its own fingerprint. What needs
torch is imported when it is first asked for, so that the first picture does not wait for it.
"""

from __future__ import annotations

import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import streamlit as st

from ablation_core import bundled
from ablation_core.activations import files
from ablation_core.activations.files import CacheEntry
from ablation_core.activations.statistics import Statistics
from ablation_core.data.references import Split, source_digest
from ablation_core.errors import AblationError, StatisticsError
from ablation_core.loading.folders import folder_state
from ablation_core.models.info import ModelInfo
from ablation_core.server import access
from ablation_core.server.jobs import Jobs
from ablation_core.server.lru import LRU
from ablation_core.server.turns import fair_lock

if TYPE_CHECKING:
    from ablation_core.activations.all_neurons import AllNeurons
    from ablation_core.activations.by_position import ByPosition
    from ablation_core.data.dataset import Data
    from ablation_core.engine.clean_passes import CleanPassCache
    from ablation_core.models.loaded import LoadedModel

SEED = 0
AFTER_FIRST_PICTURE = 1.0  # seconds until a model is loaded in the background: the browser draws meanwhile
LONGEST_DRAWING = 30.0  # seconds until it is loaded where a page waits for `let_loading_begin`


def shared_model(ref: str) -> LoadedModel:
    """A model, if it is offered; loaded again if its folder has changed."""
    ref = access.ACCESS.check_model(ref)
    return _model(ref, folder_state(ref))


def known_model_info(ref: str) -> ModelInfo | None:
    """What is known of a model that need not be loaded for that: while it is in memory, or where it is bundled."""
    return shared_model(ref).info if is_loaded(ref) else bundled.CARDS.get(ref)


def is_loaded(ref: str) -> bool:
    """Whether the model is in memory, as its folder is now."""
    return (ref, folder_state(ref)) in _models_in_use()


def load_in_background(ref: str, first_import: str = "", patience: float = AFTER_FIRST_PICTURE) -> None:
    """Load a model soon, and before it import a module that the next page needs, unless that was begun; returns at once.

    Args:
        patience: seconds until it begins, unless `let_loading_begin` was called before.
    """
    if is_loaded(ref) or ref in _loading():
        return
    may_begin, until = _loading_may_begin(), time.monotonic() + patience

    def load() -> None:
        try:
            while not may_begin.wait(0.1) and time.monotonic() < until:
                if not threading.main_thread().is_alive():
                    return
            if first_import:
                import_module(first_import)
            shared_model(ref)
        except AblationError:
            pass  # whoever asks for the model gets the sentence
        finally:
            _loading().discard(ref)

    _loading().add(ref)
    threading.Thread(target=load).start()  # no daemon: a process that ends amid loading would be aborted


def let_loading_begin(after: float = 0.0) -> None:
    """What loads in the background may begin: the browser has drawn the page, or something on it waits for the model.

    Until then importing torch would only slow down the first picture, which needs none of it.

    Args:
        after: seconds, for the browser to draw what there is.
    """
    if not _loading_may_begin().is_set():
        timer = threading.Timer(after, _loading_may_begin().set)
        timer.daemon = True
        timer.start()


def shared_data(model: LoadedModel, ref: str, predictions: int, split: Split) -> Data:
    """A data set, if it is offered: `source_digest` already reads the file."""
    access.ACCESS.check_data(ref)
    access.ACCESS.check_predictions(predictions)
    return _data(model, model.fingerprint, ref, source_digest(ref), predictions, split)


def shared_clean_passes(model: LoadedModel, data: Data) -> CleanPassCache:
    return _clean_passes(model, data, model.fingerprint, data.fingerprint, data.batch_size)


def find_shared_statistics(model: LoadedModel | ModelInfo, ref: str) -> CacheEntry | None:
    """The statistics file of a model and of data that is offered; None where it is to be computed.

    Raises:
        StatisticsError: there is none, and computing is for whoever runs the server.
    """
    entry = files.find_statistics(model, access.ACCESS.check_data(ref))
    if entry is None and access.ACCESS.shared:
        raise StatisticsError(
            f"There are no statistics of {model.ref} on {ref} here. Whoever runs this server can compute them: "
            f"python -m ablation_core stats {model.ref} --data {ref}"
        )
    return entry


def shared_statistics(model: LoadedModel | ModelInfo, entry: CacheEntry) -> Statistics:
    try:
        changed = entry.path.stat().st_mtime_ns
    except OSError as error:  # deleted since it was found
        raise StatisticsError(f"The statistics cannot be read: {error}. Reload the page.") from error
    return _statistics(str(entry.path), changed, model, model.fingerprint)


def shared_all_neurons(statistics: Statistics, bins: int) -> AllNeurons:
    return _all_neurons(statistics, statistics.digest, bins)


def shared_positions(model: LoadedModel, data: Data, layer: int) -> ByPosition:
    return _positions(model, data, model.fingerprint, data.fingerprint, layer)


@st.cache_resource
def shared_results() -> LRU:
    """Outcomes of ablations by what decides them."""
    return LRU(64)


@st.cache_resource
def shared_jobs() -> Jobs:
    """Long runs, running or ended."""
    return Jobs()


@st.cache_resource
def shared_ablations() -> Jobs:
    """Ablations being measured in the background: one per session, ended soon after its tab is closed."""
    return Jobs(most=64, patience=30.0)


@st.cache_resource
def shared_quick_estimates() -> LRU:
    """Estimates of all heads and neurons from one window; every selection reads its own from them."""
    return LRU(16)


@st.cache_resource
def shared_estimates() -> LRU:
    """Instant estimates of head maps by what decides them."""
    return LRU(16)


@st.cache_resource
def shared_maps() -> LRU:
    """Adaptive head maps by what decides them."""
    return LRU(16)


@st.cache_resource
def shared_answers() -> LRU:
    """Answers to people's own inputs by what decides them."""
    return LRU(64)


@st.cache_resource
def _loading_may_begin() -> threading.Event:
    """Whether any page of this server was drawn, or waits for a model."""
    return threading.Event()


@st.cache_resource
def _loading() -> set[str]:
    """References of models on their way in the background."""
    return set()


@st.cache_resource(max_entries=3, show_spinner=False)
def _model(ref: str, state: str) -> LoadedModel:
    from ablation_core.loading.load import load_model

    model = _models_in_use().get((ref, state)) or load_model(ref)
    fair_lock(model)
    model.may_change = False  # nobody else has it: its fingerprint need not be made sure of at each rerun
    _models_in_use()[ref, state] = model
    return model


@st.cache_resource
def _models_in_use() -> WeakValueDictionary:
    """Models that are in memory: one that an open page still shows is not loaded a second time."""
    return WeakValueDictionary()


@st.cache_resource(max_entries=6, show_spinner=False)
def _data(_model: LoadedModel, fingerprint: str, ref: str, source: str, predictions: int, split: Split) -> Data:
    from ablation_core.data.load import load_data

    return load_data(ref, _model, predictions, seed=SEED, split=split)


@st.cache_resource(max_entries=2, show_spinner=False)
def _clean_passes(
    _model: LoadedModel, _data: Data, fingerprint: str, data_fingerprint: str, batch_size: int
) -> CleanPassCache:
    from ablation_core.engine.clean_passes import CleanPassCache

    return CleanPassCache(_model, _data)


@st.cache_resource(max_entries=8, show_spinner=False)
def _statistics(path: str, changed: int, _model: LoadedModel | ModelInfo, fingerprint: str) -> Statistics:
    return files.load_statistics(path, _model)


@st.cache_resource(max_entries=16, show_spinner=False)
def _all_neurons(_statistics: Statistics, digest: str, bins: int) -> AllNeurons:
    from ablation_core.activations.all_neurons import summarise_all_neurons

    return summarise_all_neurons(_statistics, bins)


@st.cache_resource(max_entries=12, show_spinner=False)
def _positions(_model: LoadedModel, _data: Data, fingerprint: str, data_fingerprint: str, layer: int) -> ByPosition:
    from ablation_core.activations.by_position import by_position

    return by_position(_model, _data, layer)
