"""What all sessions of a server share: models, data, statistics, clean passes and results, each bounded in number.

Streamlit hashes neither modules nor, reliably, large arrays: everything here is found by its own fingerprint.
"""

from collections import OrderedDict

import streamlit as st

from ablation_core import cache
from ablation_core.cache import CacheEntry
from ablation_core.data import Data, load_data
from ablation_core.engine import Recording
from ablation_core.jobs import Jobs
from ablation_core.loading import load_model
from ablation_core.models import LoadedModel
from ablation_core.positions import ByPosition, by_position
from ablation_core.shapes import Shapes, find_shapes
from ablation_core.sources import Split, source_digest
from ablation_core.statistics import Statistics

SEED = 0


@st.cache_resource(max_entries=3, show_spinner=False)
def shared_model(ref: str) -> LoadedModel:
    return load_model(ref)


def shared_data(model: LoadedModel, ref: str, predictions: int, split: Split) -> Data:
    return _data(model, model.fingerprint, ref, source_digest(ref), predictions, split)


def shared_recording(model: LoadedModel, data: Data) -> Recording:
    return _recording(model, data, model.fingerprint, data.fingerprint)


def shared_statistics(model: LoadedModel, entry: CacheEntry) -> Statistics:
    return _statistics(str(entry.path), entry.path.stat().st_mtime_ns, model, model.fingerprint)


def shared_shapes(statistics: Statistics, bins: int) -> Shapes:
    return _shapes(statistics, statistics.digest, bins)


def shared_positions(model: LoadedModel, data: Data, layer: int) -> ByPosition:
    return _positions(model, data, model.fingerprint, data.fingerprint, layer)


@st.cache_resource
def shared_results() -> OrderedDict:
    """Outcomes of ablations by what decides them, the oldest first."""
    return OrderedDict()


@st.cache_resource
def shared_jobs() -> Jobs:
    """Long runs under way."""
    return Jobs()


@st.cache_resource
def shared_estimates() -> OrderedDict:
    """Instant estimates of head maps by what decides them, the oldest first."""
    return OrderedDict()


@st.cache_resource
def shared_answers() -> OrderedDict:
    """Answers to people's own inputs by what decides them, the oldest first."""
    return OrderedDict()


@st.cache_resource(max_entries=6, show_spinner=False)
def _data(_model: LoadedModel, fingerprint: str, ref: str, source: str, predictions: int, split: Split) -> Data:
    return load_data(ref, _model, predictions, seed=SEED, split=split)


@st.cache_resource(max_entries=2, show_spinner=False)
def _recording(_model: LoadedModel, _data: Data, fingerprint: str, data_fingerprint: str) -> Recording:
    return Recording(_model, _data)


@st.cache_resource(max_entries=8, show_spinner=False)
def _statistics(path: str, changed: int, _model: LoadedModel, fingerprint: str) -> Statistics:
    return cache.load_statistics(path, _model)


@st.cache_resource(max_entries=16, show_spinner=False)
def _shapes(_statistics: Statistics, digest: str, bins: int) -> Shapes:
    return find_shapes(_statistics, bins)


@st.cache_resource(max_entries=12, show_spinner=False)
def _positions(_model: LoadedModel, _data: Data, fingerprint: str, data_fingerprint: str, layer: int) -> ByPosition:
    return by_position(_model, _data, layer)
