"""Streaming statistics, compared with numpy on the same values all at once."""

import dataclasses
import hashlib
from bisect import bisect_right
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation_core.activations.accumulator import CALIBRATION, MARGIN, ROWS_AT_ONCE, Accumulator, _fine_bins, _quantiles
from ablation_core.activations.collect import gather_statistics
from ablation_core.activations.made_from import BINNINGS as WAYS
from ablation_core.activations.made_from import FINE_BINS, FORMAT_VERSION, check_made_from
from ablation_core.activations.statistics import Statistics
from ablation_core.errors import StatisticsError

BINNINGS = (600, 100, 64, 7)
CHUNKS = (1, 333, 7, 1023, 64, 2)


def normal(rows: int, width: int = 3, seed: int = 0) -> np.ndarray:
    """Rows of normal variables of other means and spreads, float32."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(rows, width)) * np.geomspace(0.05, 20, width) + np.linspace(-5, 3, width)
    return values.astype(np.float32)


def chunked(values: np.ndarray, sizes: tuple[int, ...]) -> list[np.ndarray]:
    """The rows in pieces of these sizes, over and over."""
    parts, start = [], 0
    while start < len(values):
        parts.append(values[start : start + sizes[len(parts) % len(sizes)]])
        start += len(parts[-1])
    return parts


def accumulated(values: np.ndarray, sizes: tuple[int, ...] = CHUNKS, **options) -> Accumulator:
    accumulator = Accumulator(values.shape[1], **options)
    for part in chunked(values, sizes):
        accumulator.update(torch.from_numpy(np.array(part)))
    return accumulator


def statistics_of(values: np.ndarray, sizes: tuple[int, ...] = CHUNKS, **options) -> Statistics:
    """Statistics of one head whose neurons are the columns."""
    return gather_statistics([accumulated(values, sizes, **options)], (1,), {})


def span(values: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Each column's least and greatest value, as histogram limits."""
    return torch.from_numpy(values.min(0).astype(float)), torch.from_numpy(values.max(0).astype(float))


def centre_of_fullest(counts: np.ndarray, edges: np.ndarray) -> float:
    best = max(range(len(counts)), key=lambda place: (counts[place], -place))
    return (edges[best] + edges[best + 1]) / 2


def test_moments_and_extremes_are_numpys():
    values = normal(4321)
    statistics = statistics_of(values)
    exact = values.astype(np.float64)
    np.testing.assert_array_equal(statistics.count, np.full((1, 1, 3), 4321))
    np.testing.assert_allclose(statistics.mean[0, 0], exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.std[0, 0], exact.std(0), rtol=1e-6)
    np.testing.assert_array_equal(statistics.minimum[0, 0], values.min(0))
    np.testing.assert_array_equal(statistics.maximum[0, 0], values.max(0))


def test_std_is_the_populations():
    statistics = statistics_of(np.array([[1], [2], [4]], dtype=np.float32))
    assert statistics.std.item() == pytest.approx((14 / 9) ** 0.5, rel=1e-6)


def test_every_array_is_float32_but_limits_and_counts():
    statistics = statistics_of(normal(50))
    wide = {"low": np.float64, "high": np.float64, "counts": np.int64}
    for name in ("count", "mean", "std", "minimum", "maximum", "not_finite", "low", "high", "counts"):
        assert getattr(statistics, name).dtype == wide.get(name, np.float32)


@given(
    rows=st.integers(1, 300),
    cuts=st.lists(st.integers(1, 120), min_size=1, max_size=6),
    offset=st.floats(-100, 100),
    scale=st.floats(1e-3, 1e3),
    broken=st.floats(0, 0.3),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=60)
def test_merged_moments_are_those_of_the_whole(rows, cuts, offset, scale, broken, seed):
    generator = np.random.default_rng(seed)
    values = (generator.normal(size=(rows, 2)) * scale + offset).astype(np.float32)
    values[generator.random(values.shape) < broken] = generator.choice([np.nan, np.inf, -np.inf])
    statistics = statistics_of(values, tuple(cuts))
    for column in range(2):
        kept = values[np.isfinite(values[:, column]), column].astype(np.float64)
        at = (0, 0, column)
        assert statistics.count[at] == len(kept)
        assert statistics.not_finite[at] == rows - len(kept)
        if len(kept):
            size = abs(offset) + scale
            assert statistics.mean[at] == pytest.approx(kept.mean(), rel=1e-6, abs=1e-6 * size)
            assert statistics.std[at] == pytest.approx(kept.std(), rel=1e-4, abs=1e-7 * size)
            assert (statistics.minimum[at], statistics.maximum[at]) == (kept.min(), kept.max())
        else:
            assert np.isnan([statistics.mean[at], statistics.std[at], statistics.peak()[at]]).all()


@pytest.mark.parametrize("scale", [1e20, 1e-25])
def test_std_of_values_whose_square_no_float32_holds(scale):
    values = (np.random.default_rng(0).normal(size=(500, 1)) * scale).astype(np.float32)
    assert statistics_of(values).std.item() == pytest.approx(values.astype(np.float64).std(), rel=1e-4, abs=0)


@pytest.mark.parametrize("bins", BINNINGS)
def test_histogram_is_numpys_at_the_same_edges(bins):
    values = normal(5000)
    statistics = statistics_of(values)
    for neuron in range(3):
        edges, counts = statistics.histogram(0, 0, neuron, bins=bins)
        assert (edges.dtype, counts.dtype, len(counts)) == (np.float64, np.int64, bins)
        np.testing.assert_array_equal(counts, np.histogram(values[:, neuron].astype(np.float64), edges)[0])


@pytest.mark.parametrize("bins", BINNINGS)
def test_edges_span_the_range_in_whole_fine_bins(bins):
    statistics = statistics_of(normal(2000, width=1))
    low, high = statistics.low.item(), statistics.high.item()
    edges, _ = statistics.histogram(0, 0, 0, bins=bins)
    fine = (edges - low) / (high - low) * 600
    assert (edges[0], edges[-1]) == (low, pytest.approx(high))
    np.testing.assert_allclose(fine, fine.round(), atol=1e-9)
    assert set(np.diff(fine.round())) <= {600 // bins, 600 // bins + (600 % bins > 0)}


def test_range_is_that_of_the_first_rows():
    values = normal(3000)
    values[CALIBRATION:] *= 3
    statistics = statistics_of(values)
    low, high = np.quantile(values[:CALIBRATION].astype(np.float64), [0.005, 0.995], axis=0)
    np.testing.assert_allclose(statistics.low[0, 0], low - 0.35 * (high - low), rtol=1e-12)
    np.testing.assert_allclose(statistics.high[0, 0], high + 0.35 * (high - low), rtol=1e-12)


def test_given_limits_are_kept():
    values = normal(1500)
    statistics = statistics_of(values, limits=(torch.full((3,), -1.0).double(), torch.full((3,), 2.0).double()))
    assert (statistics.low == -1).all()
    assert (statistics.high == 2).all()
    for neuron in range(3):
        column = values[:, neuron].astype(np.float64)
        edges, counts = statistics.histogram(0, 0, neuron, bins=600)
        np.testing.assert_array_equal(counts, np.histogram(column, edges)[0])
        assert statistics.counts[0, 0, neuron, 0] == (column < -1).sum()
        assert statistics.counts[0, 0, neuron, -1] == (column > 2).sum()
        assert statistics.outside()[0, 0, neuron] == pytest.approx(((column < -1) | (column > 2)).mean())


@pytest.mark.parametrize("sizes", [(1,), (7,), (1023,), (1024,), (1025, 3), (100_000,)])
def test_chunks_do_not_matter(sizes):
    values = normal(2500)
    values[::97, 1] = np.nan
    one, other = statistics_of(values, CHUNKS), statistics_of(values, sizes)
    for name in ("count", "not_finite", "minimum", "maximum", "low", "high", "counts"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-6)
    np.testing.assert_allclose(one.std, other.std, rtol=1e-6)


def test_empty_chunks_change_nothing():
    values = normal(300)
    accumulator = accumulated(values)
    accumulator.update(torch.empty(0, 3))
    assert gather_statistics([accumulator], (1,), {}).digest == statistics_of(values).digest


def test_rows_are_neither_altered_nor_kept():
    rows = torch.from_numpy(normal(100))
    before = rows.clone()
    accumulator = Accumulator(3)
    accumulator.update(rows)
    assert torch.equal(rows, before)
    rows.fill_(1e6)  # as a model that reuses its buffers would
    statistics = gather_statistics([accumulator], (1,), {})
    assert statistics.digest == statistics_of(before.numpy()).digest


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_taken_as_float32(dtype):
    rows = torch.from_numpy(normal(1500)).to(dtype)
    accumulator = Accumulator(3)
    accumulator.update(rows)
    statistics = gather_statistics([accumulator], (1,), {})
    exact = rows.float().double().numpy()
    np.testing.assert_allclose(statistics.mean[0, 0], exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.std[0, 0], exact.std(0), rtol=1e-6)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.75, 0.95])
def test_quantiles_lie_within_a_fine_bin_of_numpys(share):
    values = normal(8000)
    statistics = statistics_of(values)
    width = (statistics.high - statistics.low)[0, 0] / 600
    expected = np.quantile(values.astype(np.float64), share, axis=0)
    assert (np.abs(statistics.quantile(share)[0, 0] - expected) <= width).all()
    if share == 0.5:
        np.testing.assert_array_equal(statistics.median(), statistics.quantile(0.5))


def test_extreme_quantiles_are_the_extremes():
    values = normal(3000)
    values[2000] = 1e4
    values[2001] = -1e4
    statistics = statistics_of(values)
    np.testing.assert_array_equal(statistics.quantile(0), statistics.minimum)
    np.testing.assert_array_equal(statistics.quantile(1), statistics.maximum)


def test_a_quantile_beyond_the_range_lies_between_its_end_and_the_extreme():
    values = normal(3000, width=1)
    values[CALIBRATION : CALIBRATION + 600] = 1e4
    statistics = statistics_of(values)
    assert statistics.high.item() < statistics.quantile(0.95).item() <= 1e4
    assert statistics.quantile(0.5).item() < statistics.high.item()


@pytest.mark.parametrize("bins", BINNINGS)
def test_peak_is_the_centre_of_the_densest_bin_counted_by_hand(bins):
    values = normal(3000)
    statistics = statistics_of(values)
    for neuron in range(3):
        low, high = statistics.low[0, 0, neuron], statistics.high[0, 0, neuron]
        fine = [low + (high - low) * edge / 600 for edge in range(601)]
        steps = [round(600 * edge / bins) for edge in range(bins + 1)]
        counts = [0] * bins
        for value in map(float, values[:, neuron]):
            if fine[0] <= value < fine[600]:
                counts[bisect_right(steps, bisect_right(fine, value) - 1) - 1] += 1
        density = [count / (steps[place + 1] - steps[place]) for place, count in enumerate(counts)]
        best = density.index(max(density))
        expected = (fine[steps[best]] + fine[steps[best + 1]]) / 2
        assert statistics.peak(bins)[0, 0, neuron] == pytest.approx(expected, rel=1e-6)


def test_the_lowest_of_equally_full_bins_is_the_peak():
    values = np.repeat(np.array([[0.5], [7.5], [3.5], [10], [0]], dtype=np.float32), [4, 4, 4, 1, 1], axis=0)
    statistics = statistics_of(values, limits=(torch.zeros(1).double(), torch.full((1,), 10.0).double()))
    assert statistics.peak(10).item() == pytest.approx(0.5)
    counts = statistics.histogram(0, 0, 0, bins=10)[1]
    np.testing.assert_array_equal(counts, [5, 0, 0, 4, 0, 0, 0, 4, 0, 1])


@pytest.mark.parametrize("seed", range(5))
def test_between_its_extremes_the_binning_is_the_papers(seed):
    """The paper takes the fullest of numpy's 100 bins from the least to the greatest value."""
    values = normal(2000, width=8, seed=seed)
    statistics = statistics_of(values, limits=span(values))
    for neuron in range(8):
        counts, edges = np.histogram(values[:, neuron].astype(np.float64), bins=100)
        np.testing.assert_array_equal(statistics.histogram(0, 0, neuron, bins=100)[1], counts)
        expected = centre_of_fullest(counts, edges)
        assert statistics.peak(100)[0, 0, neuron] == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert (statistics.outside() == 0).all()


def test_the_greatest_value_lies_in_the_last_bin():
    values = np.array([[0], [1], [3], [3]], dtype=np.float32)
    statistics = statistics_of(values, limits=span(values))
    np.testing.assert_array_equal(statistics.histogram(0, 0, 0, bins=3)[1], [1, 1, 2])


@pytest.mark.parametrize("bins", [600, 100])
def test_values_on_an_edge_lie_above_it(bins):
    """Of the integers 0 … n, over n, those lie on an edge that are a whole number of bins from 0."""
    wrong = []
    for greatest in range(1, 101):
        values = np.arange(greatest + 1, dtype=np.float32)[:, None]
        edges, counts = statistics_of(values, limits=span(values)).histogram(0, 0, 0, bins=bins)
        if not np.array_equal(counts, np.histogram(values[:, 0].astype(np.float64), edges)[0]):
            wrong.append(greatest)
    assert not wrong, f"counted in the wrong bins: 0 … {wrong}"


def test_values_that_rounding_moves_over_an_edge_are_moved_back_either_way():
    """Each value is within a rounding of an edge of its neuron's range; binned by the edges, one by one."""
    generator, count = np.random.default_rng(0), 20_000
    values = generator.normal(size=count).astype(np.float32)
    spans, places = generator.uniform(0.5, 20, count), generator.integers(1, FINE_BINS, count)
    low = values.astype(np.float64) - spans * places / FINE_BINS
    high = low + spans
    edges = low[:, None] + (high - low)[:, None] * np.arange(FINE_BINS + 1) / FINE_BINS
    wanted = (edges <= values[:, None]).sum(1) - 1
    quotients = np.floor((values.astype(np.float64) - low) * (FINE_BINS / (high - low)))
    assert min((quotients < wanted).sum(), (quotients > wanted).sum()) > 100, "no test of both ways"
    found = _fine_bins(*map(torch.from_numpy, (values[None], low, high)), FINE_BINS)
    np.testing.assert_array_equal(found[0], wanted)


def test_every_figure_of_a_neuron_is_single_precision():
    statistics = statistics_of(normal(500))
    figures = {
        "peak": statistics.peak(),
        "median": statistics.median(),
        "quantile": statistics.quantile(0.1),
        "outside": statistics.outside(),
    } | {name: getattr(statistics, name) for name in ("mean", "std", "minimum", "maximum")}
    assert {name: figure.dtype for name, figure in figures.items()} == dict.fromkeys(figures, np.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_values_lie_in_numpys_bins(dtype):
    rows = torch.from_numpy(np.random.default_rng(1).normal(size=(3000, 100))).to(dtype)
    values = rows.float().numpy()
    statistics = statistics_of(values, (3000,), limits=span(values))
    wrong = 0
    for neuron in range(100):
        edges, counts = statistics.histogram(0, 0, neuron, bins=100)
        wrong += not np.array_equal(counts, np.histogram(values[:, neuron].astype(np.float64), edges)[0])
    assert not wrong, f"{wrong} of 100 histograms differ"


def test_nan_and_infinity_are_counted_and_in_nothing_else():
    clean = normal(3000)
    broken = np.array(clean)
    for start, value in ((0, np.nan), (1, np.inf), (2, -np.inf)):
        broken[start::50] = value
    statistics = statistics_of(broken)
    kept = broken[np.isfinite(broken[:, 0])].astype(np.float64)
    assert (statistics.not_finite == 180).all()
    assert (statistics.count == 2820).all()
    np.testing.assert_allclose(statistics.mean[0, 0], kept.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.std[0, 0], kept.std(0), rtol=1e-6)
    np.testing.assert_array_equal(statistics.minimum[0, 0], kept.min(0))
    np.testing.assert_array_equal(statistics.maximum[0, 0], kept.max(0))
    np.testing.assert_array_equal(statistics.counts.sum(-1), statistics.count)
    for neuron in range(3):
        edges, counts = statistics.histogram(0, 0, neuron)
        np.testing.assert_array_equal(counts, np.histogram(kept[:, neuron], edges)[0])
        assert statistics.counts[0, 0, neuron, 0] == (kept[:, neuron] < edges[0]).sum()
        assert statistics.counts[0, 0, neuron, -1] == (kept[:, neuron] > edges[-1]).sum()
    calibrating = broken[:CALIBRATION].astype(np.float64)
    calibrating[~np.isfinite(calibrating)] = np.nan
    low, high = np.nanquantile(calibrating, [0.005, 0.995], axis=0)
    np.testing.assert_allclose(statistics.low[0, 0], low - 0.35 * (high - low), rtol=1e-12)


def test_a_broken_neuron_leaves_the_others_alone():
    values = normal(1500)
    broken = np.array(values)
    broken[:, 1] = np.nan
    statistics, clean = statistics_of(broken), statistics_of(values)
    assert (statistics.not_finite[0, 0] == [0, 1500, 0]).all()
    assert (statistics.count[0, 0] == [1500, 0, 1500]).all()
    for array in (statistics.mean, statistics.std, statistics.peak(), statistics.median()):
        np.testing.assert_array_equal(np.isnan(array[0, 0]), [False, True, False])
    for name in ("peak", "median"):
        np.testing.assert_array_equal(getattr(statistics, name)()[0, 0, [0, 2]], getattr(clean, name)()[0, 0, [0, 2]])
    np.testing.assert_array_equal(statistics.counts[0, 0, 1], 0)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3, 1e-9, 12345.678])
@pytest.mark.parametrize("rows", [1, 700, 2500])
def test_constant_neuron(value, rows):
    value = np.float32(value)
    statistics = statistics_of(np.full((rows, 1), value))
    assert statistics.std.item() == 0
    for number in (statistics.mean, statistics.peak(), statistics.peak(7), statistics.median()):
        assert number.item() == value
    assert statistics.counts.sum() == rows
    assert statistics.outside().item() == 0
    assert statistics.low.item() < value < statistics.high.item()


def test_constant_neuron_between_its_extremes():
    values = np.full((20, 1), 0.7, dtype=np.float32)
    statistics = statistics_of(values, limits=span(values))
    assert statistics.peak().item() == np.float32(0.7)
    assert statistics.median().item() == np.float32(0.7)
    assert statistics.histogram(0, 0, 0)[1].sum() == 20


@pytest.mark.parametrize("rows", [1, 2, 10, CALIBRATION - 1])
def test_fewer_rows_than_calibrate(rows):
    values = normal(rows)
    statistics = statistics_of(values)
    low, high = np.quantile(values.astype(np.float64), [0.005, 0.995], axis=0)
    if rows > 1:
        np.testing.assert_allclose(statistics.low[0, 0], low - 0.35 * (high - low), rtol=1e-12)
        np.testing.assert_allclose(statistics.high[0, 0], high + 0.35 * (high - low), rtol=1e-12)
    for neuron in range(3):
        edges, counts = statistics.histogram(0, 0, neuron)
        np.testing.assert_array_equal(counts, np.histogram(values[:, neuron].astype(np.float64), edges)[0])
    assert (statistics.counts.sum(-1) == rows).all()


def test_no_rows_at_all():
    statistics = gather_statistics([Accumulator(3)], (1,), {})
    assert (statistics.count == 0).all()
    assert (statistics.counts == 0).all()
    assert (statistics.outside() == 0).all()
    for array in (statistics.mean, statistics.std, statistics.peak(), statistics.median(), statistics.quantile(0.9)):
        assert np.isnan(array).all()


def test_missing_heads_are_nan():
    first, second = normal(1100, width=8), normal(1100, width=12, seed=1)
    statistics = gather_statistics([accumulated(first), accumulated(second)], (2, 3), {"made": "here"})
    assert statistics.mean.shape == (2, 3, 4)
    assert statistics.counts.shape == (2, 3, 4, 602)
    floats = ("mean", "std", "minimum", "maximum", "low", "high")
    for array in [*(getattr(statistics, name) for name in floats), statistics.peak(), statistics.median()]:
        np.testing.assert_array_equal(np.argwhere(np.isnan(array)), [[0, 2, neuron] for neuron in range(4)])
    for array in (statistics.count, statistics.not_finite, statistics.counts, statistics.outside()):
        assert (array[0, 2] == 0).all()
    np.testing.assert_allclose(statistics.mean[0, :2], first.mean(0, dtype=float).reshape(2, 4), rtol=1e-6)
    np.testing.assert_allclose(statistics.std[1], second.std(0, dtype=float).reshape(3, 4), rtol=1e-6)
    edges, counts = statistics.histogram(1, 2, 3)
    np.testing.assert_array_equal(counts, np.histogram(second[:, 11].astype(np.float64), edges)[0])
    assert statistics.provenance == {"made": "here"}


@pytest.mark.parametrize("first", [0, CALIBRATION])
def test_outliers_are_counted_outside_and_do_not_stretch_the_range(first):
    values = normal(4000, width=1)
    values[first : first + 3] = 1e6
    values[first + 3 : first + 5] = -1e6
    statistics = statistics_of(values)
    clean = np.delete(values, range(first, first + 5), axis=0)
    assert statistics.high.item() - statistics.low.item() < 3 * np.ptp(clean)
    assert (statistics.counts[0, 0, 0, 0], statistics.counts[0, 0, 0, -1]) == (2, 3)
    assert statistics.outside().item() == pytest.approx(5 / 4000)
    assert (statistics.minimum.item(), statistics.maximum.item()) == (-1e6, 1e6)
    assert abs(statistics.peak().item() - clean.mean()) < 2 * clean.std()


@pytest.mark.parametrize("bins", [-1, 0, 601, 10_000])
def test_bins_out_of_range_are_refused(bins):
    statistics = statistics_of(normal(10))
    with pytest.raises(StatisticsError, match=f"between 1 and 600 bins here, not {bins}"):
        statistics.peak(bins)
    with pytest.raises(StatisticsError, match=f"between 1 and 600 bins here, not {bins}"):
        statistics.histogram(0, 0, 0, bins=bins)


def test_the_number_of_fine_bins_can_be_chosen():
    values = normal(2000)
    statistics = statistics_of(values, bins=37)
    assert statistics.bins == 37
    edges, counts = statistics.histogram(0, 0, 1, bins=37)
    np.testing.assert_array_equal(counts, np.histogram(values[:, 1].astype(np.float64), edges)[0])
    with pytest.raises(StatisticsError):
        statistics.peak(100)


def test_peaks_of_known_distributions_lie_near_their_modes():
    generator = np.random.default_rng(3)
    gamma = generator.gamma(3, size=100_000)  # mode 2, mean 3
    bump = np.where(generator.random(100_000) < 0.7, -2, 2) + generator.normal(size=100_000) * 0.5  # mode -2, mean -0.8
    left = -generator.exponential(size=100_000)  # mode 0, mean -1
    statistics = statistics_of(np.stack([gamma, bump, left], axis=1).astype(np.float32), (10_000,))
    np.testing.assert_allclose(statistics.peak(100)[0, 0], [2, -2, 0], atol=0.4)
    np.testing.assert_allclose(statistics.peak(60)[0, 0], [2, -2, 0], atol=0.4)


def test_peak_where_the_first_rows_were_all_missing():
    values = np.full((CALIBRATION + 5000, 1), np.nan, dtype=np.float32)
    values[CALIBRATION:] = np.random.default_rng(0).normal(size=(5000, 1)) + 3
    peak = statistics_of(values).peak().item()
    assert np.isnan(peak) or 2 < peak < 4


FIELDS = ("count", "mean", "std", "minimum", "maximum", "not_finite", "low", "high", "counts")


def test_digest_covers_every_number_and_the_provenance():
    statistics = statistics_of(normal(50))
    digests = {statistics.digest, dataclasses.replace(statistics, provenance={"other": 1}).digest}
    for name in FIELDS:
        array = getattr(statistics, name).copy()
        array.flat[-1] += 1
        digests.add(dataclasses.replace(statistics, **{name: array}).digest)
    assert len(digests) == 2 + len(FIELDS)
    assert dataclasses.replace(statistics, provenance={}).digest == statistics.digest


@given(
    bins=st.sampled_from([1, 7, 128, 600]),
    offset=st.sampled_from([0.0, 1.0, -300.0, 1e5]),
    scale=st.floats(1e-3, 1e3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=80)
def test_every_value_is_in_the_bin_that_its_edges_say(bins, offset, scale, dtype, seed):
    """Among them values next to edges, on them, at both ends, far outside, NaN and infinite; against a binary search."""
    generator = np.random.default_rng(seed)
    low, high = offset - scale, offset + scale * 1.37
    edges = low + (high - low) * np.arange(bins + 1) / bins
    picked = generator.choice(edges, 60).astype(np.float32)
    rows = np.concatenate(
        [
            generator.uniform(low - scale / 9, high + scale / 9, 200).astype(np.float32),
            picked,
            np.nextafter(picked, np.float32(np.inf)),
            np.nextafter(picked, np.float32(-np.inf)),
            np.array([low, high, 1e30, -1e30, np.nan, np.inf, -np.inf], np.float32),
        ]
    )
    rows = torch.from_numpy(rows).to(dtype).float()
    # One neuron has these values; the other only ordinary ones, so that it goes the quick way.
    plain = torch.from_numpy(generator.uniform(low, high, len(rows)).astype(np.float32))
    limits = (torch.full((2,), low, dtype=torch.float64), torch.full((2,), high, dtype=torch.float64))
    place = _fine_bins(torch.stack([rows, plain], 1), *limits, bins).numpy()
    for neuron, column in enumerate((rows.double().numpy(), plain.double().numpy())):
        expected = np.clip(np.searchsorted(edges, column, side="right") - 1, -1, bins)
        expected = np.where(column == edges[-1], bins - 1, expected)
        known = ~np.isnan(column)
        np.testing.assert_array_equal(place[known, neuron], expected[known])
    assert (place[np.isnan(rows.numpy()), 0] == 0).all()


@pytest.mark.parametrize("rows", [ROWS_AT_ONCE - 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 3 * ROWS_AT_ONCE + 5])
def test_rows_given_at_once_may_be_any_number(rows):
    values = normal(rows)
    values[5::50, 1] = np.nan
    statistics = statistics_of(
        values, (rows,), limits=(torch.full((3,), -9.0).double(), torch.full((3,), 9.5).double())
    )
    for neuron in range(3):
        kept = values[np.isfinite(values[:, neuron]), neuron].astype(np.float64)
        edges, counts = statistics.histogram(0, 0, neuron, bins=600)
        np.testing.assert_array_equal(counts, np.histogram(kept, edges)[0])
        assert statistics.count[0, 0, neuron] == len(kept)
        assert statistics.std[0, 0, neuron] == pytest.approx(kept.std(), rel=1e-6)


def test_quantiles_of_the_first_rows_are_numpys():
    values = normal(777, width=5)
    values[::3, 1] = np.nan
    values[::2, 2] = np.inf
    values[:, 3] = -np.inf
    values[1:, 4] = np.nan
    found = torch.stack(_quantiles(torch.from_numpy(values), (0.005, 0.3, 0.995))).numpy()
    for neuron in (0, 1, 2, 4):
        kept = values[np.isfinite(values[:, neuron]), neuron].astype(np.float64)
        np.testing.assert_allclose(found[:, neuron], np.quantile(kept, (0.005, 0.3, 0.995)), rtol=1e-12)
    assert (found[:, 3] == 0).all()


def test_memory_does_not_grow_with_the_rows():
    accumulator = Accumulator(4)
    sizes = set()
    for _ in range(6):
        accumulator.update(torch.from_numpy(normal(2 * CALIBRATION, width=4)))
        held = [value for value in vars(accumulator).values() if isinstance(value, torch.Tensor)]
        sizes.add((sum(value.nbytes for value in held), len(accumulator._waiting)))
    assert len(sizes) == 1


def test_what_the_files_and_the_readme_say_of_the_bins():
    assert (FINE_BINS, CALIBRATION, MARGIN) == (600, 1024, 0.35)
    assert (WAYS, FORMAT_VERSION) == (("robust", "min-max"), 1)
    assert (statistics_of(normal(5)).bins, Accumulator(2).counts.shape) == (600, (2, 602))


TEN = (torch.zeros(1, dtype=torch.float64), torch.full((1,), 10.0, dtype=torch.float64))  # bins of width 1


def of_ten_bins(*values: float) -> Statistics:
    return statistics_of(np.array(values, dtype=np.float32)[:, None], limits=TEN, bins=10)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0, -4),  # the least value
        (0.05, -2),  # half way from the least value to the range's beginning: half of the one value below
        (0.1, 0),
        (0.15, 2.25),  # the first of the two in bin 2: a quarter of the way, since half a value is wanted
        (0.2, 2.5),
        (0.3, 3),  # up to here there are three: the end of bin 2, not the beginning of the next full one
        (0.4, 7.25),
        (0.7, 8),
        (0.75, 8.5),  # the single value in bin 8 counts as spread over it
        (0.8, 9),
        (0.85, 10 + 11 / 4),  # the bin of the two above the range reaches from its end, 10, to the greatest value
        (1, 21),
    ],
)
def test_quantiles_by_hand(share, expected):
    """Of one value below the range, two in bin 2, four in bin 7, one in bin 8 and two above."""
    statistics = of_ten_bins(-4, 2.5, 2.6, 7.1, 7.2, 7.3, 7.4, 8.9, 11, 21)
    assert statistics.quantile(share).item() == pytest.approx(expected, rel=1e-6)


def test_no_quantile_lies_beyond_the_extremes():
    statistics = of_ten_bins(3.25, 3.5)
    assert [statistics.quantile(share).item() for share in (0, 0.1, 0.4, 0.9, 1)] == pytest.approx(
        [3.25, 3.25, 3.4, 3.5, 3.5]
    )


def test_the_peak_needs_one_value_within_the_range():
    assert of_ten_bins(4.2, 99).peak(10).item() == 4.5
    assert np.isnan(of_ten_bins(-1, 99).peak(10)).all()
    assert of_ten_bins(99, 99).peak(10).item() == 99


def test_a_single_value_outside_is_all_there_is():
    assert of_ten_bins(99).outside().item() == 1
    assert of_ten_bins(99, 1, 2, -5).outside().item() == 0.5


def test_a_hundred_bins_are_usual_and_one_is_the_whole_range():
    statistics = statistics_of(normal(2000))
    np.testing.assert_array_equal(statistics.peak(), statistics.peak(100))
    edges, counts = statistics.histogram(0, 0, 1)
    assert (len(edges), len(counts)) == (101, 100)
    edges, counts = statistics.histogram(0, 0, 1, bins=1)
    assert edges.tolist() == pytest.approx([statistics.low[0, 0, 1], statistics.high[0, 0, 1]], rel=1e-12)
    assert counts.tolist() == [statistics.counts[0, 0, 1, 1:-1].sum()]
    np.testing.assert_allclose(statistics.peak(1)[0, 0], (statistics.low + statistics.high)[0, 0] / 2, rtol=1e-6)


@pytest.mark.parametrize(("value", "size"), [(0.0, 1e-6), (1e-9, 1e-6), (2e-6, 2e-6), (-3.0, 3.0), (500.0, 500.0)])
def test_a_neuron_that_has_not_moved_yet_has_a_range_of_its_own_size(value, size):
    value = float(np.float32(value))
    statistics = statistics_of(np.full((3, 1), value, dtype=np.float32))
    reach = 0.35 * 0.1 * max(abs(value), 1e-6)
    assert reach == pytest.approx(0.035 * size)
    assert statistics.low.item() == pytest.approx(value - reach, rel=1e-12, abs=1e-20)
    assert statistics.high.item() == pytest.approx(value + reach, rel=1e-12, abs=1e-20)


def test_without_rows_there_is_a_range_of_no_width():
    statistics = gather_statistics([Accumulator(3), accumulated(normal(40))], (1, 1), {})
    for limit in (statistics.low, statistics.high):
        assert limit.dtype == np.float64
        np.testing.assert_array_equal(limit[0, 0], np.zeros(3))
    assert np.isnan(statistics.minimum[0]).all()
    assert np.isnan(statistics.maximum[0]).all()
    np.testing.assert_allclose(statistics.mean[1, 0], normal(40).mean(0), rtol=1e-5)


def test_counts_are_whole_numbers_that_no_float32_holds():
    accumulator = accumulated(normal(2))
    accumulator.count += 2**24
    accumulator.not_finite += 2**24
    accumulator.update(torch.tensor([[1.0, 2.0, torch.nan]]))
    assert accumulator.count.tolist() == [2**24 + 3, 2**24 + 3, 2**24 + 2]
    assert accumulator.not_finite.tolist() == [2**24, 2**24, 2**24 + 1]


def test_digest_is_short_and_blind_to_the_order_of_the_provenance():
    statistics = statistics_of(normal(50))
    one = dataclasses.replace(statistics, provenance={"a": 1, "b": 2}).digest
    other = dataclasses.replace(statistics, provenance={"b": 2, "a": 1}).digest
    assert one == other
    assert len(one) == 16
    assert int(one, 16) >= 0


def test_digest_is_the_sha256_of_the_provenance_and_the_arrays_in_order():
    statistics = statistics_of(normal(50))
    content = b"{}" + b"".join(np.ascontiguousarray(getattr(statistics, name)).tobytes() for name in FIELDS)
    assert statistics.digest == hashlib.sha256(content).hexdigest()[:16]


def test_a_value_on_an_edge_that_rounding_has_moved_lies_where_the_edge_is():
    """Far from zero an edge is rounded by more than the quotient that tells a value's bin."""
    low, step = 100_000.0, 0.0078125  # of float32 there
    limits = torch.tensor([low], dtype=torch.float64), torch.tensor([low + 600 * (step + 3e-12)], dtype=torch.float64)
    edges = low + (limits[1].item() - low) * np.arange(601) / 600
    assert edges[1] == low + step and (limits[1] - limits[0]).item() / 600 > step
    place = _fine_bins(torch.tensor([[low + step]]), *limits, 600)
    assert place.item() == np.searchsorted(edges, low + step, side="right") - 1 == 1


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_looking_before_the_range_is_fixed_changes_nothing_later(looks):
    values = normal(1700)
    accumulator = Accumulator(3)
    for part in np.array_split(values, 17):
        accumulator.update(torch.from_numpy(part))
        for _ in range(looks):
            seen = gather_statistics([accumulator], (1,), {})
        assert (seen.counts.sum(-1) == seen.count).all()
    assert seen.digest == statistics_of(values, (100,)).digest


def test_statistics_belong_to_the_weights_and_the_precision_they_were_made_from():
    model = SimpleNamespace(ref="opt-mini", fingerprint="abc", dtype="float32")
    made = {"model": "opt-mini", "model_fingerprint": "abc", "dtype": "float32"}
    check_made_from(made, model, "These statistics")
    for field, other in (("model_fingerprint", "abd"), ("dtype", "bfloat16")):
        with pytest.raises(StatisticsError, match=f"^These statistics .*{field}"):
            check_made_from(made | {field: other}, model, "These statistics")
