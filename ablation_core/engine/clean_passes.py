"""Runs a model over data with replacements, computing nothing twice.

A clean pass records every block's output and every z once a batch. An ablation that begins in block L resumes from
the recorded input of block L, and behind its attention, whose recorded z it replaces: what lies before is
skipped, everything else is the model's own code, and the result is the same bit for bit.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ablation_core.data.dataset import Data
from ablation_core.data.made_for import check_made_for
from ablation_core.engine import shared_passes
from ablation_core.engine.clean_pass import CleanPass
from ablation_core.engine.forward import first_row, record, run_blocks
from ablation_core.engine.hooks import Replace, record_outputs, replace_z, skip_blocks
from ablation_core.engine.kept_bytes import kept_bytes
from ablation_core.engine.shortcuts import skip_attention
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Selection


class ByteBudget:
    """So many bytes to keep things in: asked for more, it says whether they are there, and takes them.

    Attributes:
        full: whether something found none.
    """

    def __init__(self, limit: int) -> None:
        self.left, self.full = limit, False

    def __call__(self, more: int) -> bool:
        there = more <= self.left
        self.left -= more if there else 0
        self.full |= not there
        return there


class CleanPassCache:
    """The clean passes over a data set, made when first asked for and kept while they fit into `limit` bytes.

    Pre-outs are kept only where those of all batches find room: an ablation gains less by them than by the outputs. Of
    kept passes the probabilities are kept too, while these fit into `clean_limit` bytes: every ablation is compared with
    them, and computing them again would cost as much as scoring the ablated run itself. Both limits are by default what
    the model's device has room for (`kept_bytes.py`).

    Args:
        keys_values: whether ablations will begin behind a sequence's first position, so that those are worth keeping.
    """

    def __init__(
        self,
        model: LoadedModel,
        data: Data,
        limit: int | None = None,
        clean_limit: int | None = None,
        z_values: bool = True,
        keys_values: bool = False,
    ) -> None:
        check_made_for(model, data.made_for, data.ref)
        usual, usual_clean = kept_bytes(model.device)
        clean_limit = usual_clean if clean_limit is None else clean_limit
        self.model, self.data, self.z_values, self.keys_values = model, data, z_values, keys_values
        self.limit = usual if limit is None else limit
        self._room_for_clean, self._spilled = ByteBudget(clean_limit), False
        self._kept: dict[int, CleanPass] = {}
        self._looked_at: dict[
            int, CleanPass
        ] = {}  # not kept, but made to see whether there is room; for its first user
        self._donated: dict[tuple[int, Hashable], Mapping[int, Tensor]] = {}
        self._latest: tuple[tuple[int, Hashable], Mapping[int, Tensor]] | None = None
        self._made: dict[Hashable, Any] = {}

    def __getitem__(self, number: int) -> CleanPass:
        """The clean pass over batch `number`."""
        if number in self._kept:
            return self._kept[number]
        clean_pass = self._looked_at.pop(number, None) or record(
            self.model, self.data.rows(self.data.numbers(number)), self.z_values, self.keys_values
        )
        kept = clean_pass
        if len(self.data) * clean_pass.bytes > self.limit:
            kept = replace(clean_pass, z_values={}, keys_values=())
        if number not in self._kept and self.bytes + kept.bytes > self.limit:
            self._spilled = True
            return clean_pass
        # Another session may have recorded it meanwhile: then both use that one.
        return self._kept.setdefault(number, replace(kept, keeps=self._room_for_clean))

    def resampled(self, number: int, source: Hashable, run: Callable[[], Mapping[int, Tensor]]) -> Mapping[int, Tensor]:
        """Every layer's z of what batch `number` takes values from; kept within the limit, and the latest always.

        Args:
            source: tells this source from others.
        """
        place = number, source
        latest = self._latest  # read once: other sessions may set it
        if latest is not None and latest[0] == place:
            return latest[1]
        if place in self._donated:
            return self._donated[place]
        values = run()
        coming = max((kept.bytes for kept in list(self._kept.values())), default=0) * (len(self.data) - len(self._kept))
        if self.bytes + coming + sum(value.nbytes for value in values.values()) <= self.limit:
            self._donated[place] = values
        else:
            self._latest, self._spilled = (place, values), True
        return values

    @property
    def spilled(self) -> bool:
        """Whether something found no room: then experiments gain by going through it together."""
        return self._spilled or self._room_for_clean.full

    @property
    def keeps_all(self) -> bool:
        """Whether all that was made so far found room, and all clean passes will, judged by a kept one."""
        if not (self._kept or self.spilled):
            first = self[0]
            self._looked_at = {} if self._kept else {0: first}
        one = next(iter(list(self._kept.values())), None)
        return not self.spilled and one is not None and one.bytes * len(self.data) <= self.limit

    @property
    def bytes(self) -> int:
        """What is kept, at most `limit`: blocks' outputs and z of every batch that found room, and sources'."""
        resampled = [value for values in list(self._donated.values()) for value in values.values()]
        return sum(kept.bytes for kept in list(self._kept.values())) + sum(value.nbytes for value in resampled)

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What else experiments on the same model and data share, made when first asked for."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


class Ablation(NamedTuple):
    """What is replaced, layer by layer, and each row's first position that anything is replaced at.

    Attributes:
        starts: the batch's length where a row has no such position; None: from the first position on.
    """

    replacements: Mapping[int, Replace]
    starts: Tensor | None = None


@torch.inference_mode()
def ablated_outputs(
    model: LoadedModel, clean_pass: CleanPass, replacements: Mapping[int, Replace], starts: Tensor | None = None
) -> Sequence[Any]:
    """Every block's output with these layers' z replaced, resumed from the first of them.

    Args:
        starts: of `Ablation`; what lies before is not run again where the clean pass has kept its keys and values.
    """
    return next(iter(ablated_together(model, clean_pass, [Ablation(replacements, starts)])))[1]


def ablated_output(
    model: LoadedModel, clean_pass: CleanPass, replacements: Mapping[int, Replace], starts: Tensor | None = None
) -> Any:
    """The last block's output with these layers' z replaced, resumed from the first of them."""
    return ablated_outputs(model, clean_pass, replacements, starts)[-1]


@torch.inference_mode()
def ablated_together(
    model: LoadedModel, clean_pass: CleanPass, several: Sequence[Ablation]
) -> Iterator[tuple[int, Sequence[Any]]]:
    """As `ablated_outputs` of each of these ablations, with its number; they share passes where they can.

    Take of each what is needed before the next: all that a shared pass has computed is kept so long.
    """
    length = 0 if clean_pass.batch.targets.ndim == 1 else clean_pass.batch.targets.shape[1]
    alike: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for number, (replacements, starts) in enumerate(several):
        if starts is not None and int(starts.min()) >= length:
            yield number, clean_pass.outputs  # no sequence of the batch has such a position
        elif starts is None or not replacements or not clean_pass.keys_values:
            yield number, resume(model, clean_pass, replacements)
        else:
            alike.setdefault((min(replacements), tuple(starts.tolist())), []).append(number)
    for numbers in alike.values():
        starts = several[numbers[0]].starts
        assert starts is not None
        begin = shared_passes.begin_of(model, clean_pass, starts)
        together = shared_passes.most_together(model, clean_pass, begin)
        for at in range(0, len(numbers), together):
            some = numbers[at : at + together]
            every = [several[number].replacements for number in some]
            if begin is None:
                yield some[0], resume(model, clean_pass, every[0])
            else:
                yield from zip(some, shared_passes.ablated_from(model, clean_pass, every, begin), strict=True)


def most_together(model: LoadedModel, clean_pass: CleanPass, starts: Tensor | None) -> int:
    """How many ablations of this batch that begin at these positions and in the same block share a pass, at least 1.

    Args:
        starts: of `Ablation`.
    """
    length = 0 if clean_pass.batch.targets.ndim == 1 else clean_pass.batch.targets.shape[1]
    if starts is None or not clean_pass.keys_values or int(starts.min()) >= length:
        return 1
    return shared_passes.most_together(model, clean_pass, shared_passes.begin_of(model, clean_pass, starts))


def resume(model: LoadedModel, clean_pass: CleanPass, replacements: Mapping[int, Replace]) -> list[Any]:
    """As `ablated_outputs`, in the caller's gradient mode."""
    if not replacements:
        return clean_pass.outputs
    first = min(replacements) if model.resumes else 0
    z = clean_pass.z_values.get(first) if model.resumes else None
    shortcut = model.shortcuts[first] if model.shortcuts else None
    # Images behind their embedding come from the blocks alone, so that one is enough to embed.
    one = bool(first) and model.modality == "vision" and model.one_image
    batch = first_row(clean_pass.batch) if one else clean_pass.batch
    with (
        model.lock,
        skip_blocks(model, clean_pass.outputs[:first]),
        skip_attention(shortcut, z),
        replace_z(model, replacements),
        record_outputs(model, first) as outputs,
    ):
        run_blocks(model, batch)
    return [*clean_pass.outputs[:first], *outputs]


def constant_replacements(selection: Selection, values: np.ndarray, model: LoadedModel) -> dict[int, Replace]:
    """Replacements by constants, float32 (layers, heads, head_dim), at every position."""
    replacements = {}
    for layer in selection.layers:
        value = torch.from_numpy(selection.shape.flat(values, layer).copy())
        replacements[layer] = _swapper(selection, layer, value.to(model.device))
    return replacements


def resampled_replacements(selection: Selection, resampled: Mapping[int, Tensor]) -> dict[int, Replace]:
    """Replacements by a source run's z, position by position."""
    return {layer: _swapper(selection, layer, resampled[layer]) for layer in selection.layers}


def at_positions(replacements: Mapping[int, Replace], where: Callable[[Tensor], Tensor]) -> dict[int, Replace]:
    """The same replacements, only at some positions.

    Args:
        where: from z, (batch, position, …), to which positions are replaced, bool (batch, position, 1).
    """

    def here(replace: Replace) -> Replace:
        return lambda z: torch.where(where(z), replace(z), z)

    return {layer: here(replace) for layer, replace in replacements.items()}


def _swapper(selection: Selection, layer: int, value: Tensor) -> Replace:
    mask = torch.from_numpy(selection.mask(layer)).to(value.device)

    def swap(z: Tensor) -> Tensor:
        # Layers may lie on several devices; moving to where a tensor already is costs nothing.
        here = mask.to(z.device)
        return torch.where(here, value.to(z.device, z.dtype), z)

    return swap
