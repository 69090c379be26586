"""Modes against raw values, donors against what they promise, learned constants against a plain loop."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gaussian_kde

from ablation_core import ablate, compute_statistics, load_data, load_model
from ablation_core.activations.accumulator import Accumulator
from ablation_core.activations.collect import gather_statistics
from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data
from ablation_core.engine.clean_passes import CleanPassCache, ablated_output, constant_replacements
from ablation_core.errors import MethodError
from ablation_core.experiments.displacement import DisplacementGauge
from ablation_core.methods import modes, resampling
from ablation_core.methods.optimal import OptimalRun
from ablation_core.methods.registry import (
    METHODS,
    USUAL,
    check_statistics,
    choose_methods,
    constant_values,
    usable_methods,
)
from ablation_core.methods.resampling import generated_text, random_characters, random_pixels, random_tokens
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import special_tokens
from ablation_core.runs.pruning import pruned
from ablation_core.selection import ModelShape, Selection
from tests.conftest import numbers, others_slow


def of_values(values: np.ndarray) -> Statistics:
    """Statistics of raw values, (rows, neurons), as one layer of one head."""
    accumulator = Accumulator(values.shape[1])
    for part in np.array_split(values, 7):
        accumulator.update(torch.from_numpy(part))
    return gather_statistics([accumulator], (1,), {})


def mixed_values(rows: int = 20_000) -> np.ndarray:
    """Six shapes: normal, skewed, heavy-tailed, two-humped, spiked at zero, constant."""
    draw = np.random.default_rng(5)
    humps = np.where(draw.random(rows) < 0.7, draw.normal(-2, 0.3, rows), draw.normal(2, 0.3, rows))
    spike = np.where(draw.random(rows) < 0.5, 0.0, draw.normal(1, 1, rows))
    columns = [draw.normal(3, 2, rows), draw.gamma(2, size=rows), draw.standard_t(2, rows), humps, spike]
    return np.stack([*columns, np.full(rows, 1.25)], 1).astype(np.float32)


def fullest(column: np.ndarray, low: float, high: float, bins: int) -> tuple[float, float, int]:
    """The centre of the fullest bin, the bin's width and its count."""
    counts, edges = np.histogram(column, bins, (low, high))
    best = counts.argmax()
    return (edges[best] + edges[best + 1]) / 2, edges[1] - edges[0], counts[best]


@pytest.mark.parametrize("bins", [20, 100])
def test_own_range_peak_against_raw_values(bins: int) -> None:
    values = mixed_values()
    found = modes.own_range_peak(of_values(values), bins)[0, 0]
    for column, mode in zip(values.T[:5], found[:5], strict=True):
        _, width, most = fullest(column, column.min(), column.max(), bins)
        here = np.sum(abs(column - mode) <= width / 2)
        assert here >= 0.9 * most  # bins that are nearly as full may win: a fine bin's values count as evenly spread
    assert found[5] == np.float32(1.25)


def test_whole_range_peak_against_raw_values() -> None:
    values = mixed_values()
    found = modes.whole_range_peak(of_values(values), 100)[0, 0]
    expected = [fullest(column, values.min(), values.max(), 100)[0] for column in values.T[:5]]
    np.testing.assert_allclose(found[:5], expected, atol=1e-3)


def test_kernel_density_mode_against_scipy() -> None:
    values = mixed_values(4000)[:, [0, 1, 3]]
    found = modes.kernel_density_mode(of_values(values), 100)[0, 0]
    for column, mode in zip(values.T.astype(float), found, strict=True):
        quartiles = np.subtract(*np.quantile(column, [0.75, 0.25]))
        width = 0.9 * min(column.std(), quartiles / 1.34) * len(column) ** -0.2
        density = gaussian_kde(column, width / column.std(ddof=1))
        grid = np.linspace(column.min(), column.max(), 3000)
        heights = density(grid)
        assert density(mode)[0] > 0.995 * heights.max()


def half_sample(values: np.ndarray) -> float:
    """The half-sample mode of sorted values, by its definition."""
    while len(values) > 2:
        half = -(-len(values) // 2)
        lengths = values[half - 1 :] - values[: len(values) - half + 1]
        first = int(lengths.argmin())
        values = values[first : first + half]
    return float(values.mean())


def test_half_sample_mode_finds_known_modes() -> None:
    values = mixed_values()
    found = modes.half_sample_mode(of_values(values), 100)[0, 0]
    for column, mode, known in zip(values.T[:5], found[:5], (3, 1, 0, -2, 0), strict=True):
        spread = np.subtract(*np.quantile(column, [0.75, 0.25]))
        assert abs(mode - known) < 0.35 * spread
        assert abs(mode - half_sample(np.sort(column))) < 0.5 * spread


@given(st.lists(st.integers(0, 40), min_size=4, max_size=4), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_modes_lie_where_values_are(counts: list[int], bins: int) -> None:
    values = np.repeat(np.array([-1.0, 0.0, 0.5, 4.0], np.float32), np.array(counts) + 1)[:, None]
    values = np.random.default_rng(0).permutation(values)
    statistics = of_values(values)
    for mode in (modes.own_range_peak, modes.whole_range_peak, modes.kernel_density_mode, modes.half_sample_mode):
        assert statistics.low[0, 0, 0] <= mode(statistics, bins)[0, 0, 0] <= statistics.high[0, 0, 0]


@pytest.fixture(scope="module")
def data(bundled_model: LoadedModel) -> Data:
    ref = "fashion-mnist" if bundled_model.modality == "vision" else "python-docs"
    count = 24 if bundled_model.modality == "vision" else 120  # an image is a sequence of its own
    return load_data(ref, bundled_model, predictions=count, seq_len=40, batch_size=4, seed=3)


@pytest.fixture(scope="module")
def statistics(bundled_model: LoadedModel, data: Data) -> Statistics:
    return compute_statistics(
        bundled_model,
        load_data(data.ref, bundled_model, 80 if bundled_model.modality == "vision" else 400, 40, split="statistics"),
    )


@pytest.mark.parametrize("source", [random_characters, random_tokens, generated_text])
def test_text_donors_are_one_window_of_ordinary_tokens(bundled_model: LoadedModel, data: Data, source) -> None:
    if bundled_model.modality == "vision":
        pytest.skip("images")
    before, after = special_tokens(bundled_model)
    ids = source(bundled_model, data, [0, 1], 3).inputs["input_ids"]
    assert ids.shape == (1, 40)
    assert ids[0, : len(before)].tolist() == before
    assert ids[0, 40 - len(after) :].tolist() == after
    body = set(ids[0, len(before) : 40 - len(after)].tolist())
    assert not body & set(bundled_model.tokenizer.all_special_ids)
    assert torch.equal(ids, source(bundled_model, data, [7], 3).inputs["input_ids"])  # the same for every sequence
    assert not torch.equal(ids, source(bundled_model, data, [0], 4).inputs["input_ids"])


def test_generated_text_is_likelier_than_random_tokens(bundled_model: LoadedModel, data: Data) -> None:
    if bundled_model.modality != "causal":
        pytest.skip("the likelihood of a whole text is a causal model's")
    losses = []
    for source in (generated_text, random_tokens):
        ids = source(bundled_model, data, [0], 3).inputs["input_ids"]
        logits = bundled_model.module(input_ids=ids).logits[0, :-1].log_softmax(-1)
        losses.append(-logits.gather(1, ids[0, 1:, None]).mean().item())
    assert losses[0] < losses[1] - 2


def test_random_pixels_cover_the_range(bundled_model: LoadedModel, data: Data) -> None:
    if bundled_model.modality != "vision":
        pytest.skip("text")
    pixels = random_pixels(bundled_model, data, [0], 3).inputs[bundled_model.input_name]
    real = data.rows([0]).inputs[bundled_model.input_name]
    assert pixels.shape == real.shape
    assert pixels.unique().numel() > 100
    assert abs(np.corrcoef(pixels[0, 0, :, :-1].flatten(), pixels[0, 0, :, 1:].flatten())[0, 1]) < 0.2


def plain_loss(model: LoadedModel, data: Data, selection: Selection, values: np.ndarray) -> float:
    """The mean loss with the selected columns overwritten by a hook of the test's own, in whole passes."""
    losses, hooks = [], []
    for layer in selection.layers:
        mask, row = torch.from_numpy(selection.mask(layer)), torch.from_numpy(values[layer].reshape(-1))
        hooks.append(
            model.projections[layer].register_forward_pre_hook(
                lambda _m, x, mask=mask, row=row: (torch.where(mask, row, x[0]),)
            )
        )
    with torch.no_grad():
        for batch in data:
            logits = model.module(**batch.inputs)
            logits = logits if isinstance(logits, torch.Tensor) else logits.logits
            each = torch.nn.functional.cross_entropy(
                logits.flatten(0, -2), batch.targets.flatten(), ignore_index=-100, reduction="none"
            )
            losses.append(each[batch.targets.flatten() != -100].double())
    for hook in hooks:
        hook.remove()
    return float(torch.cat(losses).mean())


def starts(statistics: Statistics) -> dict[str, np.ndarray]:
    return {"zero": np.zeros_like(statistics.mean), "mean": statistics.mean, "peak": statistics.peak()}


@others_slow
@pytest.mark.parametrize("select", ["2.1", pytest.param("1.2:0-7 4.*", marks=pytest.mark.slow)])
def test_optimal_is_no_worse_than_any_start(
    bundled_model: LoadedModel, data: Data, statistics: Statistics, select: str
) -> None:
    model, selection = bundled_model, Selection.parse(select, bundled_model.shape)
    training = load_data(
        data.ref, model, 40 if model.modality == "vision" else 300, 40, batch_size=4, split="statistics"
    )
    run = OptimalRun(CleanPassCache(model, training), selection, starts(statistics), statistics.std)
    while run.steps_done < run.steps:
        run.step()
    losses = {name: plain_loss(model, training, selection, values) for name, values in starts(statistics).items()}
    learned = plain_loss(model, training, selection, run.values())
    assert run.learning.start == min(losses, key=losses.get)
    assert run.learning.start_loss == pytest.approx(min(losses.values()), rel=1e-5)
    assert run.learning.loss == pytest.approx(learned, rel=1e-5)
    assert learned < min(losses.values())


def test_the_gradient_of_the_constants_against_finite_differences(
    bundled_model: LoadedModel, data: Data, statistics: Statistics
) -> None:
    model, selection = bundled_model, Selection.parse("1.0:0-2 3.4:5", bundled_model.shape)
    clean_cache = CleanPassCache(model, data)
    run = OptimalRun(clean_cache, selection, {"mean": statistics.mean}, statistics.std)
    values = statistics.mean.copy()
    at = [(layer, head, neuron) for (layer, head), neurons in selection.chosen for neuron in neurons]
    start = torch.tensor([statistics.mean[place] for place in at])
    loss, gradient = run._gradient(start, 0)
    first = data.rows(data.numbers(0))
    scored = int((first.targets != -100).sum())
    one = [first]
    assert loss / scored == pytest.approx(plain_loss(model, one, selection, values), rel=1e-5)
    for place, found in zip(at, gradient, strict=True):
        step = 0.3 * float(statistics.std[place])
        sides = []
        for sign in (1, -1):
            moved = values.copy()
            moved[place] += sign * step
            sides.append(plain_loss(model, one, selection, moved))
        np.testing.assert_allclose(float(found), (sides[0] - sides[1]) / (2 * step), rtol=0.1, atol=2e-4)


@others_slow
def test_optimal_in_an_experiment_splits_the_harm(
    bundled_model: LoadedModel, data: Data, statistics: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ablation_core.methods.optimal.TRAINING_PREDICTIONS", {"causal": 200, "masked": 200, "vision": 40}
    )
    result = numbers(ablate(bundled_model, data, "2.1", ["mean", "optimal"], statistics=statistics))
    mean, optimal = result["results"]
    assert mean["harm"]["removal"] == optimal["change"]["loss"]
    total = mean["harm"]["removal"]["mean"] + mean["harm"]["displacement"]["mean"]
    assert total == pytest.approx(mean["change"]["loss"]["mean"])
    assert optimal["harm"]["displacement"]["mean"] == 0
    assert optimal["learning"]["loss"] <= optimal["learning"]["start_loss"]
    again = numbers(ablate(bundled_model, data, "2.1", ["mean", "optimal"], statistics=statistics))
    assert again == result


def test_displacement_against_raw_activations(bundled_model: LoadedModel, data: Data, statistics: Statistics) -> None:
    model, selection = bundled_model, Selection.parse("2.1:0-5", bundled_model.shape)
    row = ablate(model, data, selection, "zero", statistics=statistics).results[0].displacement
    captured, squares = {}, []
    hook = model.projections[2].register_forward_pre_hook(lambda _m, x: captured.update(x=x[0]))
    lengths: dict[str, list[torch.Tensor]] = {"clean": [], "zero": []}
    for batch in data:
        for kind in lengths:
            zero = constant_replacements(selection, np.zeros_like(statistics.mean), model) if kind == "zero" else {}
            with torch.no_grad():
                handle = model.blocks[2].register_forward_hook(
                    lambda _m, _x, out, kind=kind: lengths[kind].append(
                        (out[0] if isinstance(out, tuple) else out).norm(dim=-1)
                    )
                )
                swap = model.projections[2].register_forward_pre_hook(
                    lambda _m, x, zero=zero: (zero[2](x[0]),) if zero else None
                )
                model.module(**batch.inputs)
                handle.remove()
                swap.remove()
        columns = slice(model.head_dim, model.head_dim + 6)
        squares.append((captured["x"][..., columns] / torch.from_numpy(statistics.std[2, 1, :6])).square().flatten())
    hook.remove()
    assert row.moved == pytest.approx(torch.cat(squares).mean().sqrt().item(), rel=1e-4)
    clean, zero = (torch.cat(lengths[kind]) for kind in ("clean", "zero"))
    assert row.norm_change == pytest.approx((zero / clean - 1).mean().item(), abs=1e-6)


def test_the_mean_moves_one_standard_deviation() -> None:
    values = torch.randn(4, 50, 8) * torch.arange(1, 9) + 3
    std = values.flatten(0, 1).std(0, correction=0).numpy()[None, None]
    shape = ModelShape((1,), 8)
    selection = Selection.parse("0.0", shape)
    gauge = DisplacementGauge(selection, std)
    gauge.watched({0: lambda z: z.mean((0, 1)).expand_as(z)})[0](values)
    assert gauge.result().moved == pytest.approx(1, rel=1e-5)


def test_methods_that_do_not_fit_a_model_are_refused() -> None:
    assert [m.name for m in choose_methods(["all"], "vision")] == [
        name for name, row in METHODS.items() if "vision" in row.modalities and not row.learned and not row.positional
    ]
    with pytest.raises(MethodError, match="causal, masked and text-classification models, not for a vision one"):
        choose_methods(["resample-tokens"], "vision")
    assert [m.name for m in choose_methods(["mean, zero", "mean"], "causal")] == ["mean", "zero"]
    with pytest.raises(MethodError, match="no method 'pique'"):
        choose_methods(["pique"], "causal")


def test_at_100_per_cent_constants_are_the_same_for_every_seed() -> None:
    model = load_model("opt-mini")
    assert pruned(model.shape, 100, 1) == pruned(model.shape, 100, 2)


def test_recorded_activations_can_be_resumed_with_gradients(bundled_model: LoadedModel, data: Data) -> None:
    clean_pass = CleanPassCache(bundled_model, data)[0]
    output = ablated_output(bundled_model, clean_pass, {})
    assert output is clean_pass.outputs[-1]


LANGUAGE = ("causal", "masked")
TEXT = (*LANGUAGE, "text-classification")
EVERY = (*TEXT, "vision")
TABLE = {  # name → function of `sources`, one donor, learned, needs statistics, for which models
    "zero": (None, False, False, False, EVERY),
    "mean": (None, False, False, True, EVERY),
    "median": (None, False, False, True, EVERY),
    "peak": (None, False, False, True, EVERY),
    "peak-own-range": (None, False, False, True, EVERY),
    "peak-whole-range": (None, False, False, True, EVERY),
    "peak-density": (None, False, False, True, EVERY),
    "peak-half-sample": (None, False, False, True, EVERY),
    "mean-positional": (None, False, False, False, EVERY),
    "counterfactual": ("counterfactual_prompts", False, False, False, TEXT),
    "resample-dataset": ("other_sequences", False, False, False, EVERY),
    "resample-characters": ("random_characters", True, False, False, TEXT),
    "resample-tokens": ("random_tokens", True, False, False, TEXT),
    "resample-generated": ("generated_text", True, False, False, LANGUAGE),
    "resample-pixels": ("random_pixels", True, False, False, ("vision",)),
    "optimal": (None, False, True, True, EVERY),
}
CONSTANT = [name for name, row in TABLE.items() if row[0] is None and name not in ("optimal", "mean-positional")]


def test_table_of_methods() -> None:
    rows = {
        name: (method.source is not None, method.one_source, method.learned, method.needs_statistics, method.modalities)
        for name, method in METHODS.items()
    }
    assert list(rows.items()) == [(name, (row[0] is not None, *row[1:])) for name, row in TABLE.items()]
    assert [name for name, method in METHODS.items() if method.constant is not None] == CONSTANT
    assert all(method.name == name and method.description.endswith(".") for name, method in METHODS.items())
    assert set(USUAL) == {"zero", "mean", "median", "peak", "resample-dataset"}


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row[0]])
def test_table_names_the_donors_by_what_makes_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, TABLE[name][0], lambda *asked: asked)
    assert METHODS[name].source("model", "data", [3, 1], 5) == ("model", "data", [3, 1], 5)


def ragged(values: np.ndarray) -> Statistics:
    """Two layers, of one and of two heads of two neurons, from rows of six values."""
    parts = [Accumulator(2), Accumulator(4)]
    for accumulator, rows in zip(parts, (values[:, :2], values[:, 2:]), strict=True):
        accumulator.update(torch.from_numpy(np.ascontiguousarray(rows)))
    return gather_statistics(parts, (1, 2), {})


RAGGED = ModelShape((1, 2), 2)


@pytest.mark.parametrize("bins", [5, 100])
@pytest.mark.parametrize("name", CONSTANT)
def test_table_gives_each_neuron_its_own_constant(name: str, bins: int) -> None:
    values = mixed_values(600) + np.arange(6, dtype=np.float32) / 8
    statistics = ragged(values)
    found = constant_values(METHODS[name], statistics, Selection.parse("*.*", RAGGED), bins)
    assert (found.shape, found.dtype) == ((2, 2, 2), np.float32)
    places = [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)]
    width = (statistics.high - statistics.low) / 600
    for place, column in zip(places, values.T.astype(float), strict=True):
        fine = width[place]
        wanted = {
            "zero": lambda: 0.0,
            "mean": column.mean,
            "median": lambda column=column: np.median(column),
            "peak": lambda place=place: statistics.peak(bins)[place],
            "peak-own-range": lambda place=place: modes.own_range_peak(statistics, bins)[place],
            "peak-whole-range": lambda place=place: modes.whole_range_peak(statistics, bins)[place],
            "peak-density": lambda place=place: modes.kernel_density_mode(statistics, bins)[place],
            "peak-half-sample": lambda place=place: modes.half_sample_mode(statistics, bins)[place],
        }[name]()
        assert found[place] == pytest.approx(wanted, abs=fine if name == "median" else 1e-5, rel=1e-5)
    if name == "zero":
        assert not constant_values(METHODS[name], None, Selection.parse("*.*", RAGGED), bins).any()


def test_table_has_no_constant_for_a_neuron_of_which_nothing_was_counted() -> None:
    values = mixed_values(50)
    values[:, 3] = np.nan
    statistics = ragged(values)
    found = constant_values(METHODS["mean"], statistics, Selection.parse("0.0 1.0:0 1.1", RAGGED), 100)
    assert np.isnan(found[1, 0, 1])
    assert found[1, 1, 1] == np.float32(1.25)
    for select in ("1.0:1", "1.0", "*.*"):
        with pytest.raises(MethodError, match=r"^The neuron 1\.0:1 has no mean: no finite activation of it was count"):
            constant_values(METHODS["mean"], statistics, Selection.parse(select, RAGGED), 100)
    assert constant_values(METHODS["zero"], statistics, Selection.parse("1.0", RAGGED), 100)[1, 0, 1] == 0


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row[3]])
def test_table_methods_that_read_statistics_ask_for_them(name: str) -> None:
    words = f"^The method {name} needs activation statistics and there are none"
    with pytest.raises(MethodError, match=words):
        check_statistics(METHODS[name], None)
    if name != "optimal":
        with pytest.raises(MethodError, match=words):
            constant_values(METHODS[name], None, Selection.parse("0.0", RAGGED), 100)
    assert check_statistics(METHODS[name], ragged(mixed_values(5))) is None


def test_table_methods_without_statistics_do_not_ask_for_them() -> None:
    for name, row in TABLE.items():
        if not row[3]:
            check_statistics(METHODS[name], None)


@pytest.mark.parametrize("modality", EVERY)
def test_table_methods_usable_with_one_sequence_and_with_two(modality: str) -> None:
    unpaired = [name for name, row in TABLE.items() if modality in row[4] and name != "counterfactual"]
    assert usable_methods(SimpleNamespace(pool=2, counterfactual=None), modality) == unpaired
    assert usable_methods(SimpleNamespace(pool=1, counterfactual=None), modality) == [
        name for name in unpaired if name != "resample-dataset"
    ]


def test_table_methods_are_chosen_in_order_and_once() -> None:
    def names(chosen: list[str], modality: str = "causal") -> list[str]:
        return [method.name for method in choose_methods(chosen, modality)]

    assert names(["peak", "zero", "peak", "mean"]) == ["peak", "zero", "mean"]
    assert names(["optimal"]) == ["optimal"]
    tasks = ("mean-positional", "counterfactual")  # only where the data is a task's
    every = [name for name, row in TABLE.items() if "causal" in row[4] and name not in ("optimal", *tasks)]
    assert names(["all"]) == every
    assert names(["all", "optimal", "zero"]) == [*every, "optimal"]
    assert names(["median", "all"]) == ["median", *(name for name in every if name != "median")]
    assert names(["resample-pixels"], "vision") == ["resample-pixels"]


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ([], "^No method was named. Choose from zero, mean, .*, resample-generated, optimal, or all.$"),
        (["zero", "pique"], "^There is no method 'pique'. Choose from zero, mean, .*, optimal, or all.$"),
        (["mean", "resample-pixels"], "^The method resample-pixels is for vision models, not for a causal one.$"),
    ],
)
def test_table_of_methods_refuses(chosen: list[str], words: str) -> None:
    with pytest.raises(MethodError, match=words) as error:
        choose_methods(chosen, "causal")
    if not chosen:
        assert "resample-pixels" not in str(error.value)


def test_a_single_sequence_has_no_other_to_resample_from() -> None:
    with pytest.raises(MethodError, match=r"needs at least two of them; python-docs holds one\.$"):
        resampling.other_sequences(None, SimpleNamespace(pool=1, ref="python-docs"), [0], 0)


def test_another_sequence_is_a_random_distance_on_and_never_the_same() -> None:
    data = SimpleNamespace(pool=5, lengths=None, is_text=False, rows=lambda numbers: list(numbers))
    for seed in range(20):
        others = resampling.other_sequences(None, data, range(5), seed)
        distance = others[0]
        assert 1 <= distance <= 4
        assert others == [(number + distance) % 5 for number in range(5)]
    assert {resampling.other_sequences(None, data, [0], seed)[0] for seed in range(20)} == {1, 2, 3, 4}
