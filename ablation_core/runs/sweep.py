"""Every head, one at a time, by one or several methods, on the same predictions.

Clean passes are shared, each head resumes from its layer, and finished heads are kept: an interrupted sweep resumes
where it stopped and ends with the same numbers. Beside the heads stand random sets of neurons, each as many as one head
has: what their ablation does is the noise floor.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data
from ablation_core.data.positions import EVERYWHERE, Positions
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.experiments.noise_floor import random_head
from ablation_core.experiments.provenance import describe_made
from ablation_core.experiments.spec import DEFAULT_BINS
from ablation_core.methods.registry import Method
from ablation_core.models.loaded import LoadedModel
from ablation_core.runs.backends import LOCAL, Backend, measure_units
from ablation_core.runs.kept.prediction_files import kept_predictions
from ablation_core.runs.ledger import open_ledger
from ablation_core.runs.records import results_so_far, tested_alike
from ablation_core.runs.sweep_result import SweepResult, every_head, head_name, result_of
from ablation_core.runs.units import WorkUnit, describe_work
from ablation_core.selection import Head, Selection

RANDOM_SETS = 24


@dataclass(frozen=True)
class SweepSpec:
    """What is decided before a sweep runs.

    Attributes:
        heads: these only, measured in this order; by default all, by layer and head. The numbers do not depend on it.
        random_sets: how many random sets of neurons make the noise floor, taken from the layers in turn.
        positions: where in each sequence heads and random sets are ablated.
        keep_predictions: whether the heads' changes of single predictions are kept too (`kept/prediction_files.py`).
    """

    methods: tuple[Method, ...]
    bins: int = DEFAULT_BINS
    heads: tuple[Head, ...] | None = None
    random_sets: int = RANDOM_SETS
    positions: Positions = EVERYWHERE
    keep_predictions: bool = False


def sweep_steps(
    model: LoadedModel,
    data: Data,
    spec: SweepSpec,
    statistics: Statistics | None,
    folder: Path,
    clean_cache: CleanPassCache | None = None,
    engine: Backend = LOCAL,
) -> Generator[SweepResult]:
    """Ablate each head by itself; yields the result so far, at first with what an earlier run left, then after each batch.

    Args:
        folder: the cache folder, where finished heads are kept.
        clean_cache: clean passes of the same model and data to share with other experiments.
        engine: what measures them; the result does not depend on it.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    spec.positions.check_in(data)
    description = describe_work(model, data, statistics, spec.bins, spec.positions)
    clean_cache = clean_cache or CleanPassCache(model, data, keys_values=not spec.positions.everywhere)
    heads = tuple(every_head(model)) if spec.heads is None else spec.heads
    units = _interleaved(
        [WorkUnit(head_name(head), Selection.of_heads([head], model.shape), spec.positions) for head in heads],
        [
            WorkUnit(f"random {number}", random_head(model.shape, number, data.seed), spec.positions)
            for number in range(spec.random_sets if heads else 0)
        ],
    )
    wanted = tuple(map(head_name, sorted(heads)))
    with open_ledger(folder, "sweep", description) as ledger:
        ledger.done = tested_alike(ledger.done)
        names = [method.name for method in spec.methods]
        made = describe_made(model, data)
        keep = wanted if spec.keep_predictions else ()
        shares = measure_units(units, spec.methods, spec.bins, statistics, clean_cache, ledger, engine, keep)
        so_far = results_so_far(shares, ledger.done, lambda done: result_of(description, names, done, wanted))
        for result, share in so_far:
            yield replace(result, share=share, provenance=made, predictions=kept_predictions(ledger.path, wanted))


def _interleaved(heads: list[WorkUnit], sets: list[WorkUnit]) -> list[WorkUnit]:
    """The random sets spread evenly among the heads, so that an early look has a noise floor too."""
    places = [((number + 1) / len(heads), 0, unit) for number, unit in enumerate(heads)]
    places += [((number + 1) / len(sets), 1, unit) for number, unit in enumerate(sets)]
    return [unit for _, _, unit in sorted(places, key=lambda place: place[:2])]
