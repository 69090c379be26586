"""Keeping freed memory for the next pass: on Linux with glibc, about two fifths of a forward pass's time otherwise.

glibc hands every large buffer back to the system and asks for it anew, and each new page costs a fault. Raising two of
its thresholds (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD) makes the process keep what it has used. The cost: up
to `KEPT_FREE` bytes beyond what is in use stay with the process between experiments, and more while one runs. Buffers
above `LARGEST` are handed back at once, as no pass of a model that fits here needs many; and what an experiment leaves
beyond `KEPT_FREE` is handed back when it ends. The environment variable `ABLATION_KEEP_MEMORY=0` switches all this
off. No result changes.
"""

import ctypes
import os
import sys
from pathlib import Path

KEPT_FREE = 1 << 30
LARGEST = 1 << 28
_LARGEST_BEFORE_GLIBC_2_35 = 32 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class _Allocated(ctypes.Structure):
    """glibc's struct mallinfo2, mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks")
    ] + [("keepcost", ctypes.c_size_t)]

    @property
    def in_use(self) -> int:
        return self.uordblks + self.hblkhd


def keep_freed_memory(largest: int = LARGEST) -> bool:
    """Raise the thresholds for this process; returns whether that was done. Elsewhere than on glibc nothing happens."""
    libc = _glibc()
    if libc is None:
        return False
    raised = libc.mallopt(_M_MMAP_THRESHOLD, largest) or libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BEFORE_GLIBC_2_35)
    return bool(raised and libc.mallopt(_M_TRIM_THRESHOLD, max(KEPT_FREE, largest)))


def give_back() -> bool:
    """Hand freed memory back to the system where there is more of it than `KEPT_FREE`; whether that was tried."""
    libc = _glibc()
    if libc is None or not hasattr(libc, "mallinfo2"):  # glibc 2.33
        return False
    libc.mallinfo2.restype = _Allocated
    allocated = libc.mallinfo2()
    resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    held = (resident - shared) * os.sysconf("SC_PAGE_SIZE") - allocated.in_use
    if min(held, allocated.fordblks) <= KEPT_FREE:  # free blocks that were handed back before are free still
        return False
    libc.malloc_trim(0)
    return True


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux" or os.environ.get("ABLATION_KEEP_MEMORY") == "0":
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
