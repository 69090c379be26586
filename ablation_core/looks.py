"""Looking at a map of changes several times on the way, without being misled by it. Knows numbers only.

**The looks** are fixed before the data are seen: after 1/8, 1/4, 3/8, 1/2, 3/4 and all of the sequences.

**Told from no effect.** A change that is looked at K times has K chances to look like an effect. Each look therefore
spends its own share of the error (alpha spending, Lan and DeMets 1983; the shares here by Bonferroni's inequality,
which asks nothing of how the looks depend on one another): with p_k the p-value of look k and w_k its share, Σ w_k = 1,

    P = min over the looks so far of p_k / w_k

is a p-value however the looking ends, for P(P ≤ a) ≤ Σ P(p_k ≤ a w_k) ≤ a. Most of the error is kept for the last look,
as O'Brien and Fleming (1979) do. P only falls from look to look, so that Benjamini and Hochberg's (1995) choice over
the map only grows: what is told early stays told, and the false-discovery rate holds at every look.

**Intervals** are repeated confidence intervals (Jennison and Turnbull 1989): the one of look k has the level
1 - 0.05 w_k, so that all looks' intervals together hold the mean with 95 %.

**Given up.** A change that would hardly be told even with all the data takes no more of them: its predictive power
(Spiegelhalter, Freedman and Blackburn 1986; stochastic curtailment, Lan, Simon and Halperin 1982) is below `HARDLY`.
Giving up only lowers P(told), so that it costs no validity.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import false_discovery_control, norm, t

SHARES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0)
ERROR_SHARES = (0.08, 0.08, 0.08, 0.10, 0.16, 0.50)
FALSE_DISCOVERIES = 0.05
HARDLY = 0.1
FEWEST = 5  # sequences before the first look: a t-test of fewer says little

Verdict = Literal["open", "told", "small", "unlikely", "not told", "no number"]


def look_batches(batches: int, shares: tuple[float, ...] = SHARES) -> list[int]:
    """After how many batches there is a look: fixed, growing, the last after all of them."""
    return sorted({max(1, int(np.ceil(share * batches - 1e-9))) for share in shares})


def error_shares(looks: int) -> np.ndarray:
    """The share of the error that each look spends; float64 (looks,), sum 1. Fewer looks drop the earliest."""
    kept = np.array(ERROR_SHARES[-looks:])
    return kept / kept.sum()


@dataclass(frozen=True, eq=False)
class Estimates:
    """Means of changes over the sequences so far, each array (changes,), float64.

    Attributes:
        mean: per prediction; NaN where a value is not a number.
        error: its standard error: that of a ratio of sums, linearised (Cochran 1977, section 6.3).
        sequences: how many there are, one number.
    """

    mean: np.ndarray
    error: np.ndarray
    sequences: int

    @classmethod
    def of(cls, sums: np.ndarray, counts: np.ndarray) -> "Estimates":
        """From each change's sum in each sequence, (changes, sequences), and the predictions in each, (sequences,)."""
        size = len(counts)
        mean = sums.sum(1) / counts.sum()
        if size < 2:
            return cls(mean, np.full(len(mean), np.nan), size)
        distance = sums - mean[:, None] * counts
        return cls(mean, np.sqrt((distance**2).sum(1) * size / (size - 1)) / counts.sum(), size)

    @property
    def ratio(self) -> np.ndarray:
        """Mean over standard error; 0 where both are 0, infinite where only the error is."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where((self.error == 0) & (self.mean == 0), 0.0, self.mean / self.error)

    def p(self) -> np.ndarray:
        """Two-sided t-tests of the means against 0; NaN where there is no number."""
        return 2 * t.sf(np.abs(self.ratio), max(self.sequences - 1, 1))

    def half_width(self, share: float) -> np.ndarray:
        """Half the width of the 95 % interval of a look with this share of the error."""
        wide = t.ppf(1 - (1 - 0.95) * share / 2, max(self.sequences - 1, 1))
        return wide * self.error


def predictive_power(estimates: Estimates, sequences: int, level: np.ndarray | float) -> np.ndarray:
    """How probable p ≤ level is once all `sequences` are in, from what is known of each change, (changes,).

    With a flat prior the final ratio is normal about ratio · √(n / n_now) with variance (n - n_now) / n_now.
    """
    now = estimates.sequences
    centre = np.abs(estimates.ratio) * np.sqrt(sequences / now)
    spread = np.sqrt(max(sequences - now, 1e-12) / now)
    wanted = t.isf(np.minimum(level, 1) / 2, max(sequences - 1, 1))
    return norm.sf((wanted - centre) / spread) + norm.cdf((-wanted - centre) / spread)


def told(p: np.ndarray) -> np.ndarray:
    """Which changes are told from no effect at 5 % false discoveries, from valid p-values (changes,); NaN counts as 1."""
    return adjusted(p) <= FALSE_DISCOVERIES


def adjusted(p: np.ndarray) -> np.ndarray:
    """p-values after Benjamini and Hochberg (1995), (changes,); NaN counts as 1."""
    return false_discovery_control(np.where(np.isnan(p), 1.0, np.minimum(p, 1.0))) if len(p) else np.zeros(0)


class Looking:
    """The changes of one map under way: fed with what each look sees, it says which need more data.

    Args:
        changes: how many there are.
        shares: of the error, one a look.
        sequences: how many the last look sees.
        precision: a change surely smaller than this needs no more data; None for no such bound.
    """

    def __init__(self, changes: int, shares: np.ndarray, sequences: int, precision: float | None = None) -> None:
        self.shares, self.sequences, self.precision = shares, sequences, precision
        self.looks = 0
        self.p = np.ones(changes)
        self.mean, self.half_width = np.full(changes, np.nan), np.full(changes, np.nan)
        self.seen, self.looked = np.zeros(changes, dtype=int), np.zeros(changes, dtype=int)  # sequences, and looks
        self.verdicts: list[Verdict] = ["open"] * changes

    @property
    def open(self) -> np.ndarray:
        """The numbers of the changes that take more data."""
        return np.array([i for i, verdict in enumerate(self.verdicts) if verdict == "open"], dtype=int)

    def look(self, sums: np.ndarray, counts: np.ndarray) -> None:
        """The next look: each open change's sums, (open, sequences so far), and the predictions in each sequence."""
        at, share = self.open, self.shares[self.looks]
        estimates = Estimates.of(sums, counts)
        p = estimates.p()
        self.p[at] = np.fmin(self.p[at], p / share)
        self.mean[at], self.half_width[at] = estimates.mean, estimates.half_width(share)
        self.seen[at] = estimates.sequences
        self.looks += 1
        self.looked[at] = self.looks
        found = told(self.p)
        hardly = self._hardly(at, estimates)
        for i, number in enumerate(at):
            self.verdicts[number] = self._verdict(number, bool(found[number]), bool(hardly[i]))
        for number in np.flatnonzero(found):  # one given up earlier may be told once others are: no harm in saying so
            self.verdicts[number] = "told"

    def _verdict(self, number: int, found: bool, hardly: bool) -> Verdict:
        if not np.isfinite(self.mean[number]):
            return "no number"
        if found:
            return "told"
        if self.precision is not None and abs(self.mean[number]) + self.half_width[number] <= self.precision:
            return "small"
        if self.looks == len(self.shares):
            return "not told"
        return "unlikely" if hardly else "open"

    def _hardly(self, at: np.ndarray, estimates: Estimates) -> np.ndarray:
        """Which of the open changes have hardly a chance of being told at the end."""
        if estimates.sequences >= self.sequences or len(self.shares) == self.looks:
            return np.zeros(len(at), dtype=bool)
        last = self.shares[-1]
        # What the end would ask for: Benjamini and Hochberg's level if every change went on as it has begun.
        ahead = self.p.copy()
        trend = np.abs(estimates.ratio) * np.sqrt(self.sequences / estimates.sequences)
        ahead[at] = np.fmin(ahead[at], 2 * t.sf(trend, max(self.sequences - 1, 1)) / last)
        level = FALSE_DISCOVERIES * max(int(told(ahead).sum()), 1) / len(ahead)
        return predictive_power(estimates, self.sequences, level * last) < HARDLY
