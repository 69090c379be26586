"""How long torch's threads spin while they wait for each other: briefly, so that they leave the cores to others.

GNU's OpenMP, which torch brings on Linux, lets a thread that waits spin for some milliseconds before it sleeps. A pass
of a small model waits thousands of times; where a browser or another computation wants a core too, the thread waited for
does not run while the other spins, and a pass takes many times as long. A short spin costs a few per cent on an idle
machine (`python -m benchmarks.company` measures both). No result changes.
"""

import os

SPINS = "1000"
_SAID = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # whoever runs this has decided


def spin_briefly() -> None:
    """Ask for it; heeded by a torch that is loaded after this."""
    if not any(name in os.environ for name in _SAID):
        os.environ["GOMP_SPINCOUNT"] = SPINS
