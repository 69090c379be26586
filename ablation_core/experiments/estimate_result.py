"""What an estimate of every head and neuron found, and its JSON document."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ablation_core.data.positions import Positions
from ablation_core.presentation import Presented
from ablation_core.selection import Head, ModelShape
from ablation_core.storage import as_number

NEURONS_LISTED = 20


@dataclass(frozen=True, eq=False)
class Estimated:
    """One metric's change, in nats per prediction, of every head (layers, heads) and neuron (layers, heads, head_dim).

    Errors are standard errors over sequences, NaN for fewer than two; everything is NaN where a layer has fewer heads.
    """

    heads: np.ndarray
    heads_error: np.ndarray
    neurons: np.ndarray
    neurons_error: np.ndarray


@dataclass(frozen=True, eq=False)
class MethodEstimate:
    """What ablating each head or neuron by itself would change, by metric: `estimate["kl"]`.

    A change of loss is negative where the ablation would help.
    """

    method: str
    changes: Mapping[str, Estimated]

    def __getitem__(self, metric: str) -> Estimated:
        return self.changes[metric]

    @property
    def loss(self) -> Estimated:
        return self.changes["loss"]

    def largest(self, count: int) -> list[Head]:
        """The heads of the greatest estimated change of loss, the greatest first."""
        order = np.argsort(-self.loss.heads, axis=None, kind="stable")  # NaN comes last
        places = [divmod(int(place), self.loss.heads.shape[1]) for place in order]
        return [place for place in places if np.isfinite(self.loss.heads[place])][:count]


@dataclass(frozen=True, eq=False)
class EstimateResult(Presented):
    """What was estimated over the batches done so far, with what is needed to do it again."""

    description: dict
    bins: int
    positions: str
    passes: int
    shape: ModelShape
    methods: tuple[MethodEstimate, ...]
    seed: int = 0
    provenance: dict = field(default_factory=dict)

    def to_dict(self) -> dict:
        """The JSON document of `python -m ablation_core estimate --json`; null stands for what is not a number.

        For each method: every head, and the `NEURONS_LISTED` neurons of the greatest estimated change of loss.
        """
        spared = Positions.parse(self.positions).skipped
        settings = {"bins": self.bins, "positions": self.positions, "positions_spared": spared, "passes": self.passes}
        settings |= {"seed": self.seed, "provenance": self.provenance}
        return self.description | settings | {"results": [self._document(method) for method in self.methods]}

    def _document(self, method: MethodEstimate) -> dict:
        heads = [(layer, head) for layer, count in enumerate(self.shape.heads) for head in range(count)]
        order = np.argsort(-method.loss.neurons, axis=None, kind="stable")[:NEURONS_LISTED]
        neurons = [tuple(map(int, np.unravel_index(place, method.loss.neurons.shape))) for place in order]
        return {
            "method": method.method,
            "heads": [
                {"head": f"{layer}.{head}"}
                | {name: _pair(part.heads, part.heads_error, (layer, head)) for name, part in method.changes.items()}
                for layer, head in heads
            ],
            "neurons": [
                {"neuron": f"{layer}.{head}:{neuron}"}
                | {
                    name: _pair(part.neurons, part.neurons_error, (layer, head, neuron))
                    for name, part in method.changes.items()
                }
                for layer, head, neuron in neurons
                if np.isfinite(method.loss.neurons[layer, head, neuron])
            ],
        }


def _pair(values: np.ndarray, errors: np.ndarray, place: tuple[int, ...]) -> dict[str, float | None]:
    return {"estimate": as_number(float(values[place])), "standard_error": as_number(float(errors[place]))}
