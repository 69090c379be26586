"""Ablations against a plain loop: own hooks, whole forwards, own arithmetic."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ablation_core import ablate, compute_statistics, load_data, load_model
from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data
from ablation_core.errors import MethodError, ModelError, SelectionError, StatisticsError
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.spec import AblationSpec
from ablation_core.methods import modes
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Selection
from tests.conftest import numbers, others_slow

SELECT = "1.2 3.0:1-4"
pytestmark = pytest.mark.usefixtures("few_learned_from")


@pytest.fixture(scope="module")
def data(bundled_model: LoadedModel) -> Data:
    ref = "fashion-mnist" if bundled_model.modality == "vision" else "python-docs"
    # an image is a sequence of its own; of a masked model's only every seventh position is a prediction
    count = {"vision": 24, "masked": 50, "causal": 150}[bundled_model.modality]
    return load_data(ref, bundled_model, predictions=count, seq_len=48, batch_size=4, seed=3)


@pytest.fixture(scope="module")
def statistics(bundled_model: LoadedModel, data: Data) -> Statistics:
    count = 60 if bundled_model.modality == "vision" else 300
    part = load_data(data.ref, bundled_model, predictions=count, seq_len=48, seed=3, split="statistics")
    return compute_statistics(bundled_model, part)


def raw_pre_outs(model: LoadedModel, inputs: dict[str, Tensor]) -> dict[int, Tensor]:
    kept: dict[int, Tensor] = {}
    hooks = [
        projection.register_forward_pre_hook(lambda _m, x, layer=layer: kept.update({layer: x[0].clone()}))
        for layer, projection in enumerate(model.projections)
    ]
    with torch.no_grad():
        model.module(**inputs)
    for hook in hooks:
        hook.remove()
    return kept


def plain_logits(model: LoadedModel, inputs: dict[str, Tensor], values: dict[int, Tensor] | None) -> Tensor:
    """Logits with the selected columns overwritten, column by column, in a hook of the test's own."""
    columns = {1: range(2 * model.head_dim, 3 * model.head_dim), 3: range(1, 5)}

    def overwrite(layer: int):
        def hook(_module, x):
            changed = x[0].clone()
            for column in columns[layer]:
                changed[..., column] = values[layer][..., column]
            return (changed,)

        return hook

    hooks = []
    if values is not None:
        hooks = [model.projections[layer].register_forward_pre_hook(overwrite(layer)) for layer in columns]
    with torch.no_grad():
        result = model.module(**inputs)
    for hook in hooks:
        hook.remove()
    return (result if isinstance(result, Tensor) else result.logits).double()


def plain_scores(logits: Tensor, clean: Tensor, targets: Tensor) -> list[tuple[float, float, float, float]]:
    rows = []
    for place in np.ndindex(*targets.shape):
        target = int(targets[place])
        if target != -100:
            probs, base = torch.softmax(logits[place], -1), torch.softmax(clean[place], -1)
            rank = int((probs > probs[target]).sum())
            kl = float((base * (base.log() - probs.log())).sum())
            rows.append((-float(probs[target].log()), rank == 0, rank < 10, kl))
    return rows


@pytest.mark.parametrize(
    "method", [name for name, row in METHODS.items() if not (row.learned or row.positional or row.counterfactual)]
)
def test_each_method_equals_a_plain_loop(
    bundled_model: LoadedModel, data: Data, statistics: Statistics, method: str
) -> None:
    model, rows, sequence = bundled_model, [], []
    if model.modality not in METHODS[method].modalities:
        with pytest.raises(MethodError, match=f"not for a {model.modality} one"):
            ablate(model, data, SELECT, method=method, statistics=statistics)
        return
    distance = int(np.random.default_rng(3).integers(1, data.pool))
    done = 0
    for batch in data:
        clean = plain_logits(model, batch.inputs, None)
        if method == "resample-dataset":
            sources = [(done + i + distance) % data.pool for i in range(len(batch.targets))]
            values = raw_pre_outs(model, data.rows(sources).inputs)
        elif METHODS[method].one_source:
            source = METHODS[method].source(model, data, [0], 3)
            values = raw_pre_outs(model, {name: tensor[:1] for name, tensor in source.inputs.items()})
        else:
            array = {
                "zero": np.zeros_like(statistics.mean),
                "mean": statistics.mean,
                "median": statistics.median(),
                "peak": statistics.peak(100),
                "peak-own-range": modes.own_range_peak(statistics, 100),
                "peak-whole-range": modes.whole_range_peak(statistics, 100),
                "peak-density": modes.kernel_density_mode(statistics, 100),
                "peak-half-sample": modes.half_sample_mode(statistics, 100),
            }[method]
            values = {layer: torch.from_numpy(array[layer].reshape(-1)) for layer in (1, 3)}
        rows += plain_scores(plain_logits(model, batch.inputs, values), clean, batch.targets)
        done += len(batch.targets)
        sequence.append(len(batch.targets))
    expected = np.array(rows, dtype=float).mean(0)

    result = ablate(model, data, SELECT, method=method, statistics=statistics)
    performance = result.results[0].performance
    assert len(rows) == result.data["predictions"] == data.predictions
    np.testing.assert_allclose(performance.loss, expected[0], rtol=1e-5)
    assert performance["top1"] == pytest.approx(expected[1], abs=1e-9)
    assert performance["top10"] == pytest.approx(expected[2], abs=1e-9)
    np.testing.assert_allclose(performance["kl"], expected[3], rtol=1e-3, atol=1e-7)


def test_statistics_equal_numpy_over_a_plain_hook(
    bundled_model: LoadedModel, data: Data, statistics: Statistics
) -> None:
    count = 60 if bundled_model.modality == "vision" else 300
    part = load_data(data.ref, bundled_model, predictions=count, seq_len=48, seed=3, split="statistics")
    collected = [raw_pre_outs(bundled_model, batch.inputs) for batch in part]
    for layer in range(bundled_model.num_layers):
        # the first position of every sequence is left out
        raw = torch.cat([kept[layer][:, 1:].flatten(0, 1) for kept in collected]).double().numpy()
        raw = raw.reshape(len(raw), *statistics.mean.shape[1:])
        assert (statistics.count[layer] == len(raw)).all()
        np.testing.assert_allclose(statistics.mean[layer], raw.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(statistics.std[layer], raw.std(0), rtol=1e-4)
        for head, neuron in ((0, 0), (3, 7), (5, bundled_model.head_dim - 1)):
            edges, counts = statistics.histogram(layer, head, neuron, bins=100)
            np.testing.assert_array_equal(counts, np.histogram(raw[:, head, neuron], edges)[0])


def test_an_empty_selection_changes_no_bit(bundled_model: LoadedModel, data: Data, statistics: Statistics) -> None:
    result = ablate(bundled_model, data, "", method="all", statistics=statistics)
    for row in result.results:
        assert row.performance == result.results[0].performance
        assert row.performance.loss == result.baseline.loss
        assert all({i.mean, i.low, i.high} <= {0, None} for i in row.change.values())


@others_slow
def test_the_batch_size_changes_only_rounding(bundled_model: LoadedModel, data: Data, statistics: Statistics) -> None:
    other = load_data(data.ref, bundled_model, predictions=data.predictions, seq_len=48, batch_size=50, seed=3)
    one, two = (ablate(bundled_model, d, SELECT, "all", statistics=statistics) for d in (data, other))
    for left, right in zip(one.results, two.results, strict=True):
        assert left.performance.loss == pytest.approx(right.performance.loss, rel=1e-5)


@others_slow
def test_the_same_seed_gives_the_same_document(bundled_model: LoadedModel, data: Data, statistics: Statistics) -> None:
    first, second = (numbers(ablate(bundled_model, data, "1.0", "all", statistics=statistics)) for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(first, allow_nan=False)) == first


@others_slow
def test_the_model_is_as_it_was(bundled_model: LoadedModel, data: Data, statistics: Statistics) -> None:
    before = {name: tensor.clone() for name, tensor in bundled_model.module.state_dict().items()}
    calls = []
    foreign = bundled_model.projections[1].register_forward_hook(lambda *_: calls.append(1))
    ablate(bundled_model, data, SELECT, "all", statistics=statistics)
    assert calls, "another tool's hook stays in place"
    assert list(bundled_model.projections[1]._forward_hooks) == [foreign.id]
    foreign.remove()
    for name, tensor in bundled_model.module.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in bundled_model.module.modules())


def test_changes_are_paired_means_of_differences(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=200, seq_len=32)
    spec = AblationSpec(Selection.parse("2.*", opt_mini.shape), (METHODS["zero"],))
    run = AblationRun(opt_mini, data, spec)
    while run.steps_done < run.steps:
        run.step()
    baseline, ablated, sequences = run.scores()
    change = run.result().results[0].change["loss"]
    assert change.mean == pytest.approx(float((ablated["zero"].loss - baseline.loss).mean()))
    assert change.low < change.mean < change.high
    assert list(np.bincount(sequences)) == [31] * 6 + [14]


@pytest.mark.parametrize(
    ("select", "method", "error", "words"),
    [
        ("1.2", "peak", MethodError, "needs activation statistics"),
        ("1.2", "best", MethodError, "no method 'best'"),
        ("9.9", "zero", SelectionError, "9.9"),
    ],
)
def test_requests_that_cannot_be_met(opt_mini: LoadedModel, select: str, method: str, error: type, words: str) -> None:
    data = load_data("python-docs", opt_mini, predictions=10)
    with pytest.raises(error, match=words):
        ablate(opt_mini, data, select, method)


def test_a_model_that_gives_no_numbers_is_said_so() -> None:
    broken = load_model("opt-mini")
    broken.module.model.decoder.final_layer_norm.weight.data[0] = torch.nan
    data = load_data("python-docs", broken, predictions=50)
    with pytest.raises(ModelError, match="NaN or infinite on python-docs, even unablated"):
        ablate(broken, data, "1.1", "zero")


def test_an_ablation_that_breaks_the_model_gives_null_in_json(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=50)
    statistics = compute_statistics(opt_mini, data)
    huge = replace(statistics, mean=np.full((6, 6, 32), 3e38, np.float32))
    document = ablate(opt_mini, data, "*.*", "mean", statistics=huge).to_dict()
    json.dumps(document, allow_nan=False)
    assert document["results"][0]["loss"] is None


def test_a_neuron_without_statistics_is_named(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=50)
    statistics = compute_statistics(opt_mini, data)
    mean = statistics.mean.copy()
    mean[2, 1, 5] = np.nan
    with pytest.raises(MethodError, match=r"2\.1:5 has no mean"):
        ablate(opt_mini, data, "2.1", "mean", statistics=replace(statistics, mean=mean))


def test_statistics_of_another_model_are_refused(opt_mini: LoadedModel, vit_mini: LoadedModel) -> None:
    statistics = compute_statistics(vit_mini, load_data("fashion-mnist", vit_mini, predictions=20))
    with pytest.raises(StatisticsError, match="made from another model"):
        ablate(opt_mini, load_data("python-docs", opt_mini, predictions=50), "1.1", "mean", statistics=statistics)


def test_spared_positions_keep_their_activations(opt_mini: LoadedModel) -> None:
    """With all but the first positions spared, a window of two tokens predicts from an unablated one."""
    data = load_data("python-docs", opt_mini, predictions=40, seq_len=2)
    assert ablate(opt_mini, data, "*.*", "zero", positions="1-").results[0].change["loss"].mean == 0
    assert ablate(opt_mini, data, "*.*", "zero").results[0].change["loss"].mean != 0
    longer = load_data("python-docs", opt_mini, predictions=40, seq_len=16)
    assert [
        ablate(opt_mini, longer, "0.0", "zero", positions=("all", "1-")[n]).to_dict()["positions_spared"]
        for n in (0, 1)
    ] == [
        0,
        1,
    ]
    assert ablate(opt_mini, longer, "*.*", "zero", positions="1-").results[0].change["loss"].mean != 0


@pytest.mark.parametrize(("positions", "places"), [("last", [-1]), ("1-", slice(1, None)), ("3,5", [3, 5])])
def test_positions_of_images(vit_mini: LoadedModel, positions: str, places: object) -> None:
    """An image's positions are its class token and its patches; there is no mask that says so."""
    data = load_data("fashion-mnist", vit_mini, predictions=20)
    (batch,) = list(data)

    def zeroed(_module: torch.nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        z = given[0].clone()
        z[:, places, 2 * vit_mini.head_dim : 3 * vit_mini.head_dim] = 0
        return (z,)

    handle = vit_mini.projections[3].register_forward_pre_hook(zeroed)
    with torch.no_grad():
        wanted = torch.nn.functional.cross_entropy(vit_mini.module(**batch.inputs), batch.targets).item()
    handle.remove()
    (row,) = ablate(vit_mini, data, "3.2", "zero", positions=positions).results
    assert row.performance.loss == pytest.approx(wanted, abs=1e-5)
