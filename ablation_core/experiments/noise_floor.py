"""The noise floor: what ablating as many random neurons of the same layers does.

A head whose ablation changes the loss no more than these sets do has not been shown to matter for being that head.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ablation_core.activations.statistics import Statistics
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.experiments.ablation import AblationRun, AblationSpec
from ablation_core.methods.registry import METHODS
from ablation_core.selection import ModelShape, Selection

SETS = 8


@dataclass(frozen=True)
class NoiseFloor:
    """The least and greatest change of loss, in nats, among the random sets ablated so far."""

    low: float
    high: float
    sets: int
    sets_wanted: int = SETS


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
    having = [layer for layer, heads in enumerate(shape.heads) if heads]
    layer = having[number % len(having)]
    masks = [np.zeros(shape.width(layer), dtype=bool) for layer in range(shape.layers)]
    chosen = np.random.default_rng((seed, number)).choice(len(masks[layer]), shape.size(layer), replace=False)
    masks[layer][chosen] = True
    return Selection.of_masks(masks, shape)


def noise_floor(
    clean_cache: CleanPassCache, selection: Selection, statistics: Statistics, seed: int
) -> Iterator[NoiseFloor]:
    """The floor over 1, 2, … `SETS` random sets, by mean ablation; nothing where no such set can be drawn."""
    generator, changes = np.random.default_rng(seed), []
    for _ in range(SETS if selection.chosen else 0):
        drawn = random_selection(selection, generator)
        if drawn is None:
            return
        spec = AblationSpec(drawn, (METHODS["mean"],), seed=seed)
        run = AblationRun(clean_cache.model, clean_cache.data, spec, statistics, clean_cache)
        baseline, ablated, _ = run.finish().scores()
        changes.append(float((ablated["mean"].loss - baseline.loss).mean()))
        yield NoiseFloor(min(changes), max(changes), len(changes))
