"""Every single prediction's scores, and where in the data each stands: what an experiment's means are means of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablation_core.data.dataset import IGNORED
from ablation_core.engine.scores import Scores


@dataclass(frozen=True, eq=False)
class PredictionScores:
    """The scores of each prediction of a run, in the order in which they are scored.

    Attributes:
        firsts: the number of each batch's first sequence.
        targets: of each batch, as the data has them.
        sequence: the number of each prediction's window, image or prompt, as intervals resample them; (predictions,).
        baseline: the clean model's scores.
        ablated: method → its scores.
    """

    modality: str
    firsts: tuple[int, ...]
    targets: tuple[np.ndarray, ...]
    sequence: np.ndarray
    baseline: Scores
    ablated: Mapping[str, Scores]

    def places(self) -> dict[str, np.ndarray]:
        """`sequence` and, where a prediction is one token or image, `position` and `target`; each int (predictions,).

        Where prompts belong together, `group` says which intervals resample as one.
        """
        sequence, position, target = locate_predictions(self.firsts, self.targets, self.modality)
        found = {"sequence": sequence, "position": position, "target": target}
        if len(sequence) != len(self.sequence):  # a task's prompt is one prediction, however many tokens answer it
            found = {"sequence": np.arange(len(self.sequence))}
        return found if np.array_equal(found["sequence"], self.sequence) else found | {"group": self.sequence}


def locate_predictions(
    firsts: Sequence[int], targets: Sequence[np.ndarray], modality: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sequence, position and target of every prediction of the first batches, each int (predictions,).

    A sequence is its window's or image's number, a position where in the window the predicted token stands (0 for
    images), a target the token's id or the image's class.

    Args:
        firsts: the number of each batch's first sequence.
        targets: of each batch.
    """
    shift = int(modality == "causal")  # a causal model predicts the token that follows
    sequences, positions, wanted = [], [], []
    for first, batch in zip(firsts, targets, strict=True):
        if batch.ndim == 1:
            rows, columns = np.arange(len(batch)), np.zeros(len(batch), dtype=int)
            wanted.append(batch)
        else:
            rows, columns = np.nonzero(batch != IGNORED)
            wanted.append(batch[rows, columns])
            columns = columns + shift
        sequences.append(first + rows)
        positions.append(columns)
    return np.concatenate(sequences), np.concatenate(positions), np.concatenate(wanted)
