"""Every interval, standard error and p-value: the one place that has them, and the one policy that they follow.

**Mean changes** have a BCa bootstrap interval (Efron 1987) over whole sequences, because predictions of one text window
are not independent while windows nearly are. For few sequences its levels are widened as a t interval is against a
normal one (Hesterberg 2015, section 3.2). It is written here because scipy's takes memory with the square of the number
of sequences.

**Its p-value is the interval's own**: the level at which the interval of the same draws just touches 0, found by
inverting the interval's map. So p ≤ 0.05 exactly where the 95% interval excludes 0, always. Where 0 lies outside the
95% interval, few or none of the draws say how far outside; from the bound on, the map continues by the linearised standard
error, as a t-test does:

    z = z of the bound + (bound − 0) / standard error          p = 2 · P(t with n − 1 degrees of freedom > z √((n − 1) / n))

which resolves the small p-values that false-discovery control over 1,000 heads needs, and never gives more than the
5% of the bound.

**Below `FEWEST_SEQUENCES`** there is neither an interval nor a p-value.

**What is reached** (10,000 samples each, of sequences that are drawn alike):

| sequences | holds the mean: normal | exponential | p ≤ 0.005 by chance: normal (t-test) | exponential (t-test) |
|---|---|---|---|---|
| 5 | 92% | 87% | 0.6% (0.5%) | 3.6% (3.4%) |
| 8 | 94% | 92% | 0.5% (0.5%) | 2.8% (3.3%) |
| 16 | 95% | 93% | 0.5% (0.5%) | 1.7% (2.6%) |
| 40 | 95% | 94% | 0.6% (0.6%) | 1.1% (1.7%) |
| 100 | 95% | 94% | 0.4% (0.4%) | 0.7% (1.2%) |

Of exponential samples of 16 a p ≤ 0.05 came by chance in 6.8% (t-test: 8.4%). With 5 sequences read "95%" as about
90%, less where a few sequences hold most of the effect, and ask for more.

**Two samples** (`difference_tests`: two data sets, so that nothing is paired): each is resampled by itself, and the
difference of the means has the same interval, with the acceleration of several samples (Davison and Hinkley 1997, Bootstrap
Methods and their Application, section 5.3.2) and Welch's degrees of freedom in the place of n − 1.

**Other intervals**: of Spearman's correlation Fisher's, of paired differences over seeds (not sequences; any two or more)
the t interval with the paired t-test, of repeated looks that of `sequential.py`. The p-values of these agree with their
intervals too. Intervals of what is only described (a neuron's peak) are quantiles at `TAILS`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when first used: `scipy.special` takes longer than the whole first page of the app

SIGNIFICANCE = 0.05
CONFIDENCE = 1 - SIGNIFICANCE
TAILS = (SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2)
RESAMPLES = 2000
FEWEST_SEQUENCES = 5
_DRAWS_AT_ONCE = 250


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% interval; `low` and `high` are None where there are too few sequences for one."""

    mean: float
    low: float | None
    high: float | None

    @property
    def shows_effect(self) -> bool:
        """Whether zero lies outside; a mean that is not a number shows nothing."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class MeanTest:
    """A mean with its interval and the p-value of its being 0; None where there is no test."""

    interval: Interval
    p: float | None

    @classmethod
    def of(cls, interval: Interval, p: float) -> "MeanTest":
        """The two together; a p-value that rounding has put on the other side of 5% than the interval goes back."""
        if interval.shows_effect:
            return cls(interval, min(p, SIGNIFICANCE))
        return cls(interval, max(p, float(np.nextafter(SIGNIFICANCE, 1))))


def mean_intervals(values: np.ndarray, sequences: np.ndarray, seed: int) -> list[Interval]:
    """The mean of each row with a 95% interval, resampling whole sequences, with the same draws for every row.

    >>> mean_intervals(np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([0, 0, 1, 1]), seed=0)
    [Interval(mean=2.5, low=None, high=None)]

    Args:
        values: (rows, predictions).
        sequences: the number of each prediction's sequence; (predictions,).
    """
    return [test.interval for test in mean_tests(values, sequences, seed)]


def mean_tests(values: np.ndarray, sequences: np.ndarray, seed: int) -> list[MeanTest]:
    """As `mean_intervals`, each with its p-value."""
    return sum_tests(*sequence_sums(values, sequences), seed)


def sum_tests(sums: np.ndarray, counts: np.ndarray, seed: int) -> list[MeanTest]:
    """As `mean_tests`, from each sequence's sums (rows, sequences) and number of predictions (sequences,), none 0."""
    means = sums.sum(1) / counts.sum()
    if len(counts) < FEWEST_SEQUENCES:
        return [MeanTest(Interval(float(mean), None, None), None) for mean in means]
    draws = _resampled_means(sums, counts, seed)
    return [_bca_test(mean, row, one, counts) for mean, row, one in zip(means, draws, sums, strict=True)]


def difference_tests(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], seed: int
) -> list[MeanTest]:
    """The mean of each row in the second sample minus that in the first, with the interval and p-value of two samples.

    >>> one, other = np.array([[1.0, 2.0, 3.0, 4.0, 5.0]]), np.array([[11.0, 12.0, 13.0, 14.0, 15.0]])
    >>> (test,) = difference_tests((one, np.ones(5)), (other, np.ones(5)), seed=0)
    >>> test.interval.mean, test.interval.low > 7, test.p < 0.001
    (10.0, True, True)

    Args:
        first, second: each sequence's sums (rows, sequences) and number of predictions (sequences,), none 0.
    """
    (one, ones), (other, others) = first, second
    means = other.sum(1) / others.sum() - one.sum(1) / ones.sum()
    if min(len(ones), len(others)) < FEWEST_SEQUENCES:
        return [MeanTest(Interval(float(mean), None, None), None) for mean in means]
    draws = _resampled_means(other, others, [seed, 1]) - _resampled_means(one, ones, seed)
    return [
        _accelerated_test(mean, row, [_Sample(-a, ones), _Sample(b, others)])
        for mean, row, a, b in zip(means, draws, one, other, strict=True)
    ]


def sequence_sums(values: np.ndarray, sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each sequence's sums (rows, sequences) and number of predictions (sequences,), sequences without any left out."""
    counts = np.bincount(sequences)
    sums = np.stack([np.bincount(sequences, weights=row) for row in values])
    return sums[:, counts > 0], counts[counts > 0]


def ratio_error(squares: np.ndarray, sequences: int, predictions: float) -> np.ndarray:
    """The standard error of a mean over predictions, which is a ratio of sums over sequences, linearised (Cochran 1977,
    Sampling Techniques, section 6.3): a sequence scored in part counts as its part.

    Args:
        squares: Σ (sum − mean · count)² over the sequences.
    """
    return np.sqrt(squares * sequences / (sequences - 1)) / predictions


def t_p_value(ratio: np.ndarray, freedom: np.ndarray | float) -> np.ndarray:
    """Two-sided p-values of means over their standard errors."""
    return 2 * scipy.special.stdtr(freedom, -np.abs(ratio))


def t_half_width(error: np.ndarray, freedom: np.ndarray | float, share: np.ndarray | float = 1.0) -> np.ndarray:
    """Half the width of the t interval that misses with this share of 5%."""
    return scipy.special.stdtrit(freedom, 1 - (1 - CONFIDENCE) * share / 2) * error


def paired_t_test(one: np.ndarray, other: np.ndarray) -> MeanTest:
    """The mean of one − other with its t interval and the p-value of the paired t-test.

    No interval for a single pair; no p-value where all differences are alike.
    """
    differences = one - other
    mean, size = float(differences.mean()), len(differences)
    if size < 2:
        return MeanTest(Interval(mean, None, None), None)
    wide = float(scipy.special.stdtrit(size - 1, TAILS[1]) * differences.std(ddof=1) / np.sqrt(size))
    interval = Interval(mean, mean - wide, mean + wide)
    if not np.ptp(differences):
        return MeanTest(interval, None)
    from scipy.stats import ttest_rel  # over a second to import

    return MeanTest.of(interval, float(ttest_rel(one, other).pvalue))


def equal_ranks_p_value(rows: np.ndarray) -> float | None:
    """Friedman's test that all rows rank alike over the columns; None for fewer than three of either, or where all tie."""
    if min(rows.shape) < 3:
        return None
    from scipy.stats import friedmanchisquare

    p = float(friedmanchisquare(*rows).pvalue)
    return p if np.isfinite(p) else None


def rank_correlation_interval(rho: float, pairs: int) -> Interval:
    """Fisher's interval of Spearman's ρ, |ρ| < 1, with the variance (1 + ρ²/2) / (n − 3) that Bonett and Wright (2000)
    give for ranks; the pairs are taken as independent.
    """
    wide = scipy.special.ndtri(TAILS[1]) * math.sqrt((1 + rho**2 / 2) / (pairs - 3))
    return Interval(rho, math.tanh(math.atanh(rho) - wide), math.tanh(math.atanh(rho) + wide))


def _resampled_means(sums: np.ndarray, counts: np.ndarray, seed: int | list[int]) -> np.ndarray:
    """Means over `RESAMPLES` draws of as many sequences as there are; (rows, draws)."""
    generator, size = np.random.default_rng(seed), len(counts)
    columns, means = np.vstack([sums, counts]).T, []
    for first in range(0, RESAMPLES, _DRAWS_AT_ONCE):
        drawn = generator.integers(0, size, (min(_DRAWS_AT_ONCE, RESAMPLES - first), size))
        drawn += np.arange(len(drawn))[:, None] * size
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        totals = times.astype(float) @ columns
        means.append(totals[:, :-1] / totals[:, -1:])
    return np.concatenate(means).T


@dataclass(frozen=True)
class _Sample:
    """Each sequence's sum of one row and number of predictions; both (sequences,)."""

    sums: np.ndarray
    counts: np.ndarray

    @property
    def rounding(self) -> float:
        return float(1e-12 * abs(self.sums).sum() / self.counts.sum())

    def influence(self) -> np.ndarray:
        """How much each sequence moves the mean: the jackknife's."""
        left_out = (self.sums.sum() - self.sums) / (self.counts.sum() - self.counts)
        return left_out.mean() - left_out

    def error(self) -> float:
        """The mean's standard error."""
        residuals = self.sums - self.sums.sum() / self.counts.sum() * self.counts
        unit = abs(residuals).max()  # so that no square underflows
        if not unit:
            return 0.0
        return float(unit * ratio_error(((residuals / unit) ** 2).sum(), len(self.counts), self.counts.sum()))


def _bca_test(mean: float, draws: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> MeanTest:
    return _accelerated_test(mean, draws, [_Sample(sums, counts)])


def _accelerated_test(mean: float, draws: np.ndarray, samples: Sequence[_Sample]) -> MeanTest:
    """The bias-corrected and accelerated interval of a ratio of sums, or of the sum of two samples' ratios, with its
    p-value."""
    mean, rounding = float(mean), sum(sample.rounding for sample in samples)
    if not np.isfinite(mean):
        return MeanTest(Interval(mean, mean, mean), None)
    if np.ptp(draws) <= rounding:
        return MeanTest(Interval(mean, mean, mean), 1.0 if mean == 0 else 0.0)
    freedom, stretch, error = _spread(samples)
    skew = np.concatenate([sample.influence() * _shrinks(sample, samples) for sample in samples])
    skew /= abs(skew).max()  # so that no power underflows; not 0, or all draws would be alike
    acceleration = (skew**3).sum() / (6 * (skew**2).sum() ** 1.5)
    # Draws of the same value as the mean may have been added up in another order.
    below = np.where(abs(draws - mean) <= rounding, 0.5, draws < mean).mean()
    bias = scipy.special.ndtri(np.clip(below, 1 / len(draws), 1 - 1 / len(draws)))
    wide = scipy.special.stdtrit(freedom, TAILS[1]) * stretch
    z = bias + np.array([-wide, wide])
    # The divisor stays above 0.1: at most (size - 2) / (6 √(size (size - 1))) times |z|, bounded by the clipped bias.
    levels = scipy.special.ndtr(bias + z / (1 - acceleration * z))
    low, high = np.quantile(draws, levels)
    interval = Interval(mean, float(low), float(high))
    if interval.shows_effect:
        z_of_zero = wide + (low if low > 0 else -high) / error
    else:
        # The levels, within the interval, between which the draws' quantiles are 0.
        first, last = np.clip(_levels_of_zero(draws), *levels)
        deviates = scipy.special.ndtri(np.array([first, last])) - bias
        z_first, z_last = deviates / (1 + acceleration * deviates) - bias
        z_of_zero = max(z_first, -z_last, 0.0)
    return MeanTest.of(interval, float(t_p_value(z_of_zero / stretch, freedom)))


def _spread(samples: Sequence[_Sample]) -> tuple[float, float, float]:
    """Degrees of freedom (Welch's for two samples), how much narrower draws lie than the mean's error says, and the error
    as the draws have it."""
    sizes = [len(sample.counts) for sample in samples]
    errors = [sample.error() for sample in samples]
    if len(samples) == 1:
        stretch = np.sqrt(sizes[0] / (sizes[0] - 1))
        return sizes[0] - 1, stretch, errors[0] / stretch
    shares = np.array(errors) / max(errors)  # so that no square underflows; not all 0, or all draws would be alike
    drawn = np.sqrt(sum(share**2 * (size - 1) / size for share, size in zip(shares, sizes, strict=True)))
    whole = np.sqrt((shares**2).sum())
    freedom = whole**4 / sum(share**4 / (size - 1) for share, size in zip(shares, sizes, strict=True))
    return float(freedom), float(whole / drawn), float(drawn * max(errors))


def _shrinks(sample: _Sample, samples: Sequence[_Sample]) -> float:
    """Of several samples each one's influence counts by its size; a single one's scale cancels."""
    size = len(sample.counts)
    return 1.0 if len(samples) == 1 else (size - 1) / size


def _levels_of_zero(draws: np.ndarray) -> tuple[float, float]:
    """The least and the greatest level at which `np.quantile(draws, level)` is 0, 0 within the draws' range."""
    ends = []
    for sign in (-1, 1):  # the greatest level of the mirrored draws is the least one
        signed = sign * draws
        up_to, beyond = signed[signed <= 0], signed[signed > 0]
        part = 0.0 if not len(beyond) or not len(up_to) else -up_to.max() / (beyond.min() - up_to.max())
        ends.append((len(up_to) - 1 + part) / (len(draws) - 1))
    return 1 - ends[0], ends[1]
