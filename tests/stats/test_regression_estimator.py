"""Means carried over by estimates of all sequences: against least squares, fixed populations, and where nothing is there."""

import numpy as np
import pytest
from numpy.polynomial import Polynomial

from ablation_core.stats.regression_estimator import RegressionEstimator, chances, drawing_order
from tests.runs.test_adaptive import draw, looked_at, told_in

ALL, DRAWN = 64, 16
LIKENESS = [0.0, 0.5, 0.96, 1.0]  # correlation of estimates and exact changes


def pairs(generator: np.random.Generator, kind: str, size: tuple[int, int], likeness: float) -> tuple:
    """Exact changes without effect, and estimates of them in another unit and with a bias."""
    shared, own = draw(generator, kind, size), draw(generator, kind, size)
    return likeness * shared + np.sqrt(1 - likeness**2) * own, 3 * shared - 2


def test_the_mean_and_its_errors_are_those_of_a_plain_loop_over_least_squares() -> None:
    generator = np.random.default_rng(20)
    changes, first_order = pairs(generator, "normal", (1, ALL), 0.9)
    estimates = RegressionEstimator.make(changes[:, :DRAWN] * 7, np.full(ALL, 7.0), first_order * 7)
    x, y = first_order[0, :DRAWN], changes[0, :DRAWN]
    line = Polynomial.fit(x, y, 1)
    assert estimates.mean[0] == pytest.approx(line(first_order.mean()))
    slope = line.convert().coef[1]
    x, y, far = x - x.mean(), y - y.mean(), first_order.mean() - x.mean()
    squares = 0.0
    for i in range(DRAWN):
        others = [j for j in range(DRAWN) if j != i]
        squares += (y[i] - x[i] * sum(x[j] * y[j] for j in others) / sum(x[j] ** 2 for j in others)) ** 2
    left = squares / (DRAWN - 1)
    gap = left * (1 / DRAWN - 1 / ALL + far**2 / sum(x**2))
    assert estimates.gap[0] == pytest.approx(np.sqrt(gap))
    whole = (((y - slope * x) ** 2).sum() / (DRAWN - 2) + slope**2 * first_order.var(ddof=1)) / ALL
    assert estimates.whole_error[0] == pytest.approx(np.sqrt(whole))
    assert estimates.error[0] == pytest.approx(np.sqrt(gap + whole))


@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("likeness", [0.0, 0.96])
def test_the_gap_is_how_far_a_whole_sweep_lies(likeness: float, sized: bool) -> None:
    """Fixed populations of sequences of unequal length, half of which hardly vary, each drawn from in many orders."""
    generator = np.random.default_rng(21)
    scale = np.repeat([0.2, 2.0], ALL // 2)
    sizes = scale + 0.3 if sized else np.ones(ALL)
    off, gaps, whole, plain = [], [], [], []
    for seed in range(2000):
        if seed % 100 == 0:
            counts = generator.integers(5, 20, ALL).astype(float)
            changes, first_order = (v * scale * counts for v in pairs(generator, "laplace", (1, ALL), likeness))
            full = RegressionEstimator.make(changes + 0.5 * counts, counts)
        order = drawing_order(sizes, seed)
        drawn = (changes + 0.5 * counts)[:, order[:DRAWN]]
        estimates = RegressionEstimator.make(drawn, counts[order], first_order[:, order], sizes[order])
        off.append(estimates.mean[0] - full.mean[0])
        gaps.append(estimates.gap[0])
        whole.append(estimates.whole_error[0] / full.error[0])
        plain.append(full.error[0] * np.sqrt(ALL / DRAWN - 1))
    assert np.mean(off) == pytest.approx(0, abs=0.15 * np.std(off))
    assert np.std(off) == pytest.approx(np.sqrt(np.mean(np.square(gaps))), rel=0.15)
    assert np.mean(whole) == pytest.approx(1, rel=0.15)
    assert np.std(off) < (0.5 if likeness else 0.9 if sized else 1.3) * np.mean(plain)


def test_the_chances_are_how_often_each_is_drawn() -> None:
    sizes = np.random.default_rng(22).gamma(1.0, 1.0, ALL) + 0.2
    chance = chances(sizes, DRAWN)
    assert chance.sum() == pytest.approx(DRAWN)
    assert chance.min() < 0.1
    assert chance.max() > 0.5
    np.testing.assert_allclose(chance[chance < 1] / sizes[chance < 1], chance.min() / sizes.min())
    drawn = np.zeros(ALL)
    for seed in range(4000):
        drawn[drawing_order(sizes, seed)[:DRAWN]] += 1 / 4000
    np.testing.assert_allclose(drawn, chance, atol=0.05)
    assert chances(np.array([0.1, 0.1, 5.0]), 2).tolist() == [0.5, 0.5, 1.0]
    assert chances(sizes, ALL).tolist() == [1.0] * ALL


def test_all_sequences_or_estimates_that_say_nothing_leave_the_plain_test() -> None:
    generator = np.random.default_rng(22)
    changes, first_order = pairs(generator, "normal", (3, ALL), 0.8)
    counts = generator.integers(5, 20, ALL).astype(float)
    for size, some in (
        (ALL, first_order),
        (DRAWN, np.full((3, ALL), 0.1) * counts),
        (DRAWN, np.full((3, ALL), np.nan)),
    ):
        plain = RegressionEstimator.make(changes[:, :size], counts)
        guided = RegressionEstimator.make(changes[:, :size], counts, some)
        np.testing.assert_allclose(guided.mean, plain.mean)
        np.testing.assert_allclose(guided.p(), plain.p())
        np.testing.assert_allclose(guided.gap, plain.gap)


def test_estimates_that_are_the_changes_need_few_of_them() -> None:
    changes, _ = pairs(np.random.default_rng(23), "normal", (5, ALL), 0.0)
    few = RegressionEstimator.make(changes[:, :8], np.ones(ALL), 2 * changes + 1)
    all_of_them = RegressionEstimator.make(changes, np.ones(ALL))
    np.testing.assert_allclose(few.mean, all_of_them.mean)
    np.testing.assert_allclose(few.error, all_of_them.error)
    np.testing.assert_allclose(few.whole_p(), all_of_them.p(), rtol=1e-6)
    assert (few.gap < 1e-9).all()


def unequal(generator: np.random.Generator, values: tuple[np.ndarray, np.ndarray], seed: int) -> tuple:
    """Changes, estimates and sizes as a sweep has them: sequences that vary unequally, in an order drawn by that."""
    scale = generator.gamma(1.0, 1.0, values[0].shape[1]) + 0.05
    order = drawing_order(sizes := scale + 0.2, seed)
    return tuple((part * scale)[:, order] for part in values), sizes[order]


@pytest.mark.parametrize("likeness", LIKENESS)
@pytest.mark.parametrize("kind", ["normal", "laplace"])
def test_where_nothing_has_an_effect_at_most_one_map_in_twenty_tells_one(kind: str, likeness: float) -> None:
    generator = np.random.default_rng(24)
    maps = 100
    wrong = sum(told_in(*pairs(generator, kind, (24, ALL), likeness)).any() for _ in range(maps))
    assert wrong / maps <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / maps)


@pytest.mark.parametrize("likeness", [0.5, 0.96])
def test_nor_where_sequences_are_drawn_by_size(likeness: float) -> None:
    generator = np.random.default_rng(28)
    maps, wrong = 100, 0
    for number in range(maps):
        values, sizes = unequal(generator, pairs(generator, "normal", (24, ALL), likeness), number)
        wrong += told_in(*values, sizes).any()
    assert wrong / maps <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / maps)


def test_taking_the_estimates_at_their_word_would_be_caught() -> None:
    """The same maps, judged by the gap alone as if all sequences were the text itself: wrong far too often."""
    generator = np.random.default_rng(25)
    wrong = 0
    for _ in range(100):
        changes, first_order = pairs(generator, "normal", (1, ALL), 0.96)
        estimates = RegressionEstimator.make(changes[:, :DRAWN], np.ones(ALL), first_order)
        wrong += abs(estimates.mean[0]) > 2 * estimates.gap[0]
    assert wrong / 100 > 0.2


@pytest.mark.parametrize("likeness", LIKENESS)
def test_of_what_is_told_at_most_one_in_twenty_has_no_effect_and_intervals_hold_the_mean(likeness: float) -> None:
    generator = np.random.default_rng(26)
    effects = np.repeat([0.0, 0.5, 2.0], 10)
    shares, held = [], []
    for _ in range(60):
        changes, first_order = pairs(generator, "normal", (30, ALL), likeness)
        looking = looked_at(changes + effects[:, None], first_order)
        significant = np.array([verdict == "told" for verdict in looking.verdicts])
        shares.append(significant[effects == 0].sum() / max(significant.sum(), 1))
        held.append(np.abs(looking.mean - effects) <= looking.half_width)
        assert significant[effects == 2].all()
    assert np.mean(shares) <= 0.05
    assert np.mean(held) >= 0.95


def test_the_more_alike_the_fewer_sequences_are_taken() -> None:
    generator = np.random.default_rng(27)
    taken = []
    for likeness in (0.0, 0.8, 0.96):
        changes, first_order = pairs(generator, "normal", (100, ALL), likeness)
        taken.append(looked_at(changes + np.linspace(0, 0.6, 100)[:, None], first_order).seen.mean() / ALL)
    assert taken[0] > taken[1] > taken[2]
    assert taken[2] < 0.5
