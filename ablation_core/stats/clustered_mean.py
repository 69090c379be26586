"""Means over predictions with their standard errors, of many quantities at once, in one go over the data."""

import numpy as np


class ClusteredMean:
    """Means over predictions, and their standard errors over sequences, of many quantities added up batch by batch.

    The mean is a ratio of sums, so that a sequence scored in part counts as its part; its error is the linearised one
    (Cochran 1977, Sampling Techniques, section 6.3).
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
        spread = self._squares - 2 * mean * self._products + mean**2 * self._predictions_squared
        return np.sqrt(np.maximum(spread, 0) * size / (size - 1)) / self.predictions
