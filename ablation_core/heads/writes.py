"""What a head or a neuron writes: the tokens, or classes, whose logits it raises and lowers directly.

    written = writes(model, "3.2", data)
    written.promotes[0].text, written.promotes[0].logit

A head on the data: the mean over the predictions of what it adds to every logit. A neuron on the data: what one unit of
its activation adds. On an own input, either as it is at one position. The final norm's scale is held fixed (`tail.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablation_core.data.arguments import measures, whole_number
from ablation_core.data.dataset import IGNORED, Batch, Data
from ablation_core.engine.clean_pass import CleanPass
from ablation_core.engine.hooks import hidden_of
from ablation_core.engine.scoring import logits_from
from ablation_core.errors import DataError
from ablation_core.experiments.predictions.per_prediction import class_name
from ablation_core.heads.direct import pass_with_z
from ablation_core.heads.tail import check_affine, frozen_norms, residual_paths
from ablation_core.heads.target import OwnInput, Target, one_input
from ablation_core.heads.weights import output_weights
from ablation_core.models.loaded import LoadedModel
from ablation_core.storage import as_number

COUNT = 10


@dataclass(frozen=True)
class Written:
    """A token or class, and what is added to its logit."""

    number: int
    text: str
    logit: float

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.number, "text": self.text, "logit": as_number(self.logit)}


@dataclass(frozen=True, eq=False)
class Writes:
    """What is added to every logit, and the ends of that list.

    Attributes:
        logits: float32 (classes,), less their mean: what is added to all alike changes no prediction.
        promotes, suppresses: the largest and the smallest, the most extreme first.
    """

    logits: np.ndarray
    promotes: tuple[Written, ...]
    suppresses: tuple[Written, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "promotes": [one.to_dict() for one in self.promotes],
            "suppresses": [one.to_dict() for one in self.suppresses],
        }


@measures
def writes(
    model: LoadedModel,
    select: str,
    data: Data | None = None,
    own: OwnInput | None = None,
    position: int = -1,
    count: int = COUNT,
) -> Writes:
    """The tokens or classes that a head (`3.2`) or a neuron (`3.2:5`) promotes and suppresses.

    >>> from ablation_core import load_model, writes
    >>> found = writes(load_model("opt-mini"), "5.2", own="def area(width, height):", count=3).to_dict()
    >>> len(found["promotes"]), len(found["suppresses"])
    (3, 3)

    Args:
        data: the mean over its predictions; or
        own: a text, an image, ids or a batch of one sequence: at one position of it (of what is classified: all of it).
        position: counted from 0, or from the end.

    Raises:
        ModelError: a head's direct contribution is not defined in this model; the sentence says why.
        DataError: neither or both inputs are given, or there is no such position.
    """
    target = Target.parse(select, model.shape)
    whole_number(count, "count", 1)
    if (data is None) == (own is None):
        raise DataError("Give either data or an own input to see what is written there.")
    batches: Iterable[Batch] = data if data is not None else [_at(model, one_input(model, own), position)]  # type: ignore[arg-type]
    if data is not None:
        data.check_one_answer("what a head writes")
    path: Tensor | None = None
    total, predictions, nothing = torch.zeros(1), 0, torch.zeros(1)
    for batch in batches:
        clean_pass, z = pass_with_z(model, batch)
        if path is None:
            path = residual_paths(model, batch)[target.layer]
            check_affine(model, clean_pass)
            nothing = _logits(model, clean_pass, lambda last: torch.zeros_like(last), sums=False)
        rows = output_weights(model, target) * path.to(model.device)
        unit = data is not None and target.neuron is not None
        active = z[target.layer][..., target.columns(model.shape.size(target.layer))].float().to(rows.device)
        added = (torch.ones_like(active) if unit else active) @ rows
        scored = int((clean_pass.batch.targets != IGNORED).sum())
        total = total + _logits(model, clean_pass, lambda last, d=added: d.to(last)) - scored * nothing
        predictions += scored
    logits = (total / predictions).float()
    return _ends(model, (logits - logits.mean()).cpu().numpy(), count)


@torch.no_grad()
def _logits(model: LoadedModel, clean_pass: CleanPass, replaced: Any, sums: bool = True) -> Tensor:
    """The logits' sum over the predictions (or the first prediction's) if another tensor stood in the last output's
    place, norms keeping the scale that the model's own output gives them; float64 (classes,)."""
    last = hidden_of(clean_pass.outputs[-1])
    total = torch.zeros(1, dtype=torch.float64)
    with model.lock, frozen_norms(model) as scales:
        for _, logits in logits_from(model, clean_pass):
            scales.clear()
            logits(last)
            found = logits(replaced(last)).double().cpu()
            if not sums:
                return found[0]
            total = total + found.sum(0)
    return total


def _at(model: LoadedModel, batch: Batch, position: int) -> Batch:
    """The batch with one prediction, at this position; a classifier's is its class."""
    if len(batch.targets) != 1:
        raise DataError(f"What is written is shown for one input at a time, not for {len(batch.targets)}.")
    if model.predicts_class:
        return batch
    length = batch.targets.shape[1]
    if isinstance(position, bool) or not isinstance(position, int | np.integer):
        raise DataError(f"The position is a whole number, counted from 0 or (negative) from the end, not {position!r}.")
    if not -length <= position < length:
        raise DataError(f"There is no position {position}: the input has {length} tokens.")
    targets = torch.full_like(batch.targets, IGNORED)
    targets[0, position] = 0  # any token: all logits are looked at
    return Batch(batch.inputs, targets)


def _ends(model: LoadedModel, logits: np.ndarray, count: int) -> Writes:
    order = np.argsort(-logits, kind="stable")
    known = len(logits) if model.tokenizer is None else min(len(logits), len(model.tokenizer))
    order = order if model.predicts_class else order[order < known]

    def named(numbers: np.ndarray) -> tuple[Written, ...]:
        return tuple(Written(int(one), _name(model, int(one)), float(logits[one])) for one in numbers)

    return Writes(logits, named(order[:count]), named(order[::-1][:count]))


def _name(model: LoadedModel, number: int) -> str:
    if not model.predicts_class and model.tokenizer is None:
        return str(number)
    return class_name(model, number)
