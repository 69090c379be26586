"""What a sweep has found so far: each head's changes, which are significant, the noise floor, the methods' agreement.

Needs no model in memory: what is known of it is enough to read what is saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ablation_core.engine.metrics import METRICS
from ablation_core.models.info import ModelInfo
from ablation_core.presentation import Presented
from ablation_core.runs.kept.prediction_files import kept_predictions
from ablation_core.runs.records import Rows, kept_baseline, kept_rows, kept_runs, tested_alike
from ablation_core.selection import Head
from ablation_core.stats.correlation import rank_agreement
from ablation_core.stats.sequential import FALSE_DISCOVERIES, adjusted
from ablation_core.storage import as_number

if TYPE_CHECKING:
    from ablation_core.models.loaded import LoadedModel


@dataclass(frozen=True)
class SweepResult(Presented):
    """A sweep after any number of finished heads.

    Attributes:
        description: the model, the data, the statistics, `bins` and the names of the methods.
        rows: head or random set → method → its row, as in the document of `ablate`, with the `p_values` of its changes
            (`intervals.py`).
        wanted: the heads of the whole map, also those not measured yet.
        share: of the work that was asked for, how much is done.
        provenance: when, where and by which versions it was finished; empty where it was found in the cache folder.
        predictions: head → its changes of single predictions (`kept/prediction_files.py`); in no document, and None where the
            sweep kept none.
    """

    description: dict
    baseline: dict | None
    rows: Rows
    wanted: tuple[str, ...]
    share: float = 1.0
    provenance: dict = field(default_factory=dict)
    predictions: Mapping[str, Mapping[str, np.ndarray]] | None = field(default=None, compare=False, repr=False)

    @property
    def methods(self) -> list[str]:
        return self.description["methods"]

    @cached_property
    def heads(self) -> tuple[str, ...]:
        """Those measured by every method."""
        return tuple(head for head in self.wanted if all(name in self.rows.get(head, {}) for name in self.methods))

    @cached_property
    def metrics(self) -> list[str]:
        """Those that every row has; all, where there is none yet."""
        rows = [row["change"] for methods in self.rows.values() for row in methods.values()]
        return [name for name in METRICS if all(name in row for row in rows)]

    @property
    def positions(self) -> str:
        """Where in each sequence the heads were ablated."""
        return str(self.description.get("positions", "all"))

    def changes(self, method: str, metric: str) -> dict[str, float]:
        """Measured head → mean change; NaN where the ablated model gave no numbers. Nothing of a row without the metric."""
        rows = {head: self.rows[head][method] for head in self.wanted if method in self.rows.get(head, {})}
        return {head: _number(row["change"][metric]["mean"]) for head, row in rows.items() if metric in row["change"]}

    def adjusted(self, method: str, metric: str) -> dict[str, float | None]:
        """Measured head → q: its p-value after Benjamini and Hochberg (1995) over the whole map.

        Heads that are not measured yet count as showing nothing, so that what is significant early stays so.
        """
        heads = list(self.changes(method, metric))
        p = [self.rows[head][method]["p_values"].get(metric) for head in heads]
        filled = [1.0 if value is None else value for value in p] + [1.0] * (len(self.wanted) - len(heads))
        q = adjusted(np.array(filled))
        return {head: None if value is None else float(a) for head, value, a in zip(heads, p, q, strict=False)}

    def significant(self, method: str, metric: str) -> set[str]:
        """The heads whose change is significant at 5% false discoveries over the map."""
        return {head for head, q in self.adjusted(method, metric).items() if q is not None and q <= FALSE_DISCOVERIES}

    def floor(self, method: str, metric: str, layer: int | None = None) -> tuple[float, float, int] | None:
        """The least and the greatest change among the random sets, and how many there are; None without any.

        Args:
            layer: of this layer's sets only (`random_head` takes the layers in turn).
        """
        layers = sorted({int(head.split(".")[0]) for head in self.wanted})
        sets = [
            rows[method]
            for name, rows in self.rows.items()
            if name.startswith("random ")
            and method in rows
            and layer in (None, layers[int(name.removeprefix("random ")) % len(layers)])
        ]
        values = [_number(row["change"][metric]["mean"]) for row in sets if metric in row["change"]]
        return (float(np.min(values)), float(np.max(values)), len(values)) if values else None

    def agreement(self, metric: str) -> list[dict]:
        """Spearman's rank correlation between every two methods, over the heads that both have measured."""
        pairs = []
        for one, other in combinations(self.methods, 2):
            a, b = self.changes(one, metric), self.changes(other, metric)
            both = [head for head in a if head in b]
            rho = rank_agreement([a[head] for head in both], [b[head] for head in both])
            bounds = {name: as_number(value) for name, value in asdict(rho).items()}
            pairs.append({"methods": [one, other], "heads": len(both), "spearman": bounds})
        return pairs

    def to_dict(self) -> dict:
        """The JSON document of `python -m ablation_core sweep --json`.

        For each method of each head: its performance, its changes with intervals, `p` (of the change of loss being 0,
        `intervals.py`), `q` (p after Benjamini and Hochberg over the heads of the method) and
        `told_from_no_effect`, which is whether q is at most 5%; `q_values` has q of every metric that is tested. Then
        the noise floor (the range of changes among random sets of one head's size) and the rank agreement between methods.
        """
        tested = [name for name in self.metrics if METRICS[name].tested]
        adjusted = {(method, name): self.adjusted(method, name) for method in self.methods for name in tested}
        significant = {method: self.significant(method, "loss") for method in self.methods}

        def row(head: str, method: str) -> dict:
            kept = self.rows[head][method]
            q = {name: adjusted[method, name][head] for name in tested}
            judged = {"p": kept["p_values"]["loss"], "q": q["loss"], "q_values": q}
            return kept | judged | {"told_from_no_effect": head in significant[method]}

        floors = {
            method: {metric: floor for metric in self.metrics if (floor := self.floor(method, metric)) is not None}
            for method in self.methods
        }
        return self.description | {
            "positions": self.positions,
            "provenance": self.provenance,
            "baseline": self.baseline,
            "heads_wanted": len(self.wanted),
            "heads": [{"head": head, "results": [row(head, method) for method in self.methods]} for head in self.heads],
            "noise_floor": [
                {"method": method, "sets": floor["loss"][2]}
                | {metric: {"low": as_number(span[0]), "high": as_number(span[1])} for metric, span in floor.items()}
                for method, floor in floors.items()
                if floor
            ],
            "agreement": {metric: self.agreement(metric) for metric in self.metrics},
        }


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def every_head(model: LoadedModel | ModelInfo) -> list[Head]:
    return [(layer, head) for layer, count in enumerate(model.shape.heads) for head in range(count)]


def kept_sweeps(
    model: LoadedModel | ModelInfo, folder: Path, methods: list[str] | None = None, data_ref: str | None = None
) -> dict[Path, SweepResult]:
    """What sweeps of this model have left in the cache folder, by their files: the one with the most predictions first.

    Args:
        methods: names of these only; by default all that any head has.
        data_ref: on this data only; by default on any.
    """
    heads, kept = tuple(map(head_name, every_head(model))), []
    for run in kept_runs(folder, "sweep", model.fingerprint, data_ref):
        if done := tested_alike(run.done):
            names = methods or sorted({row["method"] for record in done.values() for row in record["results"]})
            result = result_of(run.run, names, done, heads)
            kept.append((run.path, replace(result, predictions=kept_predictions(run.path, result.heads))))
    return dict(sorted(kept, key=lambda run: (-run[1].description["data"]["predictions"], -len(run[1].rows))))


def empty_sweep(model: LoadedModel | ModelInfo, description: dict, methods: list[str]) -> SweepResult:
    """A sweep before its first head."""
    return result_of(description, methods, {}, tuple(map(head_name, every_head(model))))


def result_of(description: dict, methods: list[str], done: Mapping[str, dict], wanted: tuple[str, ...]) -> SweepResult:
    return SweepResult(description | {"methods": methods}, kept_baseline(done), kept_rows(done), wanted)


def head_name(head: Head) -> str:
    return f"{head[0]}.{head[1]}"
