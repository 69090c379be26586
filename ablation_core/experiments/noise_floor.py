"""The noise floor: what ablating as many random neurons of the same layers, by the same method, does.

A head whose ablation changes a metric no more than these sets do has not been shown to matter for being that head.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ablation_core.activations.files import as_statistics
from ablation_core.activations.statistics import Statistics
from ablation_core.data.arguments import measures
from ablation_core.data.dataset import Data, checked_seed
from ablation_core.data.positions import EVERYWHERE, Positions
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.errors import SelectionError
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.spec import DEFAULT_BINS, AblationSpec
from ablation_core.methods.registry import METHODS, choose_method
from ablation_core.models.loaded import LoadedModel
from ablation_core.presentation import Presented
from ablation_core.progress import Progress, reporting
from ablation_core.selection import Head, ModelShape, Selection

SETS = 8


@dataclass(frozen=True)
class NoiseFloor(Presented):
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
    having = [layer for layer, heads in enumerate(shape.heads) if heads]
    layer = having[number % len(having)]
    masks = [np.zeros(shape.width(layer), dtype=bool) for layer in range(shape.layers)]
    chosen = np.random.default_rng((seed, number)).choice(len(masks[layer]), shape.size(layer), replace=False)
    masks[layer][chosen] = True
    return Selection.of_masks(masks, shape)


@measures
def noise_floor(
    model: LoadedModel,
    data: Data,
    select: str | Selection | Iterable[Head],
    *,
    statistics: Statistics | str | Path | None = None,
    method: str = "mean",
    bins: int = DEFAULT_BINS,
    seed: int | None = None,
    positions: str | Positions = "all",
    progress: Progress | bool | None = None,
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
        bins: of the peak.
        seed: of the draws; by default the data's.
        positions: where in each sequence they are ablated.
        progress: called with (sets done, sets) after each; True for a bar.

    Raises:
        SelectionError: nothing is selected, or a layer has too few other neurons to draw from.
        AblationError: another of its children, with a sentence for the user.
    """
    selection, found = Selection.read(select, model.shape), None
    choose_method(method, model.modality, data)
    seed, known = checked_seed(data.seed if seed is None else seed), as_statistics(statistics, model)
    where = Positions.read(positions)
    cache = CleanPassCache(model, data, keys_values=not where.everywhere)
    with reporting(progress, "noise floor", "set") as report:
        for found in noise_floor_steps(cache, selection, known, seed, [method], bins, positions=where):
            if report:
                report(found.sets, found.sets_wanted)
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
    methods: Sequence[str] = ("mean",),
    bins: int = DEFAULT_BINS,
    sets: int = SETS,
    positions: Positions = EVERYWHERE,
) -> Iterator[NoiseFloor]:
    """The floor over 1, 2, … `sets` random sets, the same for every method; nothing where no such set can be drawn.

    Args:
        methods: their names; learned ones have no floor, since learning for each set would take too long.
        bins: of the peak.
        positions: where in each sequence they are ablated.
    """
    generator, chosen = np.random.default_rng(seed), tuple(METHODS[name] for name in methods)
    bands: dict[str, dict[str, tuple[float, float]]] = {}
    for done in range(1, (sets if selection.chosen else 0) + 1):
        drawn = random_selection(selection, generator)
        if drawn is None:
            return
        spec = AblationSpec(drawn, chosen, bins, seed, positions)
        run = AblationRun(clean_cache.model, clean_cache.data, spec, statistics, clean_cache)
        baseline, ablated, _ = run.finish().scores()
        bands = {
            name: {
                metric.name: _widened(
                    bands.get(name, {}).get(metric.name), float(scores.change(metric, baseline).mean())
                )
                for metric in run.metrics
            }
            for name, scores in ablated.items()
        }
        yield NoiseFloor(*bands[methods[0]]["loss"], done, sets, bands)


def _widened(band: tuple[float, float] | None, value: float) -> tuple[float, float]:
    return (value, value) if band is None else (min(band[0], value), max(band[1], value))
