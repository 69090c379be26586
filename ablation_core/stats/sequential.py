"""A map of changes tested several times on the way, without being misled by it. Knows numbers only.

**The interim looks** are fixed before the data are seen: after 1/16, 1/8, 1/4, 1/2, 3/4 and all of the sequences.

**Significant.** A change that is looked at K times has K chances to look like an effect. Each look therefore
spends its own share of the error (alpha spending, Lan and DeMets 1983; the shares here by Bonferroni's inequality,
which asks nothing of how the looks depend on one another): with p_k the p-value of look k and w_k its share, Σ w_k = 1,

    P = min over the looks so far of p_k / w_k

is a p-value however the looking ends, for P(P ≤ a) ≤ Σ P(p_k ≤ a w_k) ≤ a. Each look has twice the share of the one
before, so that half of the error is left for the last, as O'Brien and Fleming (1979) do; only the look at three quarters,
which is there to let go those that are settled or stopped for futility, has no more than the first. P only falls from look to look,
so that Benjamini and Hochberg's (1995) choice over the map only grows: what is significant early stays so, and the
false-discovery rate holds at every look. The p-values are those of `regression`: what a look has measured is carried
over to all sequences by estimates of each.

**Settled.** Where the estimates carry so well that all sequences could move the mean by little, `SETTLED` of the standard
error that a whole sweep would find, this look is the change's last and spends what is left of the error. When that is
depends on how far the residuals spread, not on where the mean lies, and does not favour a large mean.

**Intervals** are repeated confidence intervals (Jennison and Turnbull 1989): the one of look k has the level
1 - 0.05 w_k, so that all looks' intervals together hold the mean with 95%. What is reported is what they have in common,
which excludes 0 exactly where P ≤ 0.05: some look's interval excludes 0 where its p_k ≤ 0.05 w_k. Should they have nothing
in common, it is the interval of the look that gave P.

**Stopped for futility.** A change that a whole sweep would hardly find significant takes no more data: the chance of it is below `HARDLY`
(stochastic curtailment, Lan, Simon and Halperin 1982). Stopping only lowers the chance of a significant change, so that it costs no validity.
"""

from typing import Literal

import numpy as np

from ablation_core.stats.regression_estimator import FEWEST, RegressionEstimator

LOOKS = ((1 / 16, 1), (1 / 8, 2), (1 / 4, 4), (1 / 2, 8), (3 / 4, 1), (1.0, 16))  # after how much; parts of the error
FALSE_DISCOVERIES = 0.05
HARDLY = 0.05
SETTLED = 0.2

Verdict = Literal["open", "told", "small", "unlikely", "not told", "no number"]


def at_once(sequences: int, most: int) -> int:
    """How many sequences to run at once, `most` of them, so that a batch does not end behind the first look."""
    return max(1, min(most, max(FEWEST, sequences // 16)))


def plan_interim_looks(sequences: int, batch_size: int) -> tuple[list[int], np.ndarray]:
    """After how many batches there is a look, and the share of the error that it spends.

    Returns:
        batches: fixed, growing, none before `FEWEST` sequences, the last after all.
        shares: float64 (looks,), sum 1; looks that fall together spend theirs together.
    """
    parts: dict[int, int] = {}
    for share, part in LOOKS:
        size = min(max(share * sequences, FEWEST), sequences)
        batches = max(1, int(np.ceil(size / batch_size - 1e-9)))
        parts[batches] = parts.get(batches, 0) + part
    return list(parts), np.array(list(parts.values())) / sum(parts.values())


def significant(p: np.ndarray) -> np.ndarray:
    """Which changes are significant at 5% false discoveries, from valid p-values (changes,); NaN counts as 1."""
    return adjusted(p) <= FALSE_DISCOVERIES


def adjusted(p: np.ndarray) -> np.ndarray:
    """p-values after Benjamini and Hochberg (1995), (changes,); NaN counts as 1.

    The k-th smallest of m becomes the least of p_j m / j over j ≥ k. By hand, since `scipy.stats`, which has it, takes a
    second to import, and the first picture of the app waits for this.
    """
    p = np.where(np.isnan(p), 1.0, np.minimum(p, 1.0))
    order = np.argsort(p)
    stepped = p[order] * (len(p) / np.arange(1, len(p) + 1))
    found = np.empty(len(p))
    found[order] = np.minimum.accumulate(stepped[::-1])[::-1]
    return np.minimum(found, 1.0)


class GroupSequentialTest:
    """The changes of one map under way: fed with what each look sees, it says which need more data.

    Args:
        changes: how many there are.
        shares: of the error, one a look.
        precision: a change surely smaller than this needs no more data; None for no such bound.
    """

    def __init__(self, changes: int, shares: np.ndarray, precision: float | None = None) -> None:
        self.shares, self.precision = shares, precision
        self.looks = 0
        self.p = np.ones(changes)
        self.mean, self.half_width = np.full(changes, np.nan), np.full(changes, np.nan)
        self._common = np.tile([[-np.inf], [np.inf]], changes)  # what all looks' intervals share
        self._deciding = self._common.copy()  # the interval of the look that gave P
        self.seen = np.zeros(changes, dtype=int)  # sequences, at the last look
        self.share = np.zeros(changes)  # of the error, that the last look spent
        self.verdicts: list[Verdict] = ["open"] * changes

    @property
    def open(self) -> np.ndarray:
        """The numbers of the changes that take more data."""
        return np.array([i for i, verdict in enumerate(self.verdicts) if verdict == "open"], dtype=int)

    def intervals(self) -> np.ndarray:
        """The reported interval of each change, (2, changes); infinite where none is known."""
        return np.where(self._common[0] <= self._common[1], self._common, self._deciding)

    def look(
        self,
        sums: np.ndarray,
        counts: np.ndarray,
        first_order: np.ndarray | None = None,
        sizes: np.ndarray | None = None,
    ) -> None:
        """The next look at the open changes.

        Args:
            sums: of each open change over each sequence so far, (open, sequences so far).
            counts: the predictions in each sequence, (sequences,), all that the last look will see.
            first_order: estimates of each change's sums over all of these, (changes, sequences).
            sizes: that the order of the sequences was drawn by, (sequences,); by default all alike.
        """
        at = self.open
        estimates = RegressionEstimator.make(sums, counts, None if first_order is None else first_order[at], sizes)
        settled = estimates.gap <= SETTLED * estimates.whole_error
        share = self.share[at] = np.where(settled, self.shares[self.looks :].sum(), self.shares[self.looks])
        p, half = estimates.p() / share, estimates.half_width(share)
        ends = np.stack([estimates.mean - half, estimates.mean + half])
        decides = (p < self.p[at]) | np.isinf(self._deciding[0, at])
        self._deciding[:, at] = np.where(decides & np.isfinite(ends), ends, self._deciding[:, at])
        self._common[0, at] = np.fmax(self._common[0, at], ends[0])
        self._common[1, at] = np.fmin(self._common[1, at], ends[1])
        self.p[at] = np.fmin(self.p[at], p)
        self.mean[at], self.half_width[at] = estimates.mean, half
        self.seen[at] = estimates.sequences
        self.looks += 1
        found = significant(self.p)
        hardly = self._hardly(at, estimates)
        for i, number in enumerate(at):
            self.verdicts[number] = self._verdict(number, bool(found[number]), bool(settled[i]), bool(hardly[i]))
        for number in np.flatnonzero(
            found
        ):  # one stopped earlier may become significant once others are: no harm in saying so
            self.verdicts[number] = "told"

    def _verdict(self, number: int, found: bool, settled: bool, hardly: bool) -> Verdict:
        if not np.isfinite(self.mean[number]):
            return "no number"
        if found:
            return "told"
        if self.precision is not None and abs(self.mean[number]) + self.half_width[number] <= self.precision:
            return "small"
        if settled or self.looks == len(self.shares):
            return "not told"
        return "unlikely" if hardly else "open"

    def _hardly(self, at: np.ndarray, estimates: RegressionEstimator) -> np.ndarray:
        """Which of the open changes a whole sweep would hardly tell."""
        if estimates.sequences >= estimates.of or len(self.shares) == self.looks:
            return np.zeros(len(at), dtype=bool)
        ahead = self.p.copy()
        ahead[at] = np.fmin(ahead[at], estimates.whole_p())
        level = (
            FALSE_DISCOVERIES * max(int(significant(ahead).sum()), 1) / len(ahead)
        )  # what the whole map would ask for
        return estimates.chance(level) < HARDLY
