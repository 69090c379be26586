"""All neurons at once, against the reading of each and against plain resampling; positions against a plain loop."""

import numpy as np
import pytest
import torch

from ablation_core import load_data, load_statistics
from ablation_core.activations.all_neurons import peak_ranges, summarise_all_neurons
from ablation_core.activations.by_position import by_position
from ablation_core.activations.collect import gather_statistics
from ablation_core.activations.files import find_statistics
from ablation_core.activations.neuron_summary import summarise_neuron
from ablation_core.models.loaded import LoadedModel
from ablation_core.report.distribution_frames import (
    ODDITIES,
    all_neurons_frame,
    density_frame,
    moves_sentence,
    position_frame,
    two_sets_frames,
)
from tests.activations.test_neuron_summary import normal, statistics_of, two_bumps

SAMPLES = (normal(), np.random.default_rng(1).gamma(4, size=20_000), two_bumps(0.4), np.full(500, 2.5), normal(300, 3))


def padded() -> list[np.ndarray]:
    return [np.resize(sample, 20_000) for sample in SAMPLES]


def test_figures_are_those_of_each_neurons_reading() -> None:
    statistics = statistics_of(*padded())
    shapes = summarise_all_neurons(statistics, 100)
    for neuron in range(len(SAMPLES)):
        reading = summarise_neuron(statistics, 0, 0, neuron, 100)
        assert shapes.skew[0, 0, neuron] == pytest.approx(reading.skew, abs=1e-3)
        assert shapes.peak_mean[0, 0, neuron] == pytest.approx(reading.distance_in_std("peak", "mean"), abs=1e-4)
        assert shapes.peak_zero[0, 0, neuron] == pytest.approx(
            reading.distance_in_std("peak", "zero"), rel=1e-4, abs=1e-5
        )
        assert shapes.mean_zero[0, 0, neuron] == pytest.approx(
            reading.distance_in_std("mean", "zero"), rel=1e-4, abs=1e-5
        )
        assert np.isnan(shapes.second_mode[0, 0, neuron]) == (reading.second_mode is None)
        if reading.second_mode is not None:
            second = (reading.second_mode - reading.values["peak"]) / reading.std
            assert shapes.second_mode[0, 0, neuron] == pytest.approx(second, abs=1e-4)
    assert shapes.second_mode[0, 0, 2] == pytest.approx(4 / two_bumps(0.4).std(), rel=0.1), "the bumps lie 4 apart"
    assert shapes.peak_width[0, 0, 3] == 0, "a constant neuron's peak is sure"


@pytest.mark.parametrize("bins", [20, 100])
def test_the_peaks_range_is_that_of_plain_resampling(bins: int) -> None:
    statistics = statistics_of(*padded())
    low, high = peak_ranges(statistics, bins)
    generator = np.random.default_rng(7)
    for neuron in (0, 1, 2, 4):
        edges, counts = statistics.histogram(0, 0, neuron, bins)
        peaks = []
        for _ in range(1500):
            fullest = generator.multinomial(counts.sum(), counts / counts.sum()).argmax()
            peaks.append((edges[fullest] + edges[fullest + 1]) / 2)
        width = edges[1] - edges[0]
        expected = np.quantile(peaks, [0.025, 0.975])
        assert abs(low[0, 0, neuron] - expected[0]) < 1.6 * width
        assert abs(high[0, 0, neuron] - expected[1]) < 1.6 * width


def test_a_layer_with_fewer_heads_has_no_figures_for_the_missing_ones() -> None:
    from ablation_core.activations.accumulator import Accumulator

    layers = [Accumulator(4), Accumulator(2)]
    for layer in layers:
        layer.update(torch.randn(2000, len(layer.count)))
    shapes = summarise_all_neurons(gather_statistics(layers, (2, 1), {}), 50)
    for name in ("peak_mean", "peak_zero", "mean_zero", "skew", "second_mode", "peak_width"):
        assert np.isnan(getattr(shapes, name)[1, 1]).all(), name


def test_the_table_names_every_neuron_once_the_oddest_first(opt_mini: LoadedModel) -> None:
    statistics = load_statistics(find_statistics(opt_mini, "python-docs").path, opt_mini)
    shapes = summarise_all_neurons(statistics, 100)
    for by, (field, title) in ODDITIES.items():
        frame = all_neurons_frame(statistics, shapes, opt_mini.shape, 100, by)
        assert len(set(frame["neuron"])) == opt_mini.shape.neurons == len(frame)
        assert frame.columns[1] == title
        sizes = frame[title].abs().dropna().to_numpy()
        assert (np.diff(sizes) <= 0).all() and frame[title].iloc[: len(sizes)].notna().all()
        layer, rest = frame["neuron"].iloc[3].split(".")
        head, neuron = rest.split(":")
        assert frame[title].iloc[3] == getattr(shapes, field)[int(layer), int(head), int(neuron)]


def test_densities_hold_as_many_positions_as_the_bars() -> None:
    statistics = statistics_of(*padded())
    for neuron in (0, 1, 2):
        edges, counts = statistics.histogram(0, 0, neuron, 100)
        for kind in ("smoothed", "normal"):
            frame = density_frame(statistics, 0, 0, neuron, 100, kind)
            area = np.trapezoid(frame["count"], frame["x"]) / (edges[1] - edges[0])
            assert area == pytest.approx(counts.sum(), rel=0.03), (neuron, kind)
    smooth = density_frame(statistics, 0, 0, 2, 100, "smoothed")
    left, right = smooth[smooth["x"] < 0], smooth[smooth["x"] > 0]
    assert left["x"][left["count"].idxmax()] == pytest.approx(-2, abs=0.2)
    assert right["x"][right["count"].idxmax()] == pytest.approx(2, abs=0.2)
    assert density_frame(statistics, 0, 0, 3, 100, "smoothed").empty, "a constant neuron has no density"


def test_two_data_sets_are_shares_on_the_same_scale() -> None:
    one, other = statistics_of(normal(20_000)), statistics_of(3 * normal(5_000, 1) + 1)
    for statistics, name in ((one, "prose"), (other, "code")):
        statistics.provenance["data"] = name
    bars, moves = two_sets_frames(one, other, 0, 0, 0, 50)
    for name in ("prose", "code"):
        rows = bars[bars["data"] == name]
        area = (rows["share"] * (rows["right"] - rows["left"])).sum()
        assert area == pytest.approx(1, abs=0.02)
    mean = moves.set_index("kind").loc["mean"]
    assert (mean["first"], mean["second"]) == pytest.approx((0, 1), abs=0.2)
    assert mean["distance"] == pytest.approx(1, abs=0.2), "in standard deviations of the first"
    assert (moves["height"] > bars["share"].max()).all()
    sentence = moves_sentence(moves, "prose", "code")
    assert sentence.startswith("From prose to code the mean moves by +") and ", the peak moves by " in sentence


def test_by_position_is_a_plain_loop_over_sequences(bundled_model: LoadedModel) -> None:
    from ablation_core.data.references import DEFAULT_DATA

    model = bundled_model
    data = load_data(DEFAULT_DATA[model.modality], model, 300, seq_len=20, batch_size=4, split="statistics")
    found = by_position(model, data, layer=2, sequences=6)
    count = min(6, data.sequences)
    assert found.sequences == count
    rows = []
    for number in range(count):
        seen = []
        hook = model.projections[2].register_forward_pre_hook(lambda _module, inputs, seen=seen: seen.append(inputs[0]))
        with torch.no_grad():
            model.module(**data.rows([number]).inputs)
        hook.remove()
        rows.append(seen[0][0].numpy())
    values = np.stack(rows)  # sequences, positions, width
    column = 1 * model.head_dim + 3
    frame = position_frame(found, 1, 3)
    np.testing.assert_allclose(frame["mean"], values[..., column].mean(0), atol=1e-5)
    np.testing.assert_allclose(frame["median"], np.median(values[..., column], axis=0), atol=1e-5)
    np.testing.assert_allclose(frame["high"], np.quantile(values[..., column], 0.9, axis=0), atol=1e-5)
