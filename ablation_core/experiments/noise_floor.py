"""The noise floor: what ablating as many random neurons of the same layers does.

A head whose ablation changes the loss no more than these sets do has not been shown to matter for being that head.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablation_core.activations.files import as_statistics
from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data, checked_seed
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.errors import SelectionError
from ablation_core.experiments.ablation import AblationRun, AblationSpec
from ablation_core.methods.registry import METHODS, Method, choose_methods
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Head, ModelShape, Selection

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
    layer = number % shape.layers
    masks = [np.zeros(heads * shape.head_dim, dtype=bool) for heads in shape.heads]
    chosen = np.random.default_rng((seed, number)).choice(len(masks[layer]), shape.head_dim, replace=False)
    masks[layer][chosen] = True
    return Selection.of_masks(masks, shape)


def noise_floor(
    model: LoadedModel,
    data: Data,
    select: str | Selection | Iterable[Head],
    *,
    statistics: Statistics | str | Path | None = None,
    method: str = "mean",
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NoiseFloor:
    """What ablating as many random other neurons of the same layers changes: the least and the greatest of `SETS` sets.

    >>> from ablation_core import load_data, load_model, noise_floor
    >>> model = load_model("opt-mini")
    >>> floor = noise_floor(model, load_data("python-docs", model, predictions=100), "3.2", statistics="python-docs")
    >>> floor.low <= floor.high, floor.sets  # nats per prediction
    (True, 8)

    Args:
        select: neurons as text, heads as pairs such as `[(3, 2)]`, or a `Selection`.
        statistics: for a method that needs them: themselves, their file, or the data set that they were made from.
        method: how the random neurons are ablated.
        seed: of the draws; by default the data's.
        progress: called with (sets done, sets) after each.

    Raises:
        SelectionError: nothing is selected, or a layer has too few other neurons to draw from.
        AblationError: another of its children, with a sentence for the user.
    """
    selection, found = Selection.read(select, model.shape), None
    (chosen,) = choose_methods([method], model.modality)
    seed, known = checked_seed(data.seed if seed is None else seed), as_statistics(statistics, model)
    for found in noise_floor_steps(CleanPassCache(model, data), selection, known, seed, chosen):
        if progress:
            progress(found.sets, found.sets_wanted)
    if found is None:
        raise SelectionError(
            f"There is no noise floor for {str(selection) or 'an empty selection'}: it needs at least one neuron selected, "
            f"and as many others in each of its layers."
        )
    return found


def noise_floor_steps(
    clean_cache: CleanPassCache,
    selection: Selection,
    statistics: Statistics | None,
    seed: int,
    method: Method = METHODS["mean"],
) -> Iterator[NoiseFloor]:
    """The floor over 1, 2, … `SETS` random sets; nothing where no such set can be drawn."""
    generator, changes = np.random.default_rng(seed), []
    for _ in range(SETS if selection.chosen else 0):
        drawn = random_selection(selection, generator)
        if drawn is None:
            return
        spec = AblationSpec(drawn, (method,), seed=seed)
        run = AblationRun(clean_cache.model, clean_cache.data, spec, statistics, clean_cache)
        baseline, ablated, _ = run.finish().scores()
        changes.append(float((ablated[method.name].loss - baseline.loss).mean()))
        yield NoiseFloor(min(changes), max(changes), len(changes))
