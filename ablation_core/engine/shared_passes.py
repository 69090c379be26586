"""Ablations that begin in the middle of sequences, several of them in one pass.

An ablation of the last position computes one or two columns of each row: so few that reading the weights takes longer than
multiplying by them. Ablations that begin in the same block and at the same columns therefore share a pass: their rows stand
behind each other in its batch, each with replacements of its own. They do so while the pass has no more tokens
than the whole pass over the batch, or `TOKENS` if that is more, and the keys and values copied for it no more than `BYTES`.

Every row is computed from the same numbers by the same code. How a matrix product adds up may depend on how many rows it
has, so that the last bits may differ from those of a pass of its own; of types whose last bit is not small (half
precision) ablations share none.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ablation_core.data.dataset import Batch
from ablation_core.engine.clean_pass import CleanPass
from ablation_core.engine.columns import placed, row_columns, run_columns, takes_columns
from ablation_core.engine.hooks import Replace, hidden_of
from ablation_core.engine.prefix import TOLERANCE, fewest_columns, joined, run_from
from ablation_core.models.loaded import LoadedModel

TOKENS = 1024  # more of them make the matrix products hardly quicker per token
BYTES = 1 << 28


class Begin(NamedTuple):
    """Where ablations begin: in a common column, or in each row's own columns (rows, columns)."""

    start: int
    columns: Tensor | None

    def tokens(self, batch: Batch) -> int:
        rows, length = batch.targets.shape
        return rows * (length - self.start) if self.columns is None else self.columns.numel()


class LateOutputs(Sequence[Any]):
    """Every block's output, put together when it is asked for: the clean one, with what was computed at its columns.

    Behind a row's last token that is not padding outputs stay the clean ones where each row has columns of its own: nobody
    reads them.
    """

    def __init__(self, clean_pass: CleanPass, first: int, late: Sequence[Tensor], begin: Begin) -> None:
        self._clean, self._first, self._late, self._begin = clean_pass, first, late, begin

    def __len__(self) -> int:
        return len(self._clean.outputs)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        clean = self._clean.outputs[number]
        if number < self._first:
            return clean
        late = self._late[number - self._first]
        if self._begin.columns is not None:
            return placed(clean, late, self._begin.columns)
        return joined(clean, late, self._begin.start)


def begin_of(model: LoadedModel, clean_pass: CleanPass, starts: Tensor) -> Begin | None:
    """Where a pass begins that computes each row from its start on; None where nothing would be saved.

    Args:
        starts: the first column of each row at which anything is replaced; (rows,).
    """
    columns, (rows, length) = row_columns(model, clean_pass.batch, starts), clean_pass.batch.targets.shape
    start = max(0, min(int(starts.min()), length - fewest_columns(model, rows)))
    if columns.shape[1] < length - start and takes_columns(model, clean_pass):
        return Begin(start, columns)
    return Begin(start, None) if start else None


def most_together(model: LoadedModel, clean_pass: CleanPass, begin: Begin | None) -> int:
    """How many ablations that begin there share a pass, at least 1."""
    if begin is None or model.dtype not in TOLERANCE:
        return 1
    rows, length = clean_pass.batch.targets.shape
    copied = sum(tensor.nbytes for pair in clean_pass.keys_values for tensor in pair)
    return max(1, min(max(TOKENS, rows * length) // begin.tokens(clean_pass.batch), BYTES // copied))


@torch.inference_mode()
def ablated_from(
    model: LoadedModel, clean_pass: CleanPass, several: Sequence[Mapping[int, Replace]], begin: Begin
) -> Iterator[Sequence[Any]]:
    """Every block's output of each of these ablations, from one pass.

    Args:
        several: their replacements, as for whole sequences: before their starts they change nothing.
    """
    first = min(min(replacements) for replacements in several)
    if begin.columns is None:
        found = run_from(model, clean_pass, several, begin.start, first)
    else:
        found = run_columns(model, clean_pass, several, begin.columns, first)
    late = [hidden_of(output).chunk(len(several)) for output in found]
    for number in range(len(several)):
        yield LateOutputs(clean_pass, first, [parts[number] for parts in late], begin)
