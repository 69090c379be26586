"""What is said of a neuron's shape, on samples whose shape is known."""

import numpy as np
import pytest
import scipy.stats
import torch

from ablation_core.activations.accumulator import Accumulator
from ablation_core.activations.collect import gather_statistics
from ablation_core.activations.neuron_summary import NeuronSummary, peak_distance, summarise_neuron
from ablation_core.activations.statistics import Statistics


def statistics_of(*samples: np.ndarray) -> Statistics:
    """Statistics of one head with a neuron a sample."""
    accumulator = Accumulator(len(samples))
    accumulator.update(torch.from_numpy(np.stack(samples, axis=1).astype(np.float32)))
    return gather_statistics([accumulator], (1,), {})


def read(sample: np.ndarray, bins: int = 100, seed: int = 0) -> NeuronSummary:
    return summarise_neuron(statistics_of(np.asarray(sample)), 0, 0, 0, bins, seed)


def normal(rows: int = 20_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=rows)


def two_bumps(share: float, rows: int = 20_000, distance: float = 4, seed: int = 0) -> np.ndarray:
    """A normal at -2 and `share` of one `distance` above it, both of std 0.6."""
    generator = np.random.default_rng(seed)
    return np.where(generator.random(rows) < share, distance - 2, -2) + 0.6 * generator.normal(size=rows)


def made(**changes) -> NeuronSummary:
    """A reading of a standard normal, but for the changes."""
    values = {"zero": 0.0, "mean": 0.0, "median": 0.0, "peak": 0.0}
    shape = {"values": values, "std": 1.0, "skew": 0.0, "second_mode": None, "peak_range": (-0.1, 0.1)}
    return NeuronSummary(**(shape | {"outside": 0.0, "not_finite": 0} | changes))


SKEWED = {
    "gamma": (np.random.default_rng(0).gamma(4, size=20_000), 1),
    "minus gamma": (-np.random.default_rng(1).gamma(4, size=20_000), -1),
    "exponential": (np.random.default_rng(2).exponential(size=20_000) + 50, 1),
    "left": (5 - np.random.default_rng(3).exponential(size=20_000), -1),
    "uniform": (np.random.default_rng(4).uniform(size=20_000), 0),
    "normal": (normal(), 0),
}


@pytest.mark.parametrize("name", SKEWED)
def test_skew_is_that_of_the_values_within_the_range(name):
    sample, sign = SKEWED[name]
    statistics = statistics_of(sample)
    skew = summarise_neuron(statistics, 0, 0, 0, 100).skew
    kept = sample[(sample >= statistics.low.item()) & (sample <= statistics.high.item())]
    assert skew == pytest.approx(scipy.stats.skew(kept), abs=0.02)
    assert (abs(skew) < 0.1) if sign == 0 else (skew * sign > 0.5)


def test_skew_does_not_depend_on_the_peaks_binning():
    sample, _ = SKEWED["gamma"]
    assert read(sample, bins=10).skew == read(sample, bins=600).skew


def test_values_are_those_of_the_sample():
    sample, _ = SKEWED["gamma"]
    reading = read(sample)
    assert set(reading.values) == {"zero", "mean", "median", "peak"}
    assert reading.values["zero"] == 0
    assert reading.values["mean"] == pytest.approx(sample.mean(), rel=1e-5)
    assert reading.values["median"] == pytest.approx(np.median(sample), abs=0.05)
    assert reading.values["peak"] == pytest.approx(3, abs=0.5)  # a gamma of shape 4
    assert reading.std == pytest.approx(sample.std(), rel=1e-5)
    assert reading.not_finite == 0


def test_each_neuron_is_read_by_itself():
    statistics = statistics_of(normal(), normal(seed=1) * 3 + 7, two_bumps(0.4))
    assert summarise_neuron(statistics, 0, 0, 1, 100).values["mean"] == pytest.approx(7, abs=0.1)
    assert summarise_neuron(statistics, 0, 0, 1, 100).second_mode is None
    assert summarise_neuron(statistics, 0, 0, 2, 100).second_mode == pytest.approx(2, abs=0.3)


def test_share_outside_and_broken_values_are_counted():
    sample = normal(1000)
    sample[:2], sample[2:7] = 1e6, np.nan
    reading = read(sample)
    assert reading.outside == pytest.approx(2 / 995)
    assert reading.not_finite == 5
    assert "5 NaN or infinite values were excluded" in reading.sentence


@pytest.mark.parametrize("share", [0.2, 0.35, 0.45])
@pytest.mark.parametrize("seed", range(3))
def test_the_second_of_two_bumps_is_found(share, seed):
    assert read(two_bumps(share, seed=seed)).second_mode == pytest.approx(2, abs=0.35)
    assert read(two_bumps(1 - share, seed=seed)).second_mode == pytest.approx(-2, abs=0.35)


def test_second_mode_is_the_centre_of_its_bin():
    sample = np.where(np.arange(20_000) % 25 == 0, 5.0, normal())
    statistics = statistics_of(sample)
    half_a_bin = (statistics.high - statistics.low).item() / 120
    assert abs(summarise_neuron(statistics, 0, 0, 0, 100).second_mode - 5) <= half_a_bin * 1.001


def test_a_narrow_spike_that_is_the_peak_is_not_its_own_second_mode():
    reading = read(np.where(np.arange(20_000) % 15 == 0, 5.0, normal()))
    assert reading.values["peak"] == pytest.approx(5, abs=0.1), "the fullest bin holds the spike"
    assert reading.second_mode == pytest.approx(0, abs=0.3), "though smoothed, the broad hump is the higher one"


@pytest.mark.parametrize("bins", [30, 100, 300])
@pytest.mark.parametrize("share", [0.47, 0.49, 0.5, 0.51])
def test_the_second_mode_is_never_the_peaks_own_hump(bins, share):
    for seed in range(8):
        reading = read(two_bumps(share, rows=2000, seed=seed), bins)
        assert (reading.values["peak"] > 0) != (reading.second_mode > 0), "one hump lies at -2, the other at 2"


@pytest.mark.parametrize("seed", range(5))
def test_one_bump_has_no_second_mode(seed):
    generator = np.random.default_rng(seed)
    for sample in (normal(5000, seed), generator.gamma(4, size=5000), generator.exponential(size=5000)):
        assert read(sample).second_mode is None


def test_a_bump_of_a_few_percent_is_no_second_mode():
    assert read(two_bumps(0.03)).second_mode is None


def test_bumps_that_merge_are_one():
    assert read(two_bumps(0.5, distance=0.6)).second_mode is None


def test_peak_range_holds_the_mode_of_a_normal():
    """The range is one of bin centres, hence half a bin of tolerance."""
    held = 0
    for seed in range(20):
        statistics = statistics_of(normal(20_000, seed))
        reading = summarise_neuron(statistics, 0, 0, 0, 100)
        low, high = reading.peak_range
        half = (statistics.high - statistics.low).item() / 200
        held += low - half <= 0 <= high + half
        assert low < high < 1
    assert held >= 18


def test_peak_range_is_that_of_samples_drawn_again():
    sample = normal(3000)
    statistics = statistics_of(sample)
    edges = np.linspace(statistics.low.item(), statistics.high.item(), 51)
    generator, peaks = np.random.default_rng(9), []
    for _ in range(400):
        counts = np.histogram(generator.choice(sample, len(sample)), edges)[0].tolist()
        best = counts.index(max(counts))
        peaks.append((edges[best] + edges[best + 1]) / 2)
    low, high = np.quantile(peaks, [0.025, 0.975])
    got = summarise_neuron(statistics, 0, 0, 0, 50).peak_range
    assert got == pytest.approx((low, high), abs=1.5 * (edges[1] - edges[0]))


def test_a_sharp_peak_is_better_determined_than_a_flat_one():
    flat, sharp = (
        read(np.random.default_rng(0).uniform(-2, 2, 20_000)),
        read(np.random.default_rng(0).laplace(size=20_000)),
    )
    widths = [(reading.peak_range[1] - reading.peak_range[0]) / reading.std for reading in (flat, sharp)]
    assert widths[0] > 1 > 0.3 > widths[1]
    assert "poorly determined" in flat.sentence
    assert "well determined" in sharp.sentence


def test_same_seed_same_reading():
    assert read(normal(500), seed=3) == read(normal(500), seed=3)


@pytest.mark.parametrize("value", [0.7, -2.5, 0.0])
def test_constant_neuron(value):
    reading = read(np.full(777, value))
    assert reading.sentence == f"Constant: {value:.4g} at every position.".replace("-", "−")
    assert reading.values["peak"] == reading.values["mean"] == reading.values["median"] == np.float32(value)
    assert reading.second_mode is None
    assert reading.distance_in_std("peak", "zero") == 0


@pytest.mark.parametrize("value", [-3.3, 0.1, 0.7, 5.0])
def test_constant_neuron_is_not_skewed(value):
    assert read(np.full(777, value)).skew == 0


def test_constant_neurons_peak_range_holds_its_peak():
    reading = read(np.full(777, 2.0))
    assert reading.peak_range[0] <= reading.values["peak"] <= reading.peak_range[1]


def test_constant_neuron_with_broken_values_says_so():
    sample = np.full(100, 2.0)
    sample[:5] = np.nan
    assert "NaN" in read(sample).sentence


def test_a_neuron_without_a_finite_value_is_not_given_a_shape():
    sentence = read(np.full(100, np.nan)).sentence
    assert "NaN" in sentence
    assert "symmetric" not in sentence
    assert "peak lies on" not in sentence


def test_fewer_fine_bins_than_modes_are_sought_in():
    accumulator = Accumulator(1, bins=20)
    accumulator.update(torch.from_numpy(two_bumps(0.4).astype(np.float32))[:, None])
    reading = summarise_neuron(gather_statistics([accumulator], (1,), {}), 0, 0, 0, bins=20)
    assert reading.second_mode == pytest.approx(2, abs=0.6)


def test_apart_is_in_standard_deviations():
    reading = made(values={"zero": 0.0, "mean": 1.0, "median": 2.0, "peak": 4.0}, std=2.0)
    assert reading.distance_in_std("peak", "mean") == 1.5
    assert reading.distance_in_std("mean", "peak") == -1.5
    assert reading.distance_in_std("peak", "zero") == 2


@pytest.mark.parametrize(
    ("skew", "words"),
    [
        (0.0, "Nearly symmetric (skew 0.00)"),
        (-0.2, "Nearly symmetric (skew −0.20)"),
        (0.5, "Skewed to the right (skew +0.50)"),
        (-0.5, "Skewed to the left (skew −0.50)"),
        (1.5, "Strongly skewed to the right (skew +1.50)"),
        (-1.5, "Strongly skewed to the left (skew −1.50)"),
    ],
)
def test_skew_in_words(skew, words):
    assert made(skew=skew).sentence.startswith(words)


def test_peak_in_words():
    values = {"zero": 0.0, "mean": 1.0, "median": 1.0, "peak": -0.5}
    assert "the peak lies 0.75 std below the mean and 0.25 std below zero" in made(values=values, std=2.0).sentence
    values = {"zero": 0.0, "mean": 1.0, "median": 1.0, "peak": 1.01}
    assert "the peak lies on the mean and 1.01 std above zero" in made(values=values).sentence


@pytest.mark.parametrize(
    ("peak_range", "std", "words"),
    [
        ((-0.1, 0.1), 1.0, "the peak is well determined (95% of resamples: −0.1 to 0.1, 0.20 std wide)"),
        ((-0.1, 0.1), 0.4, "the peak is roughly determined (95% of resamples: −0.1 to 0.1, 0.50 std wide)"),
        ((1.0, 3.0), 2.0, "the peak is poorly determined (95% of resamples: 1 to 3, 1.00 std wide)"),
    ],
)
def test_how_well_the_peak_is_determined_in_words(peak_range, std, words):
    assert words in made(peak_range=peak_range, std=std).sentence


def test_second_mode_and_broken_values_are_named_only_where_there_are_some():
    assert made(second_mode=2.5).sentence.startswith("Two humps, near 0 and 2.5 (skew 0.00); ")
    assert "Two humps, near −2.5 and 0 " in made(second_mode=-2.5).sentence
    assert "symmetric" not in made(second_mode=2.5).sentence, "one word for two humps, whatever their balance"
    assert "1,234 NaN or infinite values were excluded" in made(not_finite=1234).sentence
    assert "humps" not in made().sentence
    assert "NaN" not in made().sentence


def test_peak_distance_is_signed_and_in_standard_deviations():
    gamma, _ = SKEWED["gamma"]
    distance = peak_distance(statistics_of(gamma, -gamma, np.full(20_000, 3.0)), 100)[0, 0]
    assert distance[0] == pytest.approx(-0.5, abs=0.25)  # the mode 3, the mean 4, the std 2
    assert distance[1] == pytest.approx(0.5, abs=0.25)
    assert distance[2] == 0
