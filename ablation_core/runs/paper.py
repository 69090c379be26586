"""The paper's experiment as a plan that can be looked at before it is run (Pochinkov, Pasero, Shibayama 2024).

For each model and data set: activation statistics on the statistics part, then pruning curves on the evaluation part, the
same neurons for every method, three seeds, steps of ten per cent. The four original models need a model hub and a
graphics processor; the same plan runs on any others. Every point is kept: an interrupted run resumes where it stopped.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ablation_core.activations import files
from ablation_core.activations.collect import compute_statistics
from ablation_core.data.dataset import Data
from ablation_core.data.load import load_data
from ablation_core.data.references import STATISTICS_PREDICTIONS, is_images, is_labelled, usual_data
from ablation_core.engine import forward
from ablation_core.engine.kept_bytes import KEPT_BYTES
from ablation_core.engine.scoring import LOGIT_VALUES
from ablation_core.methods.registry import Method, choose_methods
from ablation_core.models.info import Modality
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import finished
from ablation_core.runs.backends import LOCAL, Backend
from ablation_core.runs.pruning import PERCENTS, SEEDS, CurveSpec, curve_steps
from ablation_core.runs.pruning_result import CurveResult

WITHOUT = ("peak-own-range", "peak-whole-range", "peak-density", "peak-half-sample")  # not the paper's question
DATA: dict[Modality, tuple[str, ...]] = {
    "causal": ("python-docs", "python-code"),
    "masked": ("python-docs", "python-code"),
    "vision": ("fashion-mnist",),
}
PREDICTIONS: dict[Modality, int] = {
    "causal": 100_000,
    "masked": 15_000,
    "vision": 1000,
    "text-classification": 1000,
}  # 15% of 100,000 tokens
_EFFICIENCY = 0.6  # of the speed of a large matrix product that a whole pass reaches, as measured on two cores


@dataclass(frozen=True)
class Size:
    """What the cost of a model depends on: its parameters, and the vectors it keeps for each position."""

    modality: Modality
    parameters: int
    layers: int
    width: int
    positions: int  # a sequence
    bytes: int = 2  # a parameter

    @classmethod
    def of(cls, model: LoadedModel, data: Data) -> "Size":
        weights = list(model.module.parameters())
        positions, width = forward.z_values(model, data.rows([0]), [0])[0].shape[1:]
        count = sum(weight.numel() for weight in weights)
        return cls(model.modality, count, model.num_layers, width, positions, weights[0].element_size())


ORIGINALS = {
    "facebook/opt-1.3b": Size("causal", 1_316_000_000, 24, 2048, 128),
    "mistralai/Mistral-7B-v0.1": Size("causal", 7_242_000_000, 32, 4096, 128),
    "FacebookAI/roberta-large": Size("masked", 355_000_000, 24, 1024, 128),
    "google/vit-base-patch16-224": Size("vision", 86_600_000, 12, 768, 197),
}


@dataclass(frozen=True)
class Part:
    """One model on one data set."""

    model: str
    data: str
    size: Size
    predictions: int

    @property
    def methods(self) -> tuple[Method, ...]:
        chosen = choose_methods(["all"], self.size.modality)
        return tuple(method for method in chosen if method.name not in WITHOUT)

    @property
    def passes(self) -> int:
        """Whole passes over the evaluation data: a clean one, and one for each method at each point, sources besides."""
        points = len(SEEDS) * sum(percent > 0 for percent in PERCENTS)
        return 1 + points * (len(self.methods) + any(method.name == "resample-dataset" for method in self.methods))

    @property
    def positions(self) -> int:
        """Positions that one pass runs over."""
        each = {
            "causal": self.size.positions - 1,
            "masked": round(0.15 * self.size.positions),
            "vision": 1,
            "text-classification": 1,
        }
        return -(-self.predictions // each[self.size.modality]) * self.size.positions

    @property
    def memory(self) -> int:
        """Bytes: the weights, clean passes kept for resuming, and one chunk of logits with what scoring makes of it."""
        kept = min(KEPT_BYTES, 2 * self.positions * self.size.layers * self.size.width * max(self.size.bytes, 2))
        return self.size.parameters * self.size.bytes + kept + 3 * 4 * LOGIT_VALUES

    def seconds(self, speed: float) -> float:
        """At so many floating-point operations a second: 2 for each parameter and position (Kaplan et al. 2020)."""
        return 2 * self.size.parameters * self.positions * self.passes / speed

    def describe(self, speed: float) -> dict:
        return {
            "model": self.model,
            "data": self.data,
            "predictions": self.predictions,
            "methods": [method.name for method in self.methods],
            "seeds": list(SEEDS),
            "percents": list(PERCENTS),
            "passes": self.passes,
            "positions_a_pass": self.positions,
            "memory_bytes": self.memory,
            "seconds": self.seconds(speed),
        }


def measured_speed(side: int = 1024, seconds: float = 0.5) -> float:
    """Floating-point operations a second that a pass reaches here, from timing a matrix product."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    one, count, start = torch.randn(side, side, device=device), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        (one @ one).sum().item()  # waits for the device
        count += 1
    return _EFFICIENCY * 2 * side**3 * count / (time.perf_counter() - start)


def original_parts(data: Sequence[str], predictions: int | None) -> list[Part]:
    """The paper's four models; without data sets named, on those that every Python carries, and on images to be named."""
    return [
        Part(ref, name, size, predictions or PREDICTIONS[size.modality])
        for ref, size in ORIGINALS.items()
        for name in fitting_data(data, ref, size.modality)
    ]


def parts_of(model: LoadedModel, data: Sequence[str], predictions: int | None) -> list[Part]:
    """The same plan for a model that is here; of a data set with fewer predictions than asked for, all are taken.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    parts = []
    for name in fitting_data(data, model.ref, model.modality):
        loaded = load_data(name, model, predictions or PREDICTIONS[model.modality])
        parts.append(Part(model.ref, name, Size.of(model, loaded), loaded.predictions))
    return parts


def fitting_data(data: Sequence[str], ref: str, modality: Modality) -> tuple[str, ...]:
    """Those of these data sets that such models read; by default the ones that are always here.

    Raises:
        DataError: none is here that a text classifier could be measured on.
    """
    if modality == "text-classification":
        return tuple(name for name in data if is_labelled(name)) or (usual_data(ref, modality),)
    fitting = tuple(name for name in data if is_images(name) == (modality == "vision"))
    if modality == "vision" and ref in ORIGINALS and not fitting:
        return ("images:IMAGENET",)  # a folder of its validation images; there is none that could come with the project
    return fitting or DATA[modality]


def run_part(
    part: Part, model: LoadedModel, folder: Path, progress: Callable[[float], None], backend: Backend = LOCAL
) -> CurveResult:
    """Statistics, where there are none yet (always in this process), and the curves; kept in the cache folder."""
    data = load_data(part.data, model, part.predictions)
    entry = files.find_statistics(model, part.data, folder, data.source)
    if entry is None:
        count = STATISTICS_PREDICTIONS[model.modality]
        statistics = compute_statistics(model, load_data(part.data, model, count, split="statistics"))
        files.save_statistics(statistics, folder)
    else:
        statistics = files.load_statistics(entry.path, model)
    return finished(curve_steps(model, data, CurveSpec(part.methods), statistics, folder, engine=backend), progress)
