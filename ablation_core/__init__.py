"""Neuron ablation in attention heads: statistics, replacement values, and what the ablation does to the model."""

from ablation_core.cache import find_statistics, load_statistics, save_statistics
from ablation_core.collect import compute_statistics
from ablation_core.data import load_data
from ablation_core.errors import AblationError
from ablation_core.experiment import AblationSpec, ablate
from ablation_core.loading import load_model
from ablation_core.methods import METHODS
from ablation_core.results import AblationResult
from ablation_core.selection import Selection
from ablation_core.statistics import Statistics

__all__ = [
    "METHODS",
    "AblationError",
    "AblationResult",
    "AblationSpec",
    "Selection",
    "Statistics",
    "ablate",
    "compute_statistics",
    "find_statistics",
    "load_data",
    "load_model",
    "load_statistics",
    "save_statistics",
]
