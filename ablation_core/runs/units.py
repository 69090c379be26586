"""The work units of a long run: selections that are each ablated by several methods and kept as soon as they are measured.

What a unit gives does not depend on which other methods are measured beside it: a run that is asked for with more
methods later computes only those that are missing.
"""

from dataclasses import dataclass

import numpy as np

from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data
from ablation_core.data.positions import EVERYWHERE, Positions
from ablation_core.engine.metrics import METRICS
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.provenance import describe_run
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.own_code import hooks_of
from ablation_core.runs.kept.prediction_files import PredictionChanges, change_name, kept_metrics
from ablation_core.runs.records import TESTED_BY
from ablation_core.selection import Selection


@dataclass(frozen=True)
class WorkUnit:
    """A selection and where it is ablated, with the name it has in the ledger, and its cost: the blocks run for it."""

    name: str
    selection: Selection
    positions: Positions = EVERYWHERE

    @property
    def cost(self) -> int:
        layers = self.selection.layers
        return self.selection.shape.layers - (layers[0] if layers else 0) + 1  # 1 for the scoring


def describe_work(
    model: LoadedModel, data: Data, statistics: Statistics | None, bins: int, positions: Positions = EVERYWHERE
) -> dict:
    """What decides a long run's numbers, and so its ledger's name.

    Positions are named only where they are not all of them: the files of earlier runs are found by this description.
    A person's own hooks likewise, as they may change every number.
    """
    described = describe_run(model, data, statistics) | {"bins": bins}
    if hooks := hooks_of(model.module):
        described["hooks"] = hooks
    return described if positions.everywhere else described | {"positions": str(positions)}


def record_of(unit: WorkUnit, run: AblationRun) -> dict:
    """What the ledger keeps of a unit: the run's rows, with the p-values of its tests."""
    result = run.finish().result()
    document = result.to_dict()
    for row, measured in zip(document["results"], result.results, strict=True):
        row["p_values"] = measured.p_values
    return {
        "piece": unit.name,
        "select": document["select"],
        "neurons": document["neurons"],
        "baseline": document["baseline"],
        "results": document["results"],
        "tested_by": TESTED_BY,
    }


def changes_of(run: AblationRun) -> PredictionChanges:
    """What a finished unit changes for every single prediction."""
    scored = run.result().predictions
    assert scored is not None  # it was measured here
    changes = {
        change_name(method, name): scores.change(METRICS[name], scored.baseline).astype(np.float32)
        for method, scores in scored.ablated.items()
        for name in kept_metrics(scores.values)
    }
    return PredictionChanges(scored.places(), changes)
