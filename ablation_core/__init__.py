"""Neuron ablation in attention heads: statistics, replacement values, and what the ablation does to the model."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablation_core.activations.collect import compute_statistics
    from ablation_core.activations.files import find_statistics, load_statistics, save_statistics
    from ablation_core.activations.statistics import Statistics
    from ablation_core.data.dataset import load_data
    from ablation_core.errors import AblationError
    from ablation_core.experiments.ablation import AblationSpec, ablate
    from ablation_core.experiments.results import AblationResult
    from ablation_core.heads.attention import attention_pattern
    from ablation_core.heads.direct import direct_effects
    from ablation_core.heads.examples import examples
    from ablation_core.heads.scores import head_scores
    from ablation_core.heads.writes import writes
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
    "attention_pattern",
    "compute_statistics",
    "direct_effects",
    "examples",
    "find_statistics",
    "head_scores",
    "load_data",
    "load_model",
    "load_statistics",
    "save_statistics",
    "writes",
]

_HOMES = {
    "find_statistics": "activations.files",
    "load_statistics": "activations.files",
    "save_statistics": "activations.files",
    "compute_statistics": "activations.collect",
    "load_data": "data.dataset",
    "AblationError": "errors",
    "AblationSpec": "experiments.ablation",
    "ablate": "experiments.ablation",
    "attention_pattern": "heads.attention",
    "direct_effects": "heads.direct",
    "examples": "heads.examples",
    "head_scores": "heads.scores",
    "writes": "heads.writes",
    "load_model": "loading.load",
    "METHODS": "methods.registry",
    "AblationResult": "experiments.results",
    "Selection": "selection",
    "Statistics": "activations.statistics",
}


def __getattr__(name: str) -> Any:
    """Each name is imported when first asked for: the app's first page needs neither torch nor transformers."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
