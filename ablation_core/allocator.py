"""Keeping freed memory for the next pass: on Linux with glibc, about two fifths of a forward pass's time otherwise.

glibc hands every large buffer back to the system and asks for it anew, and each new page costs a fault. Raising two of
its thresholds (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD) makes the process keep what it has used: its memory
stays at its highest point. The environment variable `ABLATION_KEEP_MEMORY=0` switches this off. No result changes.
"""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 1 << 30
_LARGEST_BEFORE_GLIBC_2_35 = 32 << 20


def keep_freed_memory() -> bool:
    """Raise the thresholds for this process; returns whether that was done. Elsewhere than on glibc nothing happens."""
    if sys.platform != "linux" or os.environ.get("ABLATION_KEEP_MEMORY") == "0":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    raised = mallopt(_M_MMAP_THRESHOLD, _LARGEST) or mallopt(_M_MMAP_THRESHOLD, _LARGEST_BEFORE_GLIBC_2_35)
    return bool(raised and mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST - 1))
