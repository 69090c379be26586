"""What goes in a neuron's place: one function and one row a method.

A constant method gives every neuron one value, from the statistics. A donor method gives each sequence another input,
whose clean activations are taken position by position.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ablation_core.data import Batch, Data
from ablation_core.errors import MethodError
from ablation_core.selection import Selection
from ablation_core.statistics import Statistics

Constant = Callable[[Statistics, int], np.ndarray]
Donor = Callable[[Data, Sequence[int], int], Batch]


@dataclass(frozen=True)
class Method:
    """A row of `METHODS`.

    Attributes:
        description: what it does, in a sentence for the user.
        constant: (statistics, bins) → values (layers, heads, head_dim).
        donor: (data, sequence numbers, seed) → the inputs whose activations replace theirs.
        needs_statistics: whether the constant reads the statistics.
    """

    name: str
    description: str
    constant: Constant | None = None
    donor: Donor | None = None
    needs_statistics: bool = False


def other_sequences(data: Data, numbers: Sequence[int], seed: int) -> Batch:
    """For every sequence another one of the same data set, never itself: the one a random distance further on.

    Raises:
        MethodError: there is only one sequence.
    """
    if data.pool < 2:
        raise MethodError(f"Resampling from other inputs needs at least two of them; {data.ref} holds one.")
    distance = int(np.random.default_rng(seed).integers(1, data.pool))
    return data.rows([(number + distance) % data.pool for number in numbers])


METHODS = {
    method.name: method
    for method in (
        Method("zero", "Every selected neuron is set to 0.", constant=lambda statistics, bins: np.float32(0)),
        Method(
            "mean",
            "Every selected neuron is set to its mean activation.",
            constant=lambda statistics, bins: statistics.mean,
            needs_statistics=True,
        ),
        Method(
            "median",
            "Every selected neuron is set to its median activation.",
            constant=lambda statistics, bins: statistics.median(),
            needs_statistics=True,
        ),
        Method(
            "peak",
            "Every selected neuron is set to the centre of its fullest histogram bin, its most usual activation.",
            constant=lambda statistics, bins: statistics.peak(bins),
            needs_statistics=True,
        ),
        Method(
            "resample-dataset",
            "Every selected neuron takes the activation it has on another input of the data set, at the same position.",
            donor=other_sequences,
        ),
    )
}


def choose_methods(names: Sequence[str]) -> list[Method]:
    """The rows of these names, in order, without repeats; `all` stands for every one.

    Raises:
        MethodError: there is no such method.
    """
    chosen: dict[str, Method] = {}
    for name in names:
        if name != "all" and name not in METHODS:
            raise MethodError(f"There is no method {name!r}. Choose from {', '.join(METHODS)}, or all.")
        chosen.update(METHODS if name == "all" else {name: METHODS[name]})
    if not chosen:
        raise MethodError(f"No method was named. Choose from {', '.join(METHODS)}, or all.")
    return list(chosen.values())


def constant_values(method: Method, statistics: Statistics | None, selection: Selection, bins: int) -> np.ndarray:
    """The values of a constant method, float32 (layers, heads, head_dim).

    Raises:
        MethodError: the method needs statistics and there are none, or they say nothing of a selected neuron.
    """
    if method.needs_statistics and statistics is None:
        raise MethodError(
            f"The method {method.name} needs activation statistics and none were found; "
            f"compute them first (the stats command, or Compute in the app)."
        )
    shape = selection.shape
    values = np.broadcast_to(method.constant(statistics, bins), (shape.layers, max(shape.heads), shape.head_dim))
    for (layer, head), neurons in selection.chosen:
        missing = [neuron for neuron in neurons if not np.isfinite(values[layer, head, neuron])]
        if missing:
            raise MethodError(
                f"The neuron {layer}.{head}:{missing[0]} has no {method.name}: no finite activation of it was counted."
            )
    return values.astype(np.float32)
