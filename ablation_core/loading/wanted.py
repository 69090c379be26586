"""How a model is to be loaded, as decided once and handed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation_core.storage import CACHE

if TYPE_CHECKING:
    import torch

    from ablation_core.loading.zero_shot import ClassTexts

Notify = Callable[[str], object]


@dataclass(frozen=True)
class Wanted:
    """Where and how a model's weights are to lie.

    Attributes:
        device: None where the model is spread over several.
        placement: transformers' options for that.
        cache_dir: where fetched models lie, and where it is remembered that a model passed the checks at the door.
        notify: is told in a few words what takes a while.
        classes: what images are compared with, for models that have no classes of their own.
    """

    device: torch.device | None
    dtype: torch.dtype
    cache_dir: Path = CACHE
    placement: dict[str, Any] = field(default_factory=dict)
    notify: Notify = lambda words: None
    classes: ClassTexts | None = None
