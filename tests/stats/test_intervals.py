"""Intervals and p-values: together on one side of 0, and as often wrong as they say."""

import numpy as np
import pytest
from scipy.stats import norm, t, ttest_1samp, ttest_ind, ttest_rel

from ablation_core.stats import intervals
from ablation_core.stats.intervals import (
    FEWEST_SEQUENCES,
    RESAMPLES,
    Interval,
    MeanTest,
    difference_tests,
    mean_tests,
    paired_t_test,
    sequence_sums,
    sum_tests,
)

KINDS = ("skewed", "few", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("normal", "ties", "shifted")))


def rows_of(generator: np.random.Generator, kind: str, rows: int, predictions: int) -> np.ndarray:
    size = (rows, predictions)
    if kind == "skewed":
        return generator.exponential(size=size) ** 2 - generator.uniform(0, 4, (rows, 1))
    if kind == "ties":
        return generator.integers(-1, 3, size) * generator.integers(0, 2, size) / 1.0
    if kind == "few":  # a single sequence says nearly all
        return generator.normal(size=size) ** 5
    shift = generator.normal(0, 0.8, (rows, 1)) if kind == "shifted" else 0.0
    return generator.normal(size=size) + shift


@pytest.mark.parametrize("kind", KINDS)
def test_a_p_value_and_its_interval_never_disagree_about_zero(kind: str) -> None:
    generator, seen, excluded, within = np.random.default_rng(len(kind)), 0, 0, 0
    for trial, size in enumerate((5, 5, 6, 7, 8, 10, 12, 16, 25, 40, 60)):
        lengths = generator.integers(1, 9, size) if trial % 2 else np.ones(size, int)
        sequences = np.repeat(np.arange(size), lengths)
        for test in mean_tests(rows_of(generator, kind, 400, len(sequences)), sequences, trial):
            outside = test.interval.low > 0 or test.interval.high < 0
            assert (test.p <= 0.05) == outside == test.interval.shows_effect
            assert 0 <= test.p <= 1
            seen, excluded, within = seen + 1, excluded + outside, within + (0.05 < test.p < 1)
    assert seen == 4400 and excluded > 150 and within > 1000, "both sides occur"


def interval_of(draws: np.ndarray, sums: np.ndarray, level: float) -> tuple[float, float]:
    """Efron's (1987) interval of this level written out for equal counts, with Hesterberg's t in the normal's place."""
    size, mean = len(sums), sums.mean()
    left_out = np.array([np.delete(sums, i).mean() for i in range(size)])
    lean = left_out.mean() - left_out
    acceleration = (lean**3).sum() / (6 * (lean**2).sum() ** 1.5)
    bias = norm.ppf((draws < mean).mean())
    wide = t.ppf((1 + level) / 2, size - 1) * np.sqrt(size / (size - 1))
    shifted = bias + np.array([-wide, wide])
    low, high = np.quantile(draws, norm.cdf(bias + shifted / (1 - acceleration * shifted)))
    return low, high


@pytest.mark.parametrize("seed", range(12))
def test_within_the_interval_p_is_the_level_whose_interval_just_touches_zero(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sums = generator.exponential(size=12) - generator.uniform(0.6, 1.4)
    (test,) = mean_tests(sums[None], np.arange(12), seed)
    draws = intervals._resampled_means(sums[None], np.ones(12), seed)[0]
    assert (test.interval.low, test.interval.high) == pytest.approx(interval_of(draws, sums, 0.95))
    if not 0.05 < test.p < 1:
        return
    low, high = interval_of(draws, sums, 1 - test.p)
    assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-6)
    for level, inside in ((1 - 0.98 * test.p, True), (1 - 1.02 * test.p, False)):
        low, high = interval_of(draws, sums, level)
        assert (low <= 0 <= high) == inside


def test_p_goes_on_smoothly_beyond_the_interval_and_the_draws() -> None:
    """The same sample moved further and further away from 0: p only falls, without a jump, and never to 0."""
    sample = np.random.default_rng(3).exponential(size=16)
    shifts = np.linspace(-sample.mean(), 4, 300)
    tests = mean_tests(sample[None] + shifts[:, None], np.arange(16), 0)
    p = np.array([test.p for test in tests])
    assert (np.diff(p[p < 1]) < 0).all() and p[-1] > 1e-15
    steps = np.diff(np.log(p[p < 0.2]))
    assert steps.min() > -0.4, "no jump, neither at the bound nor where the draws end"
    assert (p < 1e-4).sum() > 20, "small p-values are told from each other"


def test_normal_samples_have_about_the_t_tests_p() -> None:
    values = np.random.default_rng(5).normal(size=(300, 60)) + np.linspace(0, 1.2, 300)[:, None]
    found = np.array([test.p for test in mean_tests(values, np.arange(60), 0)])
    expected = ttest_1samp(values, 0, axis=1).pvalue
    near = np.abs(np.log(found) - np.log(expected)) / (1 + np.abs(np.log(expected)))
    assert np.median(near) < 0.05 and near.max() < 0.5


@pytest.mark.parametrize("size", [16, *(pytest.param(size, marks=pytest.mark.slow) for size in (40, 100))])
def test_false_positives_are_about_as_many_as_stated(size: int) -> None:
    """Of normal samples without effect, at 5% and at 0.5%; the t-test's are exact there."""
    generator, p = np.random.default_rng(size), []
    for seed in range(20):
        p += [test.p for test in mean_tests(generator.normal(size=(200, size)), np.arange(size), seed)]
    for level, most in ((0.05, 0.066), (0.005, 0.0095)):
        assert (np.array(p) <= level).mean() <= most
    assert (np.array(p) <= 0.05).mean() >= 0.038


@pytest.mark.parametrize(
    ("size", "normal", "skewed"),
    [
        (5, 0.895, 0.84),
        pytest.param(8, 0.92, 0.89, marks=pytest.mark.slow),
        pytest.param(16, 0.93, 0.91, marks=pytest.mark.slow),
        pytest.param(40, 0.935, 0.92, marks=pytest.mark.slow),
    ],
)
def test_coverage_is_what_the_module_states(size: int, normal: float, skewed: float) -> None:
    generator = np.random.default_rng(2024)
    for least, draw in ((normal, generator.normal), (skewed, generator.exponential)):
        truth = 0.0 if draw == generator.normal else 1.0
        held = []
        for seed in range(20):
            for test in mean_tests(draw(size=(100, size)), np.arange(size), seed):
                held.append(test.interval.low <= truth <= test.interval.high)
        assert least <= np.mean(held) <= 0.975, (draw, np.mean(held))


def test_too_few_sequences_and_numbers_that_are_none_have_no_test() -> None:
    few = FEWEST_SEQUENCES - 1
    (test,) = mean_tests(np.ones((1, few)), np.arange(few), 0)
    assert test == MeanTest(Interval(1.0, None, None), None)
    infinite, missing = mean_tests(np.array([[np.inf, 1, 2, 3, 4], [np.nan, 1, 2, 3, 4]]), np.arange(5), 0)
    assert infinite.p is None and missing.p is None


def test_what_never_varies_is_certain() -> None:
    zero, one = mean_tests(np.array([[0.0] * 9, [1.0] * 9]), np.arange(9), 0)
    assert (zero.p, one.p) == (1.0, 0.0)


def test_tiny_differences_have_the_same_p() -> None:
    values = np.random.default_rng(1).normal(1.5, 1, (1, 30))
    ordinary, tiny = mean_tests(np.concatenate([values, values * 1e-170]), np.arange(30), 0)
    assert tiny.p == pytest.approx(ordinary.p, rel=1e-6) and 0 < ordinary.p < 1e-4


def test_paired_differences_are_the_t_test() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        one, other = generator.normal(size=(2, 3)) + generator.normal(0, 2, (2, 1))
        test = paired_t_test(one, other)
        low, high = ttest_rel(one, other).confidence_interval(0.95)
        assert (test.interval.low, test.interval.high) == pytest.approx((low, high))
        assert test.p == pytest.approx(ttest_rel(one, other).pvalue)
        assert (test.p <= 0.05) == test.interval.shows_effect
    assert paired_t_test(np.array([1.0]), np.array([0.5])) == MeanTest(Interval(0.5, None, None), None)


def test_draws_resolve_zero_where_many_are_zero() -> None:
    draws = np.array([-1.0, 0.0, 0.0, 0.0, 1.0])
    assert intervals._levels_of_zero(draws) == pytest.approx((0.25, 0.75))
    assert intervals._levels_of_zero(np.array([-1.0, 3.0])) == pytest.approx((0.25, 0.25))
    assert intervals._levels_of_zero(np.array([-1.0, 0.0])) == pytest.approx((1.0, 1.0))
    assert RESAMPLES == 2000


def two_sample_bootstrap(one: np.ndarray, other: np.ndarray, draws: int, generator: np.random.Generator) -> tuple:
    """The BCa interval of other's mean minus one's, written out: means of redrawn samples, jackknife, Welch's t."""
    found = np.array(
        [generator.choice(other, len(other)).mean() - generator.choice(one, len(one)).mean() for _ in range(draws)]
    )
    moves = []
    for sample, sign in ((one, -1), (other, 1)):
        for place in range(len(sample)):
            without = np.delete(sample, place).mean()
            moves.append(sign * (sample.mean() - without) * (len(sample) - 1) / len(sample))
    moves = np.array(moves)
    acceleration = (moves**3).sum() / (6 * (moves**2).sum() ** 1.5)
    bias = norm.ppf((found < other.mean() - one.mean()).mean())
    parts = [sample.var(ddof=1) / len(sample) for sample in (one, other)]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(s) - 1) for part, s in zip(parts, (one, other), strict=True))
    drawn = sum(sample.var() / len(sample) for sample in (one, other))
    wide = t.ppf(0.975, freedom) * np.sqrt(sum(parts) / drawn)
    shifted = bias + np.array([-wide, wide])
    return tuple(np.quantile(found, norm.cdf(bias + shifted / (1 - acceleration * shifted))))


@pytest.mark.parametrize("seed", range(4))
def test_two_samples_have_the_interval_of_a_bootstrap_written_out(seed: int) -> None:
    generator = np.random.default_rng(seed)
    one, other = generator.exponential(size=14) * (1 + seed), generator.normal(0.5 * seed, 1, 9 + 4 * seed)
    (test,) = difference_tests((one[None], np.ones(len(one))), (other[None], np.ones(len(other))), seed)
    low, high = two_sample_bootstrap(one, other, 6000, generator)
    assert test.interval.mean == pytest.approx(other.mean() - one.mean())
    assert test.interval.low == pytest.approx(low, abs=0.12 * (high - low))
    assert test.interval.high == pytest.approx(high, abs=0.12 * (high - low))


@pytest.mark.parametrize("kind", KINDS)
def test_two_samples_p_and_interval_never_disagree_about_zero(kind: str) -> None:
    generator, seen, excluded = np.random.default_rng(1 + len(kind)), 0, 0
    for trial, (one, other) in enumerate(((5, 5), (5, 30), (12, 7), (40, 25))):
        samples = [
            sequence_sums(rows_of(generator, kind, 200, 3 * size), np.repeat(np.arange(size), 3))
            for size in (one, other)
        ]
        for test in difference_tests(*samples, trial):
            outside = test.interval.low > 0 or test.interval.high < 0
            assert (test.p <= 0.05) == outside and 0 <= test.p <= 1
            seen, excluded = seen + 1, excluded + outside
    assert seen == 800 and 20 < excluded < 780, "both sides occur"


def test_normal_samples_have_about_welchs_p() -> None:
    generator, far = np.random.default_rng(5), 0
    for trial in range(60):
        one, other = generator.normal(0, 2, 30), generator.normal(generator.uniform(-2, 2), 1, 20)
        (test,) = difference_tests((one[None], np.ones(30)), (other[None], np.ones(20)), trial)
        wanted = ttest_ind(other, one, equal_var=False).pvalue
        far += abs(np.log10(test.p) - np.log10(wanted)) > 0.4
    assert far <= 3


def test_the_two_samples_are_drawn_apart() -> None:
    """Samples of one size under one seed: drawn alike, a sample minus itself would have no spread."""
    sample = (np.random.default_rng(0).normal(size=(1, 20)), np.ones(20))
    (test,) = difference_tests(sample, sample, 0)
    assert test.interval.mean == 0 and test.interval.high - test.interval.low > 0.5 and test.p > 0.9


def test_two_samples_of_whom_one_is_small_or_constant() -> None:
    many, few = (np.arange(20.0)[None], np.ones(20)), (np.ones((1, 4)), np.ones(4))
    (test,) = difference_tests(many, few, 0)
    assert test.interval == Interval(1 - 9.5, None, None) and test.p is None
    (test,) = difference_tests(many, (np.ones((1, 6)), np.ones(6)), 0)
    (alone,) = sum_tests(1 - many[0], many[1], 0)
    assert test.interval.low == pytest.approx(alone.interval.low, abs=0.2)
    assert test.interval.high == pytest.approx(alone.interval.high, abs=0.2)
    (test,) = difference_tests((np.full((1, 6), np.nan), np.ones(6)), many, 0)
    assert np.isnan(test.interval.mean) and test.p is None
