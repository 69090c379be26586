"""Neuron ablation in attention heads: statistics, replacement values, and what the ablation does to the model.

    from ablation_core import ablate, load_data, load_model

    model = load_model("opt-mini")
    data = load_data("python-docs", model, predictions=2000)
    print(ablate(model, data, "3.2 5.0:1-4", method=["mean", "peak"], statistics="python-docs"))

The names here are what scripts use. Everything else is in rooms, each of which imports only from those before it:
selection, presentation, progress, stats, models, bundled, data, engine, loading, activations, methods, experiments, heads, runs, saved, cluster,
training, report, server, ui, cli.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# What stands under TYPE_CHECKING are the names of `_HOMES`, for editors and type checkers:
if TYPE_CHECKING:
    from ablation_core.activations.collect import compute_statistics
    from ablation_core.activations.files import as_statistics, find_statistics, load_statistics, save_statistics
    from ablation_core.activations.neuron_summary import NeuronSummary, summarise_neuron
    from ablation_core.activations.statistics import Statistics
    from ablation_core.data.dataset import Batch, Data
    from ablation_core.data.load import load_data
    from ablation_core.errors import AblationError
    from ablation_core.experiments.ablation import ablate
    from ablation_core.experiments.estimate import estimate
    from ablation_core.experiments.estimate_result import EstimateResult
    from ablation_core.experiments.interactions import interact
    from ablation_core.experiments.noise_floor import NoiseFloor, noise_floor
    from ablation_core.experiments.results import AblationResult
    from ablation_core.experiments.spec import AblationSpec
    from ablation_core.heads.attention import attention_pattern
    from ablation_core.heads.describe import HeadDescription, describe_head
    from ablation_core.heads.direct import DirectEffects, direct_effects
    from ablation_core.heads.examples import examples
    from ablation_core.heads.scores import HeadScores, head_scores
    from ablation_core.heads.writes import writes
    from ablation_core.loading.load import load_model
    from ablation_core.methods.registry import METHODS
    from ablation_core.models.loaded import LoadedModel
    from ablation_core.report.heads.neurons import describe_neurons
    from ablation_core.report.sentences import comparison, verdict
    from ablation_core.runs.adaptive import AdaptiveResult
    from ablation_core.runs.compare import compare
    from ablation_core.runs.comparison_result import ComparisonResult
    from ablation_core.runs.maps.position_map import PositionMapResult, position_map
    from ablation_core.runs.pruning_result import CurveResult
    from ablation_core.runs.sweep_result import SweepResult
    from ablation_core.runs.whole_runs import curve, sweep
    from ablation_core.saved.results import load_result, save_result
    from ablation_core.saved.side_by_side import compare_results
    from ablation_core.selection import ModelShape, Selection
    from ablation_core.stats.intervals import Interval

    __version__: str

_HOMES = {  # name → the module that has it
    "METHODS": "methods.registry",
    "AblationError": "errors",
    "AblationResult": "experiments.results",
    "AblationSpec": "experiments.spec",
    "AdaptiveResult": "runs.adaptive",
    "Batch": "data.dataset",
    "ComparisonResult": "runs.comparison_result",
    "CurveResult": "runs.pruning_result",
    "Data": "data.dataset",
    "DirectEffects": "heads.direct",
    "EstimateResult": "experiments.estimate_result",
    "HeadDescription": "heads.describe",
    "HeadScores": "heads.scores",
    "Interval": "stats.intervals",
    "LoadedModel": "models.loaded",
    "ModelShape": "selection",
    "NeuronSummary": "activations.neuron_summary",
    "NoiseFloor": "experiments.noise_floor",
    "PositionMapResult": "runs.maps.position_map",
    "Selection": "selection",
    "Statistics": "activations.statistics",
    "SweepResult": "runs.sweep_result",
    "ablate": "experiments.ablation",
    "as_statistics": "activations.files",
    "attention_pattern": "heads.attention",
    "compare": "runs.compare",
    "compare_results": "saved.side_by_side",
    "comparison": "report.sentences",
    "compute_statistics": "activations.collect",
    "curve": "runs.whole_runs",
    "describe_head": "heads.describe",
    "describe_neurons": "report.heads.neurons",
    "direct_effects": "heads.direct",
    "estimate": "experiments.estimate",
    "examples": "heads.examples",
    "find_statistics": "activations.files",
    "head_scores": "heads.scores",
    "interact": "experiments.interactions",
    "load_data": "data.load",
    "load_model": "loading.load",
    "load_result": "saved.results",
    "load_statistics": "activations.files",
    "noise_floor": "experiments.noise_floor",
    "position_map": "runs.maps.position_map",
    "save_result": "saved.results",
    "save_statistics": "activations.files",
    "summarise_neuron": "activations.neuron_summary",
    "sweep": "runs.whole_runs",
    "verdict": "report.sentences",
    "writes": "heads.writes",
}

__all__ = [
    "METHODS",
    "AblationError",
    "AblationResult",
    "AblationSpec",
    "AdaptiveResult",
    "Batch",
    "ComparisonResult",
    "CurveResult",
    "Data",
    "DirectEffects",
    "EstimateResult",
    "HeadDescription",
    "HeadScores",
    "Interval",
    "LoadedModel",
    "ModelShape",
    "NeuronSummary",
    "NoiseFloor",
    "PositionMapResult",
    "Selection",
    "Statistics",
    "SweepResult",
    "ablate",
    "as_statistics",
    "attention_pattern",
    "compare",
    "compare_results",
    "comparison",
    "compute_statistics",
    "curve",
    "describe_head",
    "describe_neurons",
    "direct_effects",
    "estimate",
    "examples",
    "find_statistics",
    "head_scores",
    "interact",
    "load_data",
    "load_model",
    "load_result",
    "load_statistics",
    "noise_floor",
    "position_map",
    "save_result",
    "save_statistics",
    "summarise_neuron",
    "sweep",
    "verdict",
    "writes",
]


def __getattr__(name: str) -> Any:
    """Each name is imported when it is first asked for: the app's first page needs neither torch nor transformers."""
    if name == "__version__":
        from ablation_core.storage import project_version

        found: Any = project_version()
    elif name in _HOMES:
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """So that completion offers what is not imported yet."""
    return sorted({*globals(), *_HOMES, "__version__"})
