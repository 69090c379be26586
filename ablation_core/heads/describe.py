"""All that is known of one head, in one document: the command line's, and what a page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ablation_core.activations.files import as_statistics
from ablation_core.activations.statistics import Statistics
from ablation_core.data.arguments import measures
from ablation_core.data.dataset import Data
from ablation_core.errors import DataError, ModelError
from ablation_core.experiments.ablation import ablate
from ablation_core.experiments.provenance import describe_run
from ablation_core.experiments.results import AblationResult
from ablation_core.heads.direct import direct_effects
from ablation_core.heads.examples import Example, Where, examples
from ablation_core.heads.kinds import SCORES
from ablation_core.heads.scores import HeadScores, head_scores
from ablation_core.heads.target import Target
from ablation_core.heads.writes import Writes, writes
from ablation_core.models.loaded import LoadedModel
from ablation_core.presentation import Presented
from ablation_core.stats.intervals import Interval
from ablation_core.storage import as_number


@dataclass(frozen=True, eq=False)
class HeadDescription(Presented):
    """What a head does, and what happens without it. What cannot be shown is None, and `notes` says why."""

    head: str
    provenance: dict[str, Any]
    scores: HeadScores | None
    writes: Writes | None
    examples: tuple[Example, ...]
    direct_effect: Interval | None
    total_effect: AblationResult
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of `python -m ablation_core head --json`.

        `scores`, `spread` and `percentile` have the same keys; `direct_effect` is in logits of the target, and
        `total_effect` the change of loss in nats per prediction by the first method.
        """
        target = tuple(int(part) for part in self.head.split(":")[0].split("."))
        place = target[0], target[1]
        tables: dict[str, dict[str, float | None]] = {"scores": {}, "spread": {}, "percentile": {}}
        for name in SCORES:
            mean, spread = (self.scores[name], self.scores.spread(name)) if self.scores else (None, None)
            tables["scores"][name] = None if mean is None else as_number(float(mean[place]))
            tables["spread"][name] = None if spread is None else as_number(float(spread[place]))
            tables["percentile"][name] = self.scores.percentile(name, place) if self.scores else None
        total = self.total_effect.results[0]
        return {
            **self.provenance,
            "head": self.head,
            **tables,
            "writes": None if self.writes is None else self.writes.to_dict(),
            "examples": [example.to_dict() for example in self.examples],
            "direct_effect": None if self.direct_effect is None else _numbers(self.direct_effect),
            "total_effect": {"method": total.method, **_numbers(total.change["loss"])},
            "results": self.total_effect.to_dict()["results"],
            "notes": list(self.notes),
        }


@measures
def describe_head(
    model: LoadedModel,
    data: Data,
    select: str,
    methods: str | Sequence[str] = ("zero",),
    statistics: Statistics | str | Path | None = None,
    where: Where = "top",
    bins: int = 100,
) -> HeadDescription:
    """Everything about a head (`3.2`), or one of its neurons (`3.2:5`), over the data.

    >>> from ablation_core import describe_head, load_data, load_model
    >>> model = load_model("opt-mini")
    >>> found = describe_head(model, load_data("python-docs", model, predictions=700), "4.5").to_dict()
    >>> found["head"], 0 <= found["scores"]["induction"] <= 1
    ('4.5', True)

    Args:
        methods: a name of `METHODS`, several, or `all` that need no learning.
        statistics: for the methods that need them: themselves, their file, or the data set that they were made from.
        where: which examples, as `examples` has it.

    Raises:
        AblationError: it is not a head of this model, or a method does not fit.
    """
    target, known, notes = Target.parse(select, model.shape), as_statistics(statistics, model), []
    scores = written = direct = None
    try:
        scores = head_scores(model, data)
    except ModelError as error:
        notes.append(str(error))
    try:
        written = writes(model, select, data)
        direct = direct_effects(model, data).interval((target.layer, target.head)) if target.neuron is None else None
    except (ModelError, DataError) as error:  # not defined in this model, or a task's answers have several tokens
        notes.append(str(error))
    return HeadDescription(
        str(target),
        describe_run(model, data, known),
        scores,
        written,
        tuple(examples(model, data, select, where)),
        direct,
        ablate(model, data, select, methods, statistics=known, bins=bins),
        tuple(notes),
    )


def _numbers(interval: Interval) -> dict[str, float | None]:
    return {name: as_number(value) for name, value in asdict(interval).items()}
