"""Scores and intervals, compared with sums done by hand and with a plain bootstrap."""

import math
import random
from statistics import NormalDist

import numpy as np
import pytest
import torch

from ablation_core.engine.metrics import METRICS
from ablation_core.engine.scores import Scores, score, score_clean
from ablation_core.stats.intervals import (
    CONFIDENCE,
    FEWEST_SEQUENCES,
    RESAMPLES,
    Interval,
    _bca_test,
    _resampled_means,
    mean_intervals,
    sequence_sums,
)

NAN = float("nan")


def scored(logits: list[list[float]], targets: list[int], baseline: list[list[float]] | None = None) -> Scores:
    run, clean, wanted = torch.tensor(logits), torch.tensor(baseline or logits), torch.tensor(targets)
    return score(run, wanted, score_clean(clean, wanted))


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
        assert scores[name].dtype == np.float64
        assert scores[name].shape == (3,)


def test_top1_and_top10_go_by_the_targets_rank():
    logits = [float(-place) for place in range(12)]
    scores = scored([logits] * 12, list(range(12)))
    assert scores["top1"].tolist() == [1] + [0] * 11
    assert scores["top10"].tolist() == [1] * 10 + [0] * 2


def test_ties_count_as_if_broken_at_random():
    assert scored([[5.0, 5.0, 0.0]], [0])["top1"].tolist() == [0.5]
    assert scored([[5.0, 5.0, 0.0]], [2])["top1"].tolist() == [0]
    tied = [[1.0] * number + [0.0] * (12 - number) for number in (10, 11, 12)]
    assert scored(tied, [0, 0, 0])["top10"].tolist() == pytest.approx([1, 10 / 11, 10 / 12])
    # of two zeros behind nine ones, and of three, one has a place among the first ten
    assert scored([[1.0] * 9 + [0.0] * 2], [10])["top10"].tolist() == pytest.approx([1 / 2])
    assert scored([[1.0] * 9 + [0.0] * 3], [11])["top10"].tolist() == pytest.approx([1 / 3])


def test_ties_of_other_classes_do_not_matter():
    assert scored([[5.0, 1.0, 1.0]], [0])["top1"].tolist() == [1]


@pytest.mark.parametrize("classes", [12, 10, 4])
@pytest.mark.parametrize("broken", ["one", "target", "all"])
def test_nan_is_not_right(classes, broken):
    logits = [0.0] * classes
    logits[1] = 5.0
    for place in {"one": [0], "target": [1], "all": range(classes)}[broken]:
        logits[place] = NAN
    scores = scored([logits], [1], [[0.0] * classes])
    assert math.isnan(scores.loss[0])
    assert scores["top1"].tolist() == [0]
    assert scores["top10"].tolist() == [0]


def test_nan_in_one_prediction_leaves_the_others_alone():
    scores = scored([[NAN] * 12, [3.0] + [0.0] * 11], [0, 0], [[0.0] * 12] * 2)
    assert scores["top1"].tolist() == [0, 1]
    assert scores.loss[1] == pytest.approx(math.log(math.exp(3) + 11) - 3)
    assert scores["kl"][1] == pytest.approx(divergence([0.0] * 12, [3.0] + [0.0] * 11), rel=1e-5)


def test_kl_is_from_the_baseline_to_the_run():
    clean, ablated = [math.log(8), 0.0, 0.0], [0.0, 0.0, math.log(3)]
    expected = 0.8 * math.log(0.8 / 0.2) + 0.1 * math.log(0.1 / 0.2) + 0.1 * math.log(0.1 / 0.6)
    assert scored([ablated], [0], [clean])["kl"][0] == pytest.approx(expected, rel=1e-5)
    assert divergence(clean, ablated) == pytest.approx(expected)
    other_way = scored([clean], [0], [ablated])["kl"][0]
    assert other_way == pytest.approx(divergence(ablated, clean), rel=1e-5)
    assert other_way != pytest.approx(expected, rel=0.01)


def test_kl_of_equal_runs_is_zero_and_never_negative():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 50, generator=generator) * 5
    near = logits + torch.randn(200, 50, generator=generator) * 1e-4
    targets = torch.zeros(200, dtype=torch.long)
    clean = score_clean(logits, targets)
    assert (clean.scores["kl"] == 0).all() and (score(logits.clone(), targets, clean)["kl"] == 0).all()
    assert (score(logits + 3, targets, clean)["kl"] <= 1e-6).all()
    assert (score(near, targets, clean)["kl"] >= 0).all()


def plainly(logits: torch.Tensor, targets: torch.Tensor, clean: torch.Tensor) -> dict[str, list[float]]:
    """The four scores by float64 and a loop over predictions."""
    scores = {name: [] for name, metric in METRICS.items() if not metric.answers}
    for row, target, before in zip(logits.double(), targets.tolist(), clean.double(), strict=True):
        log_q, log_p = (values - values.exp().sum().log() for values in (row - row.max(), before - before.max()))
        terms = [math.exp(p) * (p - q) for p, q in zip(log_p.tolist(), log_q.tolist(), strict=True) if math.exp(p)]
        above, ties = int((row > row[target]).sum()), int((row == row[target]).sum())
        scores["loss"].append(-float(log_q[target]))
        scores["top1"].append(min(max((1 - above) / ties, 0), 1))
        scores["top10"].append(min(max((10 - above) / ties, 0), 1))
        scores["kl"].append(math.fsum(terms))
    return scores


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("noise", [2.0, 3e-3])
def test_many_rows_at_once_are_a_plain_loop(dtype, noise, monkeypatch):
    """Large and small changes, ties by the dozen, excluded classes, blocks that do not divide the rows."""
    monkeypatch.setattr("ablation_core.engine.scores._BLOCK_VALUES", 7 * 3000)
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn(60, 3000, generator=generator) * 4
    clean[:20] = clean[:20].round()  # ties in single precision too
    logits = clean + noise * torch.randn(60, 3000, generator=generator)
    logits[:10] = logits[:10].round()
    clean[50:, :4], logits[50:, 2:4] = -math.inf, -math.inf
    targets = torch.cat(
        [logits.argsort(1, descending=True)[:30, 9], torch.randint(4, 3000, (30,), generator=generator)]
    )
    targets[40:] = logits[40:].argmax(1)
    logits, clean = logits.to(dtype), clean.to(dtype)
    scores, expected = score(logits, targets, score_clean(clean, targets)), plainly(logits, targets, clean)
    np.testing.assert_allclose(scores.loss, expected["loss"], rtol=3e-7, atol=3e-7)
    np.testing.assert_allclose(scores["kl"], expected["kl"], rtol=1e-6, atol=1e-6)
    assert scores["kl"].mean() == pytest.approx(np.mean(expected["kl"]), rel=3e-7, abs=1e-7)
    np.testing.assert_allclose(scores["top1"], expected["top1"], rtol=1e-6)
    np.testing.assert_allclose(scores["top10"], expected["top10"], rtol=1e-6)
    assert (scores["top10"] % 1 > 0).sum() > 3, "rows in which the place is shared"


def test_a_class_that_the_run_excludes_is_infinitely_far():
    scores = scored([[0.0, -math.inf]], [1], [[0.0, 0.0]])
    assert scores["kl"].tolist() == scores.loss.tolist() == [math.inf]


def test_kl_where_the_baseline_excludes_a_class():
    """A class of probability 0 adds nothing: 0 · log 0 = 0."""
    assert scored([[0.0, 0.0]], [0], [[0.0, -math.inf]])["kl"][0] == pytest.approx(math.log(2), rel=1e-6)


def test_large_logits_do_not_overflow():
    scores = scored([[1000.0, 0.0]], [1], [[0.0, 1000.0]])
    assert scores.loss.tolist() == [1000]
    assert scores["kl"].tolist() == [1000]


def test_scores_join_in_order():
    one, other = scored([[1.0, 0.0], [0.0, 0.0]], [0, 0]), scored([[0.0, 3.0]], [0])
    joined = Scores.joined([one, other], [metric for metric in METRICS.values() if not metric.answers])
    for name in ("loss", "top1", "top10", "kl"):
        assert joined[name].tolist() == [*one[name], *other[name]]


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


def test_what_all_predictions_share_only_moves_the_interval():
    """Differences a hundred millionth of the values are no rounding."""
    values, sequences = clustered(40, 4)
    alone, moved = mean_intervals(np.stack([values, 1 + 1e-8 * values]), sequences, 0)
    for name in ("mean", "low", "high"):
        assert (getattr(moved, name) - 1) * 1e8 == pytest.approx(getattr(alone, name), abs=1e-4), name


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


def plain_bca(mean: float, draws: list[float], sums: list[float], counts: list[int], t: float) -> tuple[float, float]:
    """Efron's (1987) bounds written out, with `t` in the normal quantile's place, times √(n / (n - 1))."""
    normal, size, ordered = NormalDist(), len(counts), sorted(draws)
    excluded_positions = [(sum(sums) - one) / (sum(counts) - count) for one, count in zip(sums, counts, strict=True)]
    skew = [sum(excluded_positions) / size - one for one in excluded_positions]
    acceleration = sum(one**3 for one in skew) / (6 * sum(one**2 for one in skew) ** 1.5)
    below = sum(0.5 if math.isclose(draw, mean) else float(draw < mean) for draw in draws) / len(draws)
    bias, bounds = normal.inv_cdf(min(max(below, 1 / len(draws)), 1 - 1 / len(draws))), []
    for wide in (-t * math.sqrt(size / (size - 1)), t * math.sqrt(size / (size - 1))):
        place = (len(draws) - 1) * normal.cdf(bias + (bias + wide) / (1 - acceleration * (bias + wide)))
        left = min(int(place), len(draws) - 2)
        bounds.append(ordered[left] + (place - left) * (ordered[left + 1] - ordered[left]))
    return bounds[0], bounds[1]


T_AT_4, T_AT_7 = 2.7764451051977987, 2.3646242510102993  # the tables' 97.5% quantiles of Student's t


@pytest.mark.parametrize(
    ("sums", "counts", "t"),
    [
        ([1.0, 2.0, 3.0, 4.0, 10.0], [1, 1, 2, 1, 1], T_AT_4),
        ([-7.0, 0.5, 0.25, 0.0, 0.75, 1.0, 0.5, 0.25], [3, 1, 1, 2, 1, 4, 1, 2], T_AT_7),
        ([0.0, 0.0, 0.0, 0.0, 1.0], [1, 1, 1, 1, 1], T_AT_4),
    ],
)
@pytest.mark.parametrize("lean", [0.0, 0.3, -0.4, 3.0, -3.0])
def test_bounds_are_efrons(sums: list[float], counts: list[int], t: float, lean: float) -> None:
    """Also where all draws lie on one side of the mean, and where some are the mean itself but for rounding."""
    mean = sum(sums) / sum(counts)
    draws = [mean + lean + math.sin(17 * place) for place in range(60)] + [mean, mean * (1 + 3e-16), mean * (1 - 3e-16)]
    found = _bca_test(mean, np.array(draws), np.array(sums), np.array(counts)).interval
    assert (found.low, found.high) == pytest.approx(plain_bca(mean, draws, sums, counts, t), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("values", [[4, 3, 2, 1, 1, 0, 0, 0, 0, 3, 2, 4], [2, 0, 4, 1, 3, 3, 0, 1]])
@pytest.mark.parametrize("unit", [0.1, 1 / 3, 0.7, 1e-9, 1e9])
def test_ties_with_the_mean_do_not_hang_on_rounding(values: list[int], unit: float) -> None:
    """Many draws of whole numbers have the very mean of the sample; in another unit sums are rounded, and are the same."""
    whole = interval(values, range(len(values)))
    scaled = interval(np.array(values) * unit, range(len(values)))
    assert (scaled.low / unit, scaled.high / unit) == pytest.approx((whole.low, whole.high), rel=1e-9)


@pytest.mark.parametrize("size", [5, 6, 20, 300])
@pytest.mark.parametrize("sign", [1, -1])
def test_bounds_stay_in_order_however_skewed_the_sample_is(size: int, sign: int) -> None:
    sums, counts = np.zeros(size), np.ones(size, dtype=int)
    sums[0] = sign
    for draws in (np.linspace(-1, 1, 2000), np.linspace(1, 2, 2000), np.linspace(-2, -1, 2000)):
        found = _bca_test(sign / size, draws, sums, counts).interval
        low, high = found.low, found.high
        assert draws[0] <= low <= high <= draws[-1]
        assert low < high


def test_draws_are_means_of_as_many_sequences_as_there_are() -> None:
    """Each sequence's sum is another power of 100, so that a draw tells how often each is in it."""
    size = 6
    weight = 100.0 ** np.arange(size)
    means = _resampled_means(np.stack([weight, np.ones(size)]), np.ones(size), seed=3)
    assert means.shape == (2, RESAMPLES)
    np.testing.assert_allclose(means[1], 1, rtol=1e-12)
    times = np.stack([np.round(means[0] * size) // one % 100 for one in weight])
    assert (times.sum(0) == size).all()
    assert times.mean(1) == pytest.approx(np.ones(size), abs=0.1)  # five standard errors
    assert times.var(1) == pytest.approx(np.full(size, 1 - 1 / size), abs=0.15)
    assert len({tuple(column) for column in times.T.tolist()}) > 250  # no portion repeats another
    halves = np.split(times, RESAMPLES // 250, axis=1)
    assert not any(np.array_equal(halves[0], other) for other in halves[1:])


def test_a_draws_mean_is_a_ratio_of_sums() -> None:
    counts = np.array([1, 10, 100, 1000, 10_000])
    means = _resampled_means(counts[None] * 0.5, counts, seed=0)
    np.testing.assert_allclose(means, 0.5, rtol=1e-12)
    only = _resampled_means(np.array([[0, 0, 0, 0, 10_000.0]]), counts, seed=0)[0]
    share = only.max()  # where the long one is drawn, nearly all predictions are its
    assert 0.99 < share <= 1
    assert (only == 0).mean() == pytest.approx(0.8**5, abs=0.05)


def test_sums_and_counts_of_the_sequences_that_are_there() -> None:
    sums, counts = sequence_sums(np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]]), np.array([4, 1, 4, 7]))
    np.testing.assert_array_equal(sums, [[2, 4, 4], [6, 12, 8]])
    np.testing.assert_array_equal(counts, [1, 2, 1])


def test_a_mean_that_is_no_number_has_no_other_bounds() -> None:
    infinite, missing = mean_intervals(np.array([[math.inf, 1, 2, 3, 4], [NAN, 1, 2, 3, 4]]), np.arange(5), 0)
    assert infinite == Interval(math.inf, math.inf, math.inf)
    assert math.isnan(missing.mean)
    assert math.isnan(missing.low)
    assert math.isnan(missing.high)


def test_what_the_documents_say_of_intervals() -> None:
    assert (CONFIDENCE, RESAMPLES, FEWEST_SEQUENCES) == (0.95, 2000, 5)
    assert tuple(METRICS)[:4] == ("loss", "top1", "top10", "kl")
