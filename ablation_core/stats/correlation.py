"""How well two rankings agree: Spearman's rank correlation, with an interval."""

import math
from collections.abc import Sequence

import numpy as np

from ablation_core.stats.intervals import Interval, rank_correlation_interval

FEWEST, FEWEST_FOR_INTERVAL = 4, 10


def rank_agreement(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> Interval:
    """Spearman's rank correlation of two rows of numbers, places where either is NaN left out.

    The 95% interval is `intervals.rank_correlation_interval`; there is none below `FEWEST_FOR_INTERVAL` pairs, nor for
    a ρ of ±1. NaN for fewer than `FEWEST` pairs, or where one row is constant.
    """
    from scipy.stats import spearmanr  # a second to load: only where ranks are compared

    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    both = np.isfinite(first) & np.isfinite(second)
    first, second = first[both], second[both]
    if len(first) < FEWEST or np.ptp(first) == 0 or np.ptp(second) == 0:
        return Interval(math.nan, None, None)

    rho = float(spearmanr(first, second).statistic)
    if abs(rho) > 1 - 1e-12 or len(first) < FEWEST_FOR_INTERVAL:
        return Interval(rho, None, None)
    return rank_correlation_interval(rho, len(first))
