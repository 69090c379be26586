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
        fingerprint: a digest of every weight, and of the settings that it runs by (`LoadedModel.fingerprint`).
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


def same_weights(one: str, other: str) -> bool:
    """Whether models of these fingerprints differ by their settings at most (`LoadedModel.fingerprint`)."""
    return one.partition("-")[0] == other.partition("-")[0]


def how_they_differ(there: object, here: str) -> str:
    """In words, what differs between models of two fingerprints (`LoadedModel.fingerprint`).

    >>> how_they_differ("b8aacccc9bca2f8d", "d492b8787c844cdc")
    'the weights differ'
    """
    if not same_weights(str(there), here):
        return "the weights differ"
    earlier = "" if "-" in str(there) else ", or an earlier version made this, which did not look at settings"
    return (
        f"the weights are the same, but they are run by other settings (those of config.json, of the module, or of "
        f"the tokenizer that it was loaded with){earlier}"
    )
