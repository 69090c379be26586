"""How much may be kept where a model lies: clean passes, and the clean probabilities that ablated runs are compared with.

On a processor these are fixed amounts, since others need the memory too. On a card they are shares of what is free there when
a cache begins, so that what is kept lies where it is quickest, and a quarter stays for what runs.
"""

from collections.abc import Callable

import torch

KEPT_BYTES = 1 << 30  # recorded block outputs and z kept for further ablations of the same data
KEPT_CLEAN_BYTES = 1 << 29  # clean probabilities kept for the same purpose


def free_bytes(device: torch.device) -> int | None:
    """What can be allocated on a card: free for everybody, or held by this process unused. None for a processor."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def kept_bytes(device: torch.device, free: Callable[[torch.device], int | None] = free_bytes) -> tuple[int, int]:
    """The limits of clean passes and of clean probabilities on a device."""
    room = free(device)
    return (KEPT_BYTES, KEPT_CLEAN_BYTES) if room is None else (room // 2, room // 4)
