"""What a metric is a function of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the pages know the metrics before torch is loaded
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class ScoredLogits:
    """What a metric is a function of: a run's predictions.

    Attributes:
        logits: (predictions, classes), of any precision.
        targets: long, (predictions,); or (predictions, targets) where the data has several, the right one first.
        loss: cross-entropy, nats; this and the following float64 (predictions,).
        top1, top10: 1 where the target was among the most probable one or ten, else 0; a share where that is a tie.
        kl: divergence of the run's distribution from the clean one's, nats: KL(clean ‖ run); 0 of the clean run itself.
    """

    logits: Tensor
    targets: Tensor
    loss: np.ndarray
    top1: np.ndarray
    top10: np.ndarray
    kl: np.ndarray
