"""The scores that say what kind of head it is: one row and one function each.

A function takes the attention weights of a layer, float32 (sequences, heads, positions, positions), and what they were
seen on, and gives each head's score in each sequence, (sequences, heads): a mean over the positions that count.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ablation_core.models.info import Modality


@dataclass(frozen=True, eq=False)
class Seen:
    """What the weights were seen on.

    Attributes:
        counted: which positions are no padding, bool (sequences, positions).
        tokens: (sequences, positions) ids; None for images.
        grid: rows and columns of an image's patches, which are the last positions; None for text.
    """

    counted: Tensor
    tokens: Tensor | None = None
    grid: tuple[int, int] | None = None

    @cached_property
    def share(self) -> Tensor:
        """What each row adds to a sequence's mean, (sequences, positions)."""
        return self.counted / self.counted.sum(1, keepdim=True)

    @cached_property
    def first(self) -> Tensor:
        """The first position that counts in each sequence, (sequences,)."""
        return self.counted.int().argmax(1)

    @cached_property
    def same_token(self) -> Tensor:
        """Where row and column hold the same token at different places; bool (sequences, positions, positions)."""
        assert self.tokens is not None
        same = (self.tokens[:, :, None] == self.tokens[:, None, :]) & self.counted[:, None, :]
        same.diagonal(dim1=1, dim2=2).fill_(False)
        return same

    @cached_property
    def duplicates(self) -> Tensor:
        return self.same_token * self.share[:, :, None]

    @cached_property
    def behind_copies(self) -> Tensor:
        """The columns behind earlier copies of the row's token; a mean over the rows that have an earlier copy."""
        earlier = self.same_token.tril()
        rows = earlier.any(2, keepdim=True)
        behind = torch.nn.functional.pad(earlier, (1, 0))[..., :-1].tril()
        return behind / rows.sum(1, keepdim=True)

    @cached_property
    def distances(self) -> Tensor:
        """Tokens between row and column, or patches between the middles of two; a mean over the rows.

        What is no patch (CLS, registers) has no place in an image: 0.
        """
        length, device = self.counted.shape[1], self.counted.device
        if self.grid is None:
            places = torch.arange(length, dtype=torch.float32, device=device)
            return (places[:, None] - places).abs() * self.share[:, :, None]
        rows, columns = self.grid
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float().to(device)
        apart = torch.cdist(places[None], places[None])[0]
        return torch.nn.functional.pad(apart, (length - rows * columns, 0) * 2).expand(len(self.counted), -1, -1)


Function = Callable[[Tensor, Seen], Tensor]


@dataclass(frozen=True)
class Score:
    """A row: a score's name, how it is shown, what it is in one line, and its function.

    Attributes:
        modalities: where it makes sense.
        repeated: whether it is taken on random tokens written twice instead of on the data.
        unit: empty for a share of attention, 0 to 1.
    """

    name: str
    label: str
    definition: str
    of: Function
    modalities: tuple[Modality, ...] = ("causal", "masked", "text-classification", "vision")
    repeated: bool = False
    unit: str = ""


def _on_pattern(weights: Tensor, pattern: Tensor) -> Tensor:
    """Σ weights · pattern over rows and columns: (sequences, heads) with a pattern (sequences, positions, positions)."""
    return (weights.flatten(2) @ pattern.flatten(1)[..., None])[..., 0]


def _previous(weights: Tensor, seen: Seen) -> Tensor:
    return (weights.diagonal(-1, dim1=-2, dim2=-1) * seen.share[:, None, 1:]).sum(-1)


def _duplicate(weights: Tensor, seen: Seen) -> Tensor:
    return _on_pattern(weights, seen.duplicates)


def _induction(weights: Tensor, seen: Seen) -> Tensor:
    return _on_pattern(weights, seen.behind_copies)


def _first(weights: Tensor, seen: Seen) -> Tensor:
    column = weights.gather(3, seen.first[:, None, None, None].expand(*weights.shape[:3], 1))[..., 0]
    return (column * seen.share[:, None]).sum(-1)


def _self(weights: Tensor, seen: Seen) -> Tensor:
    return (weights.diagonal(dim1=-2, dim2=-1) * seen.share[:, None]).sum(-1)


def _entropy(weights: Tensor, seen: Seen) -> Tensor:
    # torch.special.entr takes ten times as long on a processor; 0 · log 0 is 0 here too
    rows = weights.clamp_min(1e-30).log_().mul_(weights).sum(-1)
    return -(rows * seen.share[:, None]).sum(-1)


def _distance(weights: Tensor, seen: Seen) -> Tensor:
    if seen.grid is None:
        return _on_pattern(weights, seen.distances)
    patches = seen.grid[0] * seen.grid[1]
    return _on_pattern(weights, seen.distances) / weights[..., -patches:, -patches:].sum((-2, -1))


_TEXT: tuple[Modality, ...] = ("causal", "masked", "text-classification")
_ROWS = (
    Score("previous_token", "Previous token", "mean attention to the position before", _previous, _TEXT),
    Score(
        "duplicate_token",
        "Duplicate token",
        "mean attention to other positions that hold the same token",
        _duplicate,
        _TEXT,
    ),
    Score(
        "induction",
        "Induction",
        "on random tokens written twice, in the second copy: mean attention to the token behind the first copy's",
        _induction,
        ("causal",),
        repeated=True,
    ),
    Score("first_token", "First token", "mean attention to the sequence's first position (BOS, CLS)", _first),
    Score("self", "Self", "mean attention of a position to itself", _self),
    Score("entropy", "Entropy", "mean entropy of a position's attention", _entropy, unit="nats"),
    Score(
        "distance",
        "Distance",
        "mean distance from a position to where it looks (of images: from patch to patch)",
        _distance,
        unit="tokens or patches",
    ),
)
SCORES = {row.name: row for row in _ROWS}
