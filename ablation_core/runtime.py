"""What an entry point (the app, the command line, a benchmark) sets for its process. No result changes, and nothing here
happens at import.

**Freed memory is kept** for the next pass: on Linux with glibc, about two fifths of a forward pass's time otherwise.
glibc hands every large buffer back to the system and asks for it again, and each new page costs a fault. Raising two of
its thresholds (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD) makes the process keep what it has used. The cost: up
to `KEPT_FREE` bytes beyond what is in use stay with the process between experiments, and more while one runs. Buffers
above `LARGEST` are handed back at once, as no pass of a model that fits here needs many; and what an experiment leaves
beyond `KEPT_FREE` is handed back when it ends. The environment variable `ABLATION_KEEP_MEMORY=0` switches this off.

**Threads that wait spin only briefly.** GNU's OpenMP, which torch brings on Linux, lets a waiting thread spin for some
milliseconds before it sleeps. A pass of a small model waits thousands of times; where a browser or another computation
wants a core too, the thread waited for does not run while the other spins, and a pass takes many times as long. A short
spin costs a few per cent on an idle machine (`python -m benchmarks.contention` measures both).

**Cycles are looked for less often.** torch and transformers leave a million objects that stay, and Python's collector walks
them again and again while they are imported: a second of processor time before a first answer, half of it needless.
"""

import ctypes
import gc
import os
import sys
from pathlib import Path

SPINS = "1000"
NEW_OBJECTS = 10_000  # between two searches for cycles; Python's own 700 suits small programs
_SAID = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # whoever runs this has decided
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


def trim_heap() -> bool:
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


def prepare_process() -> None:
    """What the app and the command line ask for, before torch is loaded."""
    limit_openmp_spin()
    keep_freed_memory()
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])


def limit_openmp_spin() -> None:
    """Ask for short spins; heeded by a torch that is loaded after this. The user's own setting takes precedence."""
    if not any(name in os.environ for name in _SAID):
        os.environ["GOMP_SPINCOUNT"] = SPINS
