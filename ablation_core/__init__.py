"""Neuron ablation in attention heads: statistics, replacement values, and what the ablation does to the model."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ablation_core.runtime import limit_openmp_spin

if TYPE_CHECKING:
    from ablation_core.activations.collect import compute_statistics
    from ablation_core.activations.files import find_statistics, load_statistics, save_statistics
    from ablation_core.activations.statistics import Statistics
    from ablation_core.data.dataset import load_data
    from ablation_core.errors import AblationError
    from ablation_core.experiments.ablation import AblationSpec, ablate
    from ablation_core.experiments.results import AblationResult
    from ablation_core.loading.load import load_model
    from ablation_core.methods.registry import METHODS
    from ablation_core.selection import Selection

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

_HOMES = {
    "find_statistics": "cache",
    "load_statistics": "cache",
    "save_statistics": "cache",
    "compute_statistics": "collect",
    "load_data": "data",
    "AblationError": "errors",
    "AblationSpec": "experiment",
    "ablate": "experiment",
    "load_model": "loading",
    "METHODS": "methods",
    "AblationResult": "results",
    "Selection": "selection",
    "Statistics": "statistics",
}


limit_openmp_spin()  # before torch is loaded


def __getattr__(name: str) -> Any:
    """Each name is imported when first asked for: the app's first page needs neither torch nor transformers."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
