"""Means over predictions with their standard errors, of many quantities at once, in one go over the data."""

import numpy as np

from ablation_core.stats.intervals import ratio_error


class ClusteredMean:
    """Means over predictions, and their standard errors over sequences, of many quantities added up batch by batch.

    The mean is a ratio of sums, so that a sequence scored in part counts as its part; its error is
    `intervals.ratio_error`.
    """

    def __init__(self) -> None:
        self._sum = self._squares = self._products = np.zeros(())
        self.predictions, self._predictions_squared, self.sequences = 0.0, 0.0, 0

    def add(self, sums: np.ndarray, counts: np.ndarray) -> None:
        """Sums over a sequence's predictions, (sequences, …), and how many these are, (sequences,)."""
        sums, counts = sums.astype(np.float64), counts.astype(np.float64)
        self._sum = self._sum + sums.sum(0)
        self._squares = self._squares + (sums**2).sum(0)
        self._products = self._products + np.tensordot(counts, sums, 1)
        self.predictions += counts.sum()
        self._predictions_squared += (counts**2).sum()
        self.sequences += len(counts)

    @property
    def mean(self) -> np.ndarray:
        return self._sum / self.predictions

    @property
    def error(self) -> np.ndarray:
        if self.sequences < 2:
            return np.full_like(self.mean, np.nan)
        mean, size = self.mean, self.sequences
        squares = self._squares - 2 * mean * self._products + mean**2 * self._predictions_squared
        return ratio_error(np.maximum(squares, 0), size, self.predictions)
