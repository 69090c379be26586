"""Whether heads are independent slices of what a linear map reads: told by rows of which each has one head changed.

independent_slices(by_row, [0, 1, 2], 3)   # 3 where each row differs from the first in its own third
"""

import torch
from torch import Tensor


def changed_inputs(by_row: Tensor) -> Tensor:
    """Which inputs of a linear map differ from the first row's, at any position; bool (rows - 1, width)."""
    values = by_row.float()
    size = values[0].square().mean().sqrt()
    tolerance = 1e-4 if by_row.dtype == torch.float32 else 3e-2
    return (values[1:] - values[:1]).abs().amax(1) > tolerance * size.clamp(min=1e-30)


def independent_slices(by_row: Tensor, tried: list[int], heads: int) -> int:
    """Into how many equal slices, one per head, the inputs fall; 0 where a head changes more than one of them.

    Fewer slices than heads are computed where two make one, as in differential attention. A factor common to all inputs
    of a position, as a norm over all heads gives it, is no dependence.

    Args:
        by_row: (rows, positions, width), row 0 unchanged.
        tried: the head that each further row has changed.
    """
    width = by_row.shape[-1]
    for count in (number for number in range(heads, 1, -1) if width % number == 0 and heads % number == 0):
        size = width // count
        changes = changed_inputs(by_row[: len(tried) + 1]).unflatten(-1, (count, size)).any(-1)
        at_once = changes.sum(-1)
        slots = changes.int().argmax(-1).tolist()
        if (at_once == 1).all() and len(set(slots)) == min(count, len(tried)):
            if count == heads:
                return count if slots == tried else 0
            # as many in each: where heads of two kinds are read by one map, slices hold other ones of another kind too
            alike = len(tried) < heads or {slots.count(slot) for slot in slots} == {heads // count}
            return count if alike else 0
    if heads > 1 and width % heads == 0 and _only_rescaled(by_row, tried, width // heads):
        return heads
    return 1 if heads == 1 else 0


def _only_rescaled(by_row: Tensor, tried: list[int], size: int) -> bool:
    """Whether outside each changed head's slice every position is its clean self times one factor."""
    for row, head in enumerate(tried, 1):
        outside = torch.ones(by_row.shape[-1], dtype=torch.bool, device=by_row.device)
        outside[head * size : (head + 1) * size] = False
        clean, changed = by_row[0][:, outside].double(), by_row[row][:, outside].double()
        factor = (clean * changed).sum(-1) / clean.square().sum(-1).clamp(min=1e-30)
        if not torch.allclose(changed, factor[:, None] * clean, rtol=1e-3, atol=1e-4 * float(clean.abs().max())):
            return False
    return True
