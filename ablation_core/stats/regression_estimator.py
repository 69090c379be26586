"""Means over all sequences from exact changes of some and cheap estimates of all. Knows numbers only.

A first-order estimate e (gradient times displacement) is known for every sequence, the exact change d only for n of N.
Where they go together, the regression estimator of survey sampling (Cochran 1977, Sampling Techniques, chapter 7) says
more than the mean of the n:

    mean = mean of d over n + slope · (mean of e over N − mean of e over n)

With r the correlation of d and e and σ the spread of d, its variance about the mean of all N sequences is
σ²(1−r²)(1/n − 1/N); their own about the text or the images that they are a sample of comes on top, σ²/N. e may be
biased, even wrong: the slope is fitted to the n pairs, and a useless e only costs a degree of freedom.

**Which n.** Where few sequences make up most of what varies (images that the model is unsure of), they should be looked
at first. A sequence is drawn with a chance π in proportion to a size that is known beforehand, one whose chance would
exceed 1 for sure: the n least of u/size, u uniform, are such a sample, and go on to a larger one as n grows (sequential
Poisson sampling, Ohlsson 1998). Means weigh each by 1/π (Hájek 1971); slope and variance are those of Särndal,
Swensson and Wretman (1992, Model Assisted Survey Sampling, chapter 6). With equal sizes all are the textbook's above,
but that each residual is taken as if the slope had been fitted without it (MacKinnon and White 1985): sequences vary
unequally, and the one that pulls the slope most would look too well explained.

Sequences with unequal numbers of predictions make every mean a ratio of sums; its parts are linearised (Cochran 1977,
section 6.3). Where e says nothing (it is constant), where n is below `FEWEST`, and where n is N, this is the t-test of
the ratio of sums, as a whole sweep has it.
"""

from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when first used: `scipy.special` takes longer than the whole first page of the app

from ablation_core.stats.intervals import t_half_width, t_p_value

FEWEST = 8  # sequences that a slope is fitted to, and before the first look: fewer say little
NOISE = 1e-20  # of the sum of squares: an e that varies less is constant but for rounding


def drawing_order(sizes: np.ndarray, seed: int) -> np.ndarray:
    """All sequences in an order whose first n are a sample with chances in proportion to `sizes`, (N,), for every n."""
    return np.argsort(np.random.default_rng(seed).random(len(sizes)) / sizes, kind="stable")


def chances(sizes: np.ndarray, drawn: int) -> np.ndarray:
    """The chance of each sequence to be among the first `drawn`, (N,), float64; they sum to `drawn`."""
    if drawn >= len(sizes):
        return np.ones(len(sizes))
    sure = np.zeros(len(sizes), dtype=bool)
    while True:
        rest = np.where(sure, 0.0, sizes)
        chance = np.where(sure, 1.0, (drawn - sure.sum()) * rest / max(rest.sum(), 1e-300))
        if not (more := (chance >= 1) & ~sure).any():
            return chance
        sure |= more


@dataclass(frozen=True, eq=False)
class RegressionEstimator:
    """Means of changes per prediction, each array (changes,), float64; NaN where a value is not a number.

    Attributes:
        mean: of the text or the images, and of all N sequences.
        error: its standard error about the former.
        freedom: the error's degrees of freedom, after Satterthwaite (1946).
        gap: its standard error about the latter, which a whole sweep would measure; 0 for n = N.
        gap_freedom: the degrees of freedom of that.
        whole_error: the standard error that a whole sweep would find.
        sequences, of: n and N.
    """

    mean: np.ndarray
    error: np.ndarray
    freedom: np.ndarray
    gap: np.ndarray
    gap_freedom: np.ndarray
    whole_error: np.ndarray
    sequences: int
    of: int

    @classmethod
    def make(
        cls,
        sums: np.ndarray,
        counts: np.ndarray,
        first_order: np.ndarray | None = None,
        sizes: np.ndarray | None = None,
    ) -> "RegressionEstimator":
        """Estimate the means.

        Args:
            sums: d, each change's sum over each drawn sequence, (changes, n).
            counts: the predictions in each sequence, (N,), the drawn ones first.
            first_order: e, estimates of the sums, (changes, N); without them the counts behind the n-th are not needed.
            sizes: that the sequences were drawn by, (N,); by default all alike.
        """
        size, of = sums.shape[1], len(counts)
        chance = chances(np.ones(of) if sizes is None else sizes, size)[:size]
        weights, drawn = 1 / chance, counts[:size]
        mean = (sums * weights).sum(1) / (drawn * weights).sum()
        if size < 2:
            nothing, one = np.full(len(mean), np.nan), np.ones(len(mean))
            return cls(mean, nothing, one, nothing, one, nothing, size, of)
        each = (drawn * weights).sum() / weights.sum()  # predictions in a sequence
        off = (sums - mean[:, None] * drawn) / each
        unsure = 1 - chance
        noise = unsure * weights**2  # what a sequence's residual² counts in the gap: nothing where it was sure to come
        slope, shift, leverage, explained = np.zeros((4, len(mean)))
        left, pull = off, np.zeros_like(off)
        if first_order is not None and FEWEST <= size < of:
            here = (first_order[:, :size] * weights).sum(1) / (drawn * weights).sum()
            middle = first_order.sum(1) / counts.sum()
            beside = (first_order[:, :size] - here[:, None] * drawn) / each
            everywhere = (first_order - middle[:, None] * counts) / counts.mean()
            square = (noise * beside**2).sum(1)
            with np.errstate(divide="ignore", invalid="ignore"):
                useful = square > NOISE * (noise * first_order[:, :size] ** 2).sum(1) / each**2  # False for no number
                slope = np.where(useful, (noise * beside * off).sum(1) / square, 0.0)
                shift = np.where(useful, middle - here, 0.0)
                leverage = np.where(useful, shift**2 / square, 0.0)
            carried = np.where(useful[:, None], slope[:, None] * beside, 0.0)
            left = off - carried
            pull = np.where(useful[:, None], noise * beside**2 / np.maximum(square, 1e-300)[:, None], 0.0)
            pull = np.minimum(pull, 0.9)
            # The spread of d: that of the line, known everywhere, and what the drawn have beside it.
            explained = np.where(useful, slope**2 * (everywhere**2).sum(1) / (of - 1), 0.0)
            explained = explained + (weights * (off**2 - carried**2 - left**2)).sum(1) / weights.sum()
            explained = np.maximum(explained, 0.0)
        fitted = 1 + (slope != 0)
        units = unsure.sum() ** 2 / (unsure**2).sum() if size < of else size  # that the gap rests on
        free = np.maximum(units - fitted, 1.0)
        pulled = left / (1 - pull)  # what each residual would be if the line did not know it
        gap = (noise * pulled**2).sum(1) / np.maximum(units - 1, 1) * (units / weights.sum() ** 2 + leverage)
        spread = (weights * left**2).sum(1) / weights.sum() * size / (size - fitted)
        parts = gap + spread / of, explained / of
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = (parts[0] + parts[1]) ** 2 / (parts[0] ** 2 / free + parts[1] ** 2 / (of - 1))
        return cls(
            mean + slope * shift,
            np.sqrt(parts[0] + parts[1]),
            np.where(np.isfinite(freedom), freedom, free),
            np.sqrt(gap),
            free,
            np.sqrt((spread + explained) / of),
            size,
            of,
        )

    @property
    def ratio(self) -> np.ndarray:
        """Mean over standard error; 0 where both are 0, infinite where only the error is."""
        return _ratio(self.mean, self.error)

    @property
    def whole_ratio(self) -> np.ndarray:
        """The ratio that a whole sweep is expected to find."""
        return _ratio(self.mean, self.whole_error)

    def p(self) -> np.ndarray:
        """Two-sided t-tests of the means against 0; NaN where there is no number."""
        return t_p_value(self.ratio, self.freedom)

    def whole_p(self) -> np.ndarray:
        """The p-values that a whole sweep is expected to find."""
        return t_p_value(self.whole_ratio, max(self.of - 1, 1))

    def half_width(self, share: np.ndarray | float) -> np.ndarray:
        """Half the width of the 95% interval of a look with this share of the error."""
        return t_half_width(self.error, self.freedom, share)

    def chance(self, level: float) -> np.ndarray:
        """How probable it is that a whole sweep finds p ≤ level, (changes,).

        The mean of all N sequences lies about this one by `gap`: predictive power (Spiegelhalter, Freedman and
        Blackburn 1986), with what is known of the sequences to come.
        """
        wanted = -scipy.special.stdtrit(max(self.of - 1, 1), min(level, 1) / 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.maximum(np.where(self.whole_error > 0, self.gap / self.whole_error, 0.0), 1e-12)
        centre = np.abs(self.whole_ratio)
        return scipy.special.stdtr(self.gap_freedom, (centre - wanted) / spread) + scipy.special.stdtr(
            self.gap_freedom, (-wanted - centre) / spread
        )


def _ratio(mean: np.ndarray, error: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((error == 0) & (mean == 0), 0.0, mean / error)
