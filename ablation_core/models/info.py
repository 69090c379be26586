"""What is known of a model without its weights in memory: enough to find its statistics, name it and lay out its heads."""

from dataclasses import dataclass
from typing import Literal

from ablation_core.selection import ModelShape

Modality = Literal["causal", "masked", "vision", "text-classification"]


def predicts_class(modality: Modality) -> bool:
    """Whether a model of this kind makes one prediction per input, a class, and not one per token."""
    return modality in ("vision", "text-classification")


@dataclass(frozen=True)
class ModelInfo:
    """A model by what tells it apart; a `LoadedModel` has the same attributes, and gives its card.

    Attributes:
        ref: the reference it is loaded by.
        verified: whether the conformance test runs its family.
        fingerprint: a digest of every weight.
        dtype: the weights' type.
        excluded_positions: how many positions at the start of each sequence statistics leave out: 1 where the first holds BOS, CLS
            or the like.
    """

    ref: str
    family: str
    modality: Modality
    shape: ModelShape
    fingerprint: str
    dtype: str = "float32"
    verified: bool = True
    excluded_positions: int = 1
