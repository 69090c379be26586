"""Estimates against finite differences of the plain model, a plain loop over the Fisher information, and exact values."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from ablation_core import ablate, load_data, load_model
from ablation_core.__main__ import main
from ablation_core.data.dataset import IGNORED, Batch, Data
from ablation_core.data.positions import Positions
from ablation_core.engine.gradients import linearise
from ablation_core.errors import DataError, MethodError, ModelError
from ablation_core.experiments.estimate import EstimateRun, estimate
from ablation_core.experiments.estimate_result import EstimateResult
from ablation_core.experiments.estimate_validation import agreement
from ablation_core.methods.registry import METHODS, Method
from ablation_core.models.loaded import LoadedModel
from ablation_core.stats.clustered_mean import ClusteredMean
from tests import tiny
from tests.conftest import numbers

ZERO = [METHODS["zero"]]
OWN = Method("own", "Its own activation.", source=lambda model, data, numbers, seed: data.rows(numbers))
STEP = 1e-3
A_HANDFUL = ["gpt2", "llama", "roberta", "vit", "swin", "VisionTransformer"]


def tiny_data(model: LoadedModel, sequences: int = 3, batch_size: int = 3, seed: int = 0, length: int = 12) -> Data:
    whole = tiny.batch(model, rows=sequences + 1, seed=seed, length=length)

    def rows(chosen) -> Batch:
        index = torch.as_tensor(list(chosen))
        return Batch({name: tensor[index] for name, tensor in whole.inputs.items()}, whole.targets[index])

    predictions = int((whole.targets[:sequences] != IGNORED).sum())
    return Data(
        ref="tiny", split="evaluation", seq_len=12, seed=seed, batch_size=batch_size, sequences=sequences, pool=sequences + 1, predictions=predictions, fingerprint="0", source="", notes=(), rows=rows
    )  # fmt: skip


def doubled(model: LoadedModel) -> LoadedModel:
    model.module.double()
    return model


@contextmanager
def moved(model: LoadedModel, layer: int, columns: slice, by: Tensor | None, share: float) -> Iterator[None]:
    """A hook of the test's own: the columns of a layer's z go `share` of the way; to zero if `by` is None."""

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        changed = inputs[0].clone()
        changed[..., columns] += share * (-inputs[0] if by is None else by - inputs[0])[..., columns]
        return (changed, *inputs[1:])

    handle = model.projections[layer].register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def plain_log_probs(model: LoadedModel, batch: Batch) -> Tensor:
    dtype = next(model.module.parameters()).dtype
    inputs = {n: t.to(dtype) if t.is_floating_point() else t for n, t in batch.inputs.items()}
    result = model.module(**inputs)
    logits = (result if isinstance(result, Tensor) else result.logits).double()
    return logits.log_softmax(-1)[batch.targets != IGNORED]


def by_differences(
    model: LoadedModel, batch: Batch, layer: int, columns: slice, by: Tensor | None = None
) -> tuple[float, float]:
    """The slope of the loss along a displacement, and ½ dᵀFd, from differences of log-probabilities; no autograd.

    The derivative of the log-probabilities is z − Σ p z, so that a prediction's dᵀFd is its square's mean under p.
    """
    ends = []
    for share in (STEP, -STEP):
        with moved(model, layer, columns, by, share):
            ends.append(plain_log_probs(model, batch))
    rates = (ends[0] - ends[1]) / (2 * STEP)
    targets = batch.targets[batch.targets != IGNORED]
    loss, fisher = 0.0, 0.0
    for prediction, target in enumerate(targets):
        probs = ((ends[0][prediction] + ends[1][prediction]) / 2).exp()
        loss -= float(rates[prediction, target])
        fisher += float((probs * rates[prediction] ** 2).sum())
    return loss, fisher / 2


def hooks_of(model: LoadedModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules())


def heads_of(model: LoadedModel) -> list[tuple[int, int, slice]]:
    size = model.head_dim
    return [
        (layer, head, slice(head * size, (head + 1) * size))
        for layer, count in enumerate(model.shape.heads)
        for head in range(count)
    ]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_first_order_equals_finite_differences_in_every_family(family: str) -> None:
    model = tiny.build(family)
    if family != "mixtral":  # its experts' kernel knows no float64
        doubled(model)
    data = tiny_data(model)
    with torch.inference_mode():  # what a model keeps from such a pass must not stand in the way of gradients
        plain_log_probs(model, data.rows(range(3)))
    found = EstimateRun(model, data, ZERO, passes=1).finish().result().methods[0]
    slopes = (found.loss.heads - found["kl"].heads) * data.predictions
    scale = np.nanmax(np.abs(slopes))
    for layer, head, columns in heads_of(model)[:: max(1, len(heads_of(model)) // 5)]:
        expected, _ = by_differences(model, data.rows(range(3)), layer, columns)
        close = 2e-2 if family == "mixtral" else 2e-3
        assert slopes[layer, head] == pytest.approx(expected, rel=1e-3, abs=close * scale)
    assert hooks_of(model) == 0


@pytest.mark.parametrize("family", A_HANDFUL)
def test_the_estimate_is_the_exact_fisher_form(family: str) -> None:
    """Unbiased: the mean of many seeds lies within 4.5 of its standard errors, which are small."""
    model = doubled(tiny.build(family))
    data = tiny_data(model)
    seeds = [
        EstimateRun(model, data, ZERO, seed=seed, passes=8).finish().result().methods[0]["kl"].heads
        for seed in range(24)
    ]
    mean, error = np.mean(seeds, 0), np.std(seeds, 0, ddof=1) / len(seeds) ** 0.5
    for layer, head, columns in heads_of(model):
        expected = by_differences(model, data.rows(range(3)), layer, columns)[1] / data.predictions
        assert abs(mean[layer, head] - expected) < 4.5 * error[layer, head]
        assert error[layer, head] < 0.2 * expected


def test_a_single_neuron_has_its_own_fisher_form() -> None:
    model = doubled(tiny.build("gpt2"))
    data = tiny_data(model)
    runs = [EstimateRun(model, data, ZERO, seed=seed, passes=8).finish().result().methods[0] for seed in range(20)]
    kl = np.array([run["kl"].neurons[1, 2, 3] for run in runs])
    place = 2 * model.head_dim + 3
    slope, expected = by_differences(model, data.rows(range(3)), 1, slice(place, place + 1))
    assert abs(kl.mean() - expected / data.predictions) < 4.5 * kl.std(ddof=1) / len(kl) ** 0.5
    first = runs[0].loss.neurons[1, 2, 3] - runs[0]["kl"].neurons[1, 2, 3]
    assert first * data.predictions == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_first_order_parts_of_neurons_add_up_to_their_head() -> None:
    model = tiny.build("llama")
    found = EstimateRun(model, tiny_data(model), ZERO).finish().result().methods[0]
    np.testing.assert_allclose(
        (found.loss.neurons - found["kl"].neurons).sum(-1), found.loss.heads - found["kl"].heads, rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("family", ["llama", "vit"])
def test_a_donors_activations_are_the_displacement(family: str) -> None:
    model = doubled(tiny.build(family))
    data = tiny_data(model)
    source = Method(
        "next", "The next input's.", source=lambda model, d, numbers, seed: d.rows([n + 1 for n in numbers])
    )
    runs = [EstimateRun(model, data, [source], seed=s, passes=8).finish().result().methods[0] for s in range(20)]
    kept: list[Tensor] = []
    hook = model.projections[1].register_forward_pre_hook(lambda _m, inputs: kept.append(inputs[0]))
    plain_log_probs(model, data.rows([1, 2, 3]))
    hook.remove()
    slope, fisher = by_differences(model, data.rows(range(3)), 1, slice(0, model.head_dim), kept[0])
    first = runs[0].loss.heads[1, 0] - runs[0]["kl"].heads[1, 0]
    assert first * data.predictions == pytest.approx(slope, rel=1e-3)
    kl = np.array([run["kl"].heads[1, 0] for run in runs])
    assert abs(kl.mean() - fisher / data.predictions) < 4.5 * kl.std(ddof=1) / len(kl) ** 0.5


@pytest.mark.parametrize("family", ["gpt2", "swin"])
def test_no_displacement_no_harm(family: str) -> None:
    model = tiny.build(family)
    data = tiny_data(model)
    own = EstimateRun(model, data, [OWN]).finish().result().methods[0]
    for part in (own["kl"], own.loss):
        for values in (part.heads, part.neurons, part.heads_error, part.neurons_error):
            assert (values[np.isfinite(values)] == 0).all() and np.isfinite(values).any()


def test_spared_positions_send_nothing() -> None:
    model = doubled(tiny.build("opt"))
    data = tiny_data(model)
    found = EstimateRun(model, data, ZERO, positions=Positions.after(2)).finish().result().methods[0]
    kept: list[Tensor] = []
    hook = model.projections[1].register_forward_pre_hook(lambda _m, inputs: kept.append(inputs[0].clone()))
    plain_log_probs(model, data.rows(range(3)))
    hook.remove()
    goal = torch.zeros_like(kept[0])
    goal[:, :2] = kept[0][:, :2]
    slope, _ = by_differences(model, data.rows(range(3)), 1, slice(0, model.head_dim), goal)
    assert (found.loss.heads - found["kl"].heads)[1, 0] * data.predictions == pytest.approx(slope, rel=1e-3)


def test_layers_with_fewer_heads_hold_nan() -> None:
    model = tiny.build("swin")
    found = EstimateRun(model, tiny_data(model), ZERO).finish().result().methods[0]["kl"]
    assert [int(n) for n in np.isfinite(found.heads).sum(1)] == list(model.shape.heads)
    assert (np.isfinite(found.neurons).all(-1) == np.isfinite(found.heads)).all()


def test_the_standard_error_covers_and_shrinks() -> None:
    """Of small data sets' 95% intervals about 95% hold the mean of all; four times the sequences halve them."""
    model = tiny.build("gpt2")
    sets = 30

    def run(sequences: int, seed: int) -> EstimateResult:
        data = tiny_data(model, sequences, 16, seed)
        return EstimateRun(model, data, ZERO, passes=2).finish().result()

    small = [run(16, seed).methods[0] for seed in range(sets)]
    for quantity in ("kl", "loss"):
        means = np.stack([found[quantity].heads for found in small])
        errors = np.stack([found[quantity].heads_error for found in small])
        inside = np.abs(means - means.mean(0)) < 2.13 * errors  # t with 15 degrees of freedom
        assert 0.88 < inside.mean() <= 0.995
        large = run(64, 999).methods[0][quantity].heads_error
        assert np.median(large / errors.mean(0)) == pytest.approx(0.5, abs=0.12)


def test_means_and_errors_by_hand() -> None:
    sums, counts = np.array([[2.0], [6.0], [1.0]]), np.array([2, 4, 1])
    means = ClusteredMean()
    means.add(sums[:1], counts[:1])
    assert np.isnan(means.error).all()
    means.add(sums[1:], counts[1:])
    assert means.mean[0] == pytest.approx(9 / 7)
    residuals = sums[:, 0] - 9 / 7 * counts
    assert means.error[0] == pytest.approx(np.sqrt((residuals**2).sum() * 3 / 2) / 7)


def test_a_result_after_any_step_and_the_same_in_the_end(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=150, seq_len=16, batch_size=4)
    run, other = (EstimateRun(opt_mini, data, ZERO, passes=2) for _ in range(2))
    assert run.steps == 3
    with pytest.raises(DataError, match="at least one step"):
        run.result()
    for step in range(3):
        run.step()
        description = run.result().description["data"]
        assert description["sequences"] == min(4 * (step + 1), 10)
    assert description["predictions"] == 150
    assert numbers(other.finish().result()) == numbers(run.result())


def test_hooks_are_gone_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.build("gpt2")
    foreign = model.projections[0].register_forward_pre_hook(lambda _m, _inputs: None)

    def fails(*_args: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(model.blocks[2].mlp, "forward", fails)
    with pytest.raises(RuntimeError, match="on purpose"):
        EstimateRun(model, tiny_data(model), ZERO).step()
    assert hooks_of(model) == 1
    foreign.remove()
    monkeypatch.undo()
    assert "forward" not in model.blocks[0].__dict__
    assert all(weight.grad is None for weight in model.module.parameters())


def test_a_prediction_is_sent_back_in_one_pass_only() -> None:
    """All passes of a repeat together carry every scored prediction once."""
    model = tiny.build("llama")
    lines = linearise(model, tiny.batch(model), passes=9, seed=(0,))
    assert lines.repeats == 1 and len(lines._draws) == 8  # eight predictions a sequence, nine passes
    carried = torch.stack([(draw != 0).any(-1) for draw in lines._draws])
    assert (carried.sum(0) == (tiny.batch(model).targets != IGNORED)).all()
    assert linearise(model, tiny.batch(model), passes=17, seed=(0,)).repeats == 2


@pytest.mark.slow
def test_estimates_rank_the_heads_of_a_trained_model(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=400, seq_len=64)
    found = estimate(opt_mini, data, "zero").methods[0]
    heads = [(layer, head) for layer in range(6) for head in range(6)]
    exact = [ablate(opt_mini, data, f"{layer}.{head}", "zero").results[0] for layer, head in heads]
    for quantity, values in (
        ("kl", [result.performance["kl"] for result in exact]),
        ("loss", [result.change["loss"].mean for result in exact]),
    ):
        assert spearmanr([found[quantity].heads[head] for head in heads], values).statistic > 0.85


def test_agreement_by_hand() -> None:
    few = [float(n) for n in range(12)]
    assert agreement(few, few[::-1]).top is None  # of twelve, eight of the first ten are the same in whatever order
    exact = [float(n) for n in range(25)]
    estimates = [2 * n + 1 for n in exact]
    found = agreement(estimates, exact)
    assert (found.heads, found.spearman, found.top) == (25, pytest.approx(1), 10)
    assert found.top_by_chance == 4  # ten places, each taken by one of the first ten of 25
    assert found.slope == pytest.approx(2)
    assert found.ratio == pytest.approx(2 + (1 / 12 + 1 / 13) / 2)  # the median of 2 + 1/n over n from 1 to 24
    swapped = [*estimates[:1], 99.0, *estimates[2:24], 0.0]  # the greatest and the second least change places
    assert agreement(swapped, exact).top == 9
    assert agreement([*estimates, np.nan], [*exact, 1.0]).heads == 25
    assert agreement([1.0, 2.0], [1.0, 2.0]).top is None


def test_a_model_that_gives_no_numbers_is_said_so() -> None:
    broken = load_model("opt-mini")
    broken.module.model.decoder.final_layer_norm.weight.data[0] = torch.nan
    with pytest.raises(ModelError, match="NaN or infinite on this data, even unablated"):
        estimate(broken, load_data("python-docs", broken, predictions=50), "zero")


def test_requests_that_cannot_be_met(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=50)
    with pytest.raises(MethodError, match="needs activation statistics"):
        estimate(opt_mini, data, "mean")
    with pytest.raises(MethodError, match="at least 1"):
        estimate(opt_mini, data, "zero", passes=0)
    with pytest.raises(MethodError, match="The constants of optimal are learned for each selection"):
        estimate(opt_mini, data, ["zero", "optimal"])


def command(capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["estimate", "opt-mini", "--predictions", "300", "--seq-len", "32", *arguments])
        return code, *capsys.readouterr()

    return run


def test_the_command_prints_one_document(capsys: pytest.CaptureFixture) -> None:
    arguments = ("--method", "zero", "--method", "resample-dataset", "--exact", "3")
    code, out, _ = command(capsys)(*arguments, "--json")
    document = json.loads(out)
    assert code == 0 and [row["method"] for row in document["results"]] == ["zero", "resample-dataset"]
    for row in document["results"]:
        assert len(row["heads"]) == 36 and len(row["neurons"]) == 20
        order = sorted(row["heads"], key=lambda head: -head["loss"]["estimate"])
        exact = document["exact"][row["method"]]
        assert {head["head"] for head in exact["heads"]} == {head["head"] for head in order[:3]}
        assert exact["agreement"]["loss"]["heads"] == 3
    measured = document["exact"]["zero"]["heads"][0]
    model = load_model("opt-mini")
    data = load_data("python-docs", model, predictions=300, seq_len=32)
    alone = ablate(model, data, measured["head"], "zero").results[0]
    assert (measured["kl"], measured["loss"]) == (alone.performance["kl"], alone.change["loss"].mean)
    code, out, _ = command(capsys)(*arguments)
    assert code == 0 and "rank correlation" in out
    code, out, err = command(capsys)("--method", "zero", "--exact", "-1")
    assert (code, out) == (1, "") and "0 or more" in err
