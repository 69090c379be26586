"""The noise floor: what ablating as many random neurons of the same layers, by the same method, does.

A head whose ablation changes a metric no more than these sets do has not been shown to matter for being that head.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from ablation_core.activations.statistics import Statistics
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.experiments.ablation import AblationRun, AblationSpec
from ablation_core.methods.registry import METHODS
from ablation_core.selection import ModelShape, Selection

SETS = 8


@dataclass(frozen=True)
class NoiseFloor:
    """The least and the greatest changes among the random sets ablated so far.

    Attributes:
        low, high: of the loss, in nats per prediction, by the first method.
        bands: method → metric → the least and the greatest change.
    """

    low: float
    high: float
    sets: int
    sets_wanted: int = SETS
    bands: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)

    def band(self, method: str, metric: str = "loss") -> tuple[float, float] | None:
        """The band that a method's change is compared with; None while sets are missing, or for another method."""
        return self.bands.get(method, {}).get(metric) if self.sets == self.sets_wanted else None


def random_selection(selection: Selection, generator: np.random.Generator) -> Selection | None:
    """As many neurons in each layer as `selection` has there, drawn from the layer's other neurons.

    None where a layer has too few others.
    """
    drawn = []
    for layer in range(selection.shape.layers):
        mask = selection.mask(layer)
        others = np.flatnonzero(~mask)
        if len(others) < mask.sum():
            return None
        random = np.zeros_like(mask)
        random[generator.choice(others, int(mask.sum()), replace=False)] = True
        drawn.append(random)
    return Selection.of_masks(drawn, selection.shape)


def random_head(shape: ModelShape, number: int, seed: int) -> Selection:
    """The random set of this number: as many neurons as one head has, all of one layer; the layers take turns.

    Heads lie in one layer too, and what a layer's neurons do depends on the layer: sets spread over all layers would be
    another thing than a head.
    """
    layer = number % shape.layers
    masks = [np.zeros(heads * shape.head_dim, dtype=bool) for heads in shape.heads]
    chosen = np.random.default_rng((seed, number)).choice(len(masks[layer]), shape.head_dim, replace=False)
    masks[layer][chosen] = True
    return Selection.of_masks(masks, shape)


def noise_floor(
    clean_cache: CleanPassCache,
    selection: Selection,
    statistics: Statistics,
    seed: int,
    methods: Sequence[str] = ("mean",),
    bins: int = 100,
) -> Iterator[NoiseFloor]:
    """The floor over 1, 2, … `SETS` random sets, the same for every method; nothing where no such set can be drawn.

    Args:
        methods: their names; learned ones have no floor, since learning for each set would take too long.
        bins: of the peak.
    """
    generator, chosen = np.random.default_rng(seed), tuple(METHODS[name] for name in methods)
    bands: dict[str, dict[str, tuple[float, float]]] = {}
    for done in range(1, (SETS if selection.chosen else 0) + 1):
        drawn = random_selection(selection, generator)
        if drawn is None:
            return
        run = AblationRun(
            clean_cache.model, clean_cache.data, AblationSpec(drawn, chosen, bins, seed), statistics, clean_cache
        )
        baseline, ablated, _ = run.finish().scores()
        bands = {
            name: {
                metric.name: _widened(
                    bands.get(name, {}).get(metric.name),
                    float((getattr(scores, metric.name) - getattr(baseline, metric.name)).mean()),
                )
                for metric in fields(scores)
            }
            for name, scores in ablated.items()
        }
        yield NoiseFloor(*bands[methods[0]]["loss"], done, bands=bands)


def _widened(band: tuple[float, float] | None, value: float) -> tuple[float, float]:
    return (value, value) if band is None else (min(band[0], value), max(band[1], value))
