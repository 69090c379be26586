"""Scores and intervals, compared with sums done by hand and with a plain bootstrap."""

import math
import random

import numpy as np
import pytest
import torch

from ablation_core.metrics import Interval, Scores, mean_intervals, score

NAN = float("nan")


def scored(logits: list[list[float]], targets: list[int], baseline: list[list[float]] | None = None) -> Scores:
    run, clean = (torch.tensor(rows).log_softmax(-1) for rows in (logits, baseline or logits))
    return score(run, torch.tensor(targets), clean)


def log_softmax(logits: list[float]) -> list[float]:
    total = math.log(sum(math.exp(logit) for logit in logits))
    return [logit - total for logit in logits]


def divergence(baseline: list[float], run: list[float]) -> float:
    pairs = zip(log_softmax(baseline), log_softmax(run), strict=True)
    return sum(math.exp(clean) * (clean - ablated) for clean, ablated in pairs)


def interval(values: list[float] | np.ndarray, sequences: list[int] | np.ndarray, seed: int = 0) -> Interval:
    return mean_intervals(np.array([values], dtype=float), np.array(sequences), seed)[0]


def clustered(sequences: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Values that agree within a sequence, and their sequences, of 3 to 9 predictions."""
    generator = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(sequences), generator.integers(3, 10, sequences))
    level = generator.normal(0.3, spread, sequences)
    return level[numbers] + generator.normal(0, 0.1, len(numbers)), numbers


def plain_bounds(values: np.ndarray, sequences: np.ndarray, draws: int = 4000) -> tuple[float, float]:
    """The percentile bootstrap of whole sequences, one draw after another."""
    rows = [values[sequences == number].tolist() for number in sorted(set(sequences.tolist()))]
    totals = [(sum(row), len(row)) for row in rows]
    generator, means = random.Random(5), []
    for _ in range(draws):
        drawn = generator.choices(totals, k=len(totals))
        means.append(sum(total for total, _ in drawn) / sum(length for _, length in drawn))
    means.sort()
    return means[round(0.025 * draws)], means[round(0.975 * draws)]


def test_loss_is_the_cross_entropy_in_nats():
    scores = scored([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [math.log(7), 0.0, math.log(2)]], [0, 2, 0])
    expected = [math.log(math.e + math.e**2 + math.e**3) - 1, math.log(3), math.log(10 / 7)]
    assert scores.loss.tolist() == pytest.approx(expected, rel=1e-6)


def test_scores_are_float64_one_a_prediction():
    scores = scored([[1.0, 2.0], [3.0, 4.0], [0.0, 0.5]], [0, 1, 1])
    for name in ("loss", "top1", "top10", "kl"):
        assert getattr(scores, name).dtype == np.float64
        assert getattr(scores, name).shape == (3,)


def test_top1_and_top10_go_by_the_targets_rank():
    logits = [float(-place) for place in range(12)]
    scores = scored([logits] * 12, list(range(12)))
    assert scores.top1.tolist() == [1] + [0] * 11
    assert scores.top10.tolist() == [1] * 10 + [0] * 2


def test_ties_count_as_if_broken_at_random():
    assert scored([[5.0, 5.0, 0.0]], [0]).top1.tolist() == [0.5]
    assert scored([[5.0, 5.0, 0.0]], [2]).top1.tolist() == [0]
    tied = [[1.0] * number + [0.0] * (12 - number) for number in (10, 11, 12)]
    assert scored(tied, [0, 0, 0]).top10.tolist() == pytest.approx([1, 10 / 11, 10 / 12])
    # of three zeros behind nine ones, one has a place among the first ten
    assert scored([[1.0] * 9 + [0.0] * 3], [11]).top10.tolist() == pytest.approx([1 / 3])


def test_ties_of_other_classes_do_not_matter():
    assert scored([[5.0, 1.0, 1.0]], [0]).top1.tolist() == [1]


@pytest.mark.parametrize("classes", [12, 10, 4])
@pytest.mark.parametrize("broken", ["one", "target", "all"])
def test_nan_is_not_right(classes, broken):
    logits = [0.0] * classes
    logits[1] = 5.0
    for place in {"one": [0], "target": [1], "all": range(classes)}[broken]:
        logits[place] = NAN
    scores = scored([logits], [1], [[0.0] * classes])
    assert math.isnan(scores.loss[0])
    assert scores.top1.tolist() == [0]
    assert scores.top10.tolist() == [0]


def test_nan_in_one_prediction_leaves_the_others_alone():
    scores = scored([[NAN] * 12, [3.0] + [0.0] * 11], [0, 0], [[0.0] * 12] * 2)
    assert scores.top1.tolist() == [0, 1]
    assert scores.loss[1] == pytest.approx(math.log(math.exp(3) + 11) - 3)
    assert scores.kl[1] == pytest.approx(divergence([0.0] * 12, [3.0] + [0.0] * 11), rel=1e-5)


def test_kl_is_from_the_baseline_to_the_run():
    clean, ablated = [math.log(8), 0.0, 0.0], [0.0, 0.0, math.log(3)]
    expected = 0.8 * math.log(0.8 / 0.2) + 0.1 * math.log(0.1 / 0.2) + 0.1 * math.log(0.1 / 0.6)
    assert scored([ablated], [0], [clean]).kl[0] == pytest.approx(expected, rel=1e-5)
    assert divergence(clean, ablated) == pytest.approx(expected)
    other_way = scored([clean], [0], [ablated]).kl[0]
    assert other_way == pytest.approx(divergence(ablated, clean), rel=1e-5)
    assert other_way != pytest.approx(expected, rel=0.01)


def test_kl_of_equal_runs_is_zero_and_never_negative():
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(200, 50, generator=generator) * 5).log_softmax(-1)
    near = (logits + torch.randn(200, 50, generator=generator) * 1e-4).log_softmax(-1)
    targets = torch.zeros(200, dtype=torch.long)
    assert (score(logits, targets, logits).kl == 0).all()
    assert (score((logits + 3).log_softmax(-1), targets, logits).kl <= 1e-5).all()
    assert (score(near, targets, logits).kl >= 0).all()


def test_kl_where_the_baseline_excludes_a_class():
    """A class of probability 0 adds nothing: 0 · log 0 = 0."""
    assert scored([[0.0, 0.0]], [0], [[0.0, -math.inf]]).kl[0] == pytest.approx(math.log(2), rel=1e-6)


def test_large_logits_do_not_overflow():
    scores = scored([[1000.0, 0.0]], [1], [[0.0, 1000.0]])
    assert scores.loss.tolist() == [1000]
    assert scores.kl.tolist() == [1000]


def test_scores_join_in_order():
    one, other = scored([[1.0, 0.0], [0.0, 0.0]], [0, 0]), scored([[0.0, 3.0]], [0])
    joined = Scores.joined([one, other])
    for name in ("loss", "top1", "top10", "kl"):
        assert getattr(joined, name).tolist() == [*getattr(one, name), *getattr(other, name)]


def test_mean_weighs_every_prediction_alike():
    got = interval([1, 2, 3, 10, 0.5, 0.5], [0, 0, 0, 1, 2, 2])
    assert got.mean == pytest.approx(17 / 6)


def test_numbers_without_predictions_are_not_sequences():
    values, sequences = clustered(12, 0)
    assert interval(values, sequences * 3 + 2) == interval(values, sequences)


@pytest.mark.parametrize("seed", range(4))
def test_interval_agrees_with_a_plain_bootstrap_of_sequences(seed):
    values, sequences = clustered(60, seed)
    got = interval(values, sequences, seed)
    low, high = plain_bounds(values, sequences)
    tolerance = 0.1 * (high - low)
    assert got.low == pytest.approx(low, abs=tolerance)
    assert got.high == pytest.approx(high, abs=tolerance)


def test_agreement_within_sequences_widens_the_interval():
    """600 predictions of 60 sequences that agree within each are worth 60, not 600."""
    level = np.random.default_rng(0).normal(size=60)
    values = np.repeat(level, 10)
    together = interval(values, np.repeat(np.arange(60), 10))
    alone = interval(values, np.arange(600))
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(10**0.5, rel=0.15)
    assert together.high - together.low == pytest.approx(2 * 1.96 * level.std() / 60**0.5, rel=0.15)


def test_skewed_data_give_an_interval_that_leans_to_the_long_side():
    values = np.random.default_rng(4).exponential(size=30) ** 2
    got = interval(values, np.arange(30))
    assert got.high - got.mean > 1.2 * (got.mean - got.low)


def test_rows_have_the_same_draws_and_do_not_disturb_each_other():
    values, sequences = clustered(25, 1)
    rows = np.stack([values, np.zeros_like(values), 3 * values, -values, np.full_like(values, 0.5)])
    got = mean_intervals(rows, sequences, 7)
    alone = mean_intervals(rows[:1], sequences, 7)[0]
    assert (got[0].mean, got[0].low, got[0].high) == pytest.approx((alone.mean, alone.low, alone.high))
    assert got[1] == Interval(0, 0, 0)
    assert (got[2].low, got[2].high) == pytest.approx((3 * got[0].low, 3 * got[0].high))
    assert (got[3].low, got[3].high) == pytest.approx(
        (-got[0].high, -got[0].low), abs=0.05 * (got[0].high - got[0].low)
    )
    assert got[4] == Interval(0.5, 0.5, 0.5)


@pytest.mark.parametrize("sequence", [0, 3])
def test_one_sequence_gives_no_bounds(sequence):
    got = interval([1, 2, 6], [sequence] * 3)
    assert got == Interval(3, None, None)
    assert not got.shows_effect


def test_fewer_than_five_sequences_give_no_bounds():
    assert interval(range(8), [0, 0, 1, 1, 2, 2, 3, 3]).low is None
    assert interval(range(10), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]).low is not None


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0, 0.1])
def test_equal_values_give_an_interval_of_no_width(value):
    got = interval([value] * 21, [0] * 1 + [1] * 3 + [2] * 7 + [3] * 8 + [4] * 2)
    assert (got.low, got.mean, got.high) == pytest.approx((value, value, value), rel=1e-12)
    assert got.shows_effect == (value != 0)


def test_bounds_where_a_single_sequence_differs():
    got = interval([0.0] * 19 + [1.0], range(20))
    assert got.mean == pytest.approx(0.05)
    assert 0 <= got.low <= 0.05 <= got.high <= 0.5


def test_bounds_where_the_differences_are_too_small_for_bca():
    """Its acceleration is then 0 / 0: the third powers of the differences underflow."""
    values, sequences = clustered(60, 3)
    low, high = plain_bounds(values, sequences)
    ordinary, tiny = mean_intervals(np.stack([values, values * 1e-120]), sequences, 0)
    for got in (ordinary.low, tiny.low * 1e120):
        assert got == pytest.approx(low, abs=0.1 * (high - low))
    for got in (ordinary.high, tiny.high * 1e120):
        assert got == pytest.approx(high, abs=0.1 * (high - low))


def test_same_seed_same_interval_other_seed_another():
    values, sequences = clustered(20, 2)
    assert interval(values, sequences, 11) == interval(values, sequences, 11)
    assert interval(values, sequences, 11) != interval(values, sequences, 12)


@pytest.mark.parametrize(
    ("low", "high", "shows"),
    [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.2, False), (0.0, 0.2, False), (-0.2, 0.0, False), (0, 0, False)],
)
def test_an_effect_shows_where_the_interval_leaves_zero_out(low, high, shows):
    assert Interval((low + high) / 2, low, high).shows_effect == shows


def test_nan_shows_no_effect():
    got = interval([NAN] * 4, range(4))
    assert math.isnan(got.mean)
    assert not got.shows_effect


@pytest.mark.parametrize("size", [5, 8, 16, 40])
def test_interval_covers_the_truth_about_as_often_as_it_says(size):
    generator = np.random.default_rng(2024)
    covered = 0
    for trial in range(400):
        got = interval(generator.normal(0.7, 2, size), np.arange(size), trial)
        covered += got.low <= 0.7 <= got.high
    assert (0.86 if size == 5 else 0.905) <= covered / 400 <= 0.99
