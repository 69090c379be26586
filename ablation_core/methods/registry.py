"""What goes in a neuron's place: one row per method.

A constant method gives every neuron one value, from the statistics. A resampling method takes the clean activations of
another input, position by position. A learned method's constants are found by gradient for the selected neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from ablation_core.activations.statistics import Statistics
from ablation_core.data.references import pairs_file
from ablation_core.errors import MethodError, a_type
from ablation_core.methods import modes
from ablation_core.models.info import Modality
from ablation_core.selection import Selection

if TYPE_CHECKING:
    from ablation_core.data.dataset import Batch, Data
    from ablation_core.models.loaded import LoadedModel

Constant = Callable[[Statistics, int], np.ndarray | np.float32]
Source = Callable[["LoadedModel", "Data", Sequence[int], int], "Batch"]

LANGUAGE: tuple[Modality, ...] = ("causal", "masked")
TEXT: tuple[Modality, ...] = (*LANGUAGE, "text-classification")
ANY: tuple[Modality, ...] = (*TEXT, "vision")


@dataclass(frozen=True)
class Method:
    """A row of `METHODS`.

    Attributes:
        description: what it does, in a sentence for the user.
        constant: (statistics, bins) → values (layers, heads, head_dim).
        source: (model, data, sequence numbers, seed) → the inputs whose activations replace theirs.
        one_source: whether that is a single input, the same for all sequences.
        learned: whether its constants are learned (see `optimal`).
        positional: whether it has a value for each position (see `positional`).
        counterfactual: whether it needs data with counterfactual prompts.
        needs_statistics: whether it reads the statistics.
        modalities: which kinds of models it is for.
    """

    name: str
    description: str
    constant: Constant | None = None
    source: Source | None = None
    one_source: bool = False
    learned: bool = False
    positional: bool = False
    counterfactual: bool = False
    needs_statistics: bool = False
    modalities: tuple[Modality, ...] = ANY


def _from_statistics(name: str, description: str, constant: Constant) -> Method:
    return Method(name, description, constant=constant, needs_statistics=True)


def _source(name: str) -> Source:
    """A function of `sources`, which is imported, with torch, when it is first called."""

    def call(model: LoadedModel, data: Data, numbers: Sequence[int], seed: int) -> Batch:
        from ablation_core.methods import resampling

        return getattr(resampling, name)(model, data, numbers, seed)

    return call


def _from_one_input(name: str, what: str, source: Source, modalities: tuple[Modality, ...]) -> Method:
    description = f"Every selected neuron takes the activation it has at the same position of {what}."
    return Method(name, description, source=source, one_source=True, modalities=modalities)


METHODS = {
    method.name: method
    for method in (
        Method("zero", "Every selected neuron is set to 0.", constant=lambda statistics, bins: np.float32(0)),
        _from_statistics(
            "mean",
            "Every selected neuron is set to its mean activation.",
            lambda statistics, bins: statistics.mean,
        ),
        _from_statistics(
            "median",
            "Every selected neuron is set to its median activation.",
            lambda statistics, bins: statistics.median(),
        ),
        _from_statistics(
            "peak",
            "Every selected neuron is set to the centre of its fullest histogram bin, its most frequent activation.",
            lambda statistics, bins: statistics.peak(bins),
        ),
        _from_statistics(
            "peak-own-range",
            "As peak, with bins from the neuron's smallest to its largest value.",
            modes.own_range_peak,
        ),
        _from_statistics(
            "peak-whole-range",
            "As peak, with bins from the smallest to the largest value of all the model's neurons.",
            modes.whole_range_peak,
        ),
        _from_statistics(
            "peak-density",
            "Every selected neuron is set to the highest point of a kernel density of its activations.",
            modes.kernel_density_mode,
        ),
        _from_statistics(
            "peak-half-sample",
            "Every selected neuron is set to where the shortest half of the shortest half of … its activations is.",
            modes.half_sample_mode,
        ),
        Method(
            "mean-positional",
            "Every selected neuron is set to its mean activation at the same position of the statistics part.",
            positional=True,
        ),
        Method(
            "counterfactual",
            "Every selected neuron takes the activation it has at the same position of the counterfactual prompt.",
            source=_source("counterfactual_prompts"),
            counterfactual=True,
            modalities=TEXT,
        ),
        Method(
            "resample-dataset",
            "Every selected neuron takes the activation it has on another input of the data set, at the same position.",
            source=_source("other_sequences"),
        ),
        _from_one_input("resample-characters", "one text of random characters", _source("random_characters"), TEXT),
        _from_one_input("resample-tokens", "one text of random tokens", _source("random_tokens"), TEXT),
        _from_one_input(
            "resample-generated", "one text that the model itself wrote", _source("generated_text"), LANGUAGE
        ),
        _from_one_input("resample-pixels", "one image of random pixels", _source("random_pixels"), ("vision",)),
        Method(
            "optimal",
            "Every selected neuron is set to the constant with the smallest loss, learned by gradient descent on the statistics part.",
            learned=True,
            needs_statistics=True,
        ),
    )
}


USUAL = ("zero", "mean", "median", "peak", "resample-dataset")  # compared unless others are asked for


def usual_constants() -> list[Method]:
    """The usual methods that give each neuron one value, and that value at once."""
    return [METHODS[name] for name in USUAL if METHODS[name].constant]


def usable_methods(data: Data, modality: Modality) -> list[str]:
    """The names of the methods for models of this kind that this data has sources for."""
    names = [name for name, method in METHODS.items() if modality in method.modalities]
    names = [name for name in names if data.counterfactual is not None or not METHODS[name].counterfactual]
    return [name for name in names if name != "resample-dataset" or data.pool > 1]


def choose_methods(names: Sequence[str], modality: Modality, data: Data | None = None) -> list[Method]:
    """The rows of these names, in order, without repeats; a name may be several, with commas between them.

    `all` stands for every method for models of this kind that needs no learning; those by position and by counterfactual
    prompts are among them where the data is a task's.

    Raises:
        MethodError: there is no such method, or it is not for such models.
    """
    fitting = {name: method for name, method in METHODS.items() if modality in method.modalities}
    at_once = {name: method for name, method in fitting.items() if not method.learned and _suits(method, data)}
    chosen: dict[str, Method] = {}
    odd = [one for one in (names if isinstance(names, Sequence) else [names]) if not isinstance(one, str)]
    if odd:
        raise MethodError(
            f"A method is named by a text, not {a_type(odd[0])}. Choose from {', '.join(fitting)}, or all."
        )
    for name in (part.strip() for one in names for part in one.split(",")):
        if name in METHODS and name not in fitting:
            *others, last = METHODS[name].modalities
            kinds = f"{', '.join(others)} and {last}" if others else last
            raise MethodError(f"The method {name} is for {kinds} models, not for a {modality} one.")
        if name != "all" and name not in METHODS:
            raise MethodError(f"There is no method {name!r}. Choose from {', '.join(fitting)}, or all.")
        chosen.update(at_once if name == "all" else {name: fitting[name]})
    if not chosen:
        raise MethodError(f"No method was named. Choose from {', '.join(fitting)}, or all.")
    return list(chosen.values())


def choose_method(name: str, modality: Modality, data: Data | None = None) -> Method:
    """The row of one name, for what is measured by one method at a time.

    Raises:
        MethodError: as `choose_methods`, or the name is `all`.
    """
    found = choose_methods([name], modality, data)
    if len(found) != 1:
        raise MethodError(f"One method is taken here, and {name!r} stands for {len(found)}; name one of them.")
    return found[0]


def _suits(method: Method, data: Data | None) -> bool:
    """Whether `all` includes a method on this data."""
    if method.counterfactual:
        return data is not None and data.counterfactual is not None
    if not method.positional:
        return True
    if data is None or data.groups is None or pairs_file(data.ref)[1]:
        return False
    return not data.ref.startswith("pairs:") or len(set(data.groups.tolist())) > 1  # of a single one none is left


def check_statistics(method: Method, statistics: Statistics | None) -> None:
    """Raise MethodError where the method needs statistics and there are none."""
    if method.needs_statistics and statistics is None:
        raise MethodError(
            f"The method {method.name} needs activation statistics and there are none. In Python give them as "
            f"statistics=, such as statistics='python-docs' for those of a data set; on the command line run the stats "
            f"command first; in the app press Compute."
        )


def constant_values(method: Method, statistics: Statistics | None, selection: Selection, bins: int) -> np.ndarray:
    """The values of a constant method, float32 (layers, heads, head_dim).

    Raises:
        MethodError: the method needs statistics and there are none, or they say nothing of a selected neuron.
    """
    check_statistics(method, statistics)
    shape = selection.shape
    assert method.constant is not None
    constant = method.constant(cast(Statistics, statistics), bins)  # zero is given None: it reads none
    values = np.broadcast_to(constant, (shape.layers, max(shape.heads), shape.head_dim))
    for (layer, head), neurons in selection.chosen:
        missing = [neuron for neuron in neurons if not np.isfinite(values[layer, head, neuron])]
        if missing:
            raise MethodError(
                f"The neuron {layer}.{head}:{missing[0]} has no {method.name}: no finite activation of it was counted."
            )
    return values.astype(np.float32)
