"""What is decided before an ablation runs."""

from dataclasses import dataclass

from ablation_core.data.positions import EVERYWHERE, Positions
from ablation_core.methods.registry import Method
from ablation_core.selection import Selection

DEFAULT_BINS = 100


@dataclass(frozen=True)
class AblationSpec:
    """What is decided before an experiment runs."""

    selection: Selection
    methods: tuple[Method, ...]
    bins: int = DEFAULT_BINS
    seed: int = 0
    positions: Positions = EVERYWHERE
