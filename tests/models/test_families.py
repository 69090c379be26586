"""Conformance: every family's row, on a tiny random model, against plain torch."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ablation_core.activations.accumulator import Accumulator
from ablation_core.activations.collect import gather_statistics
from ablation_core.data.dataset import IGNORED, Batch
from ablation_core.data.positions import Positions
from ablation_core.engine import clean_passes, forward, hooks, scoring
from ablation_core.engine.hooks import replace_z
from ablation_core.models.architectures import ARCHITECTURES, input_width
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Selection
from tests import tiny


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny.build(request.param)


@torch.inference_mode()
def whole_logits(model: LoadedModel, batch: Batch) -> Tensor:
    result = model.module(**batch.inputs)
    return result if isinstance(result, Tensor) else result.logits


def hooks_of(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def middle_head(model: LoadedModel) -> Selection:
    return Selection.parse(f"{model.num_layers // 2}.1", model.shape)


def zeros(model: LoadedModel) -> np.ndarray:
    return np.zeros((model.num_layers, max(model.shape.heads), model.head_dim), np.float32)


def scored_cross_entropy(logits: Tensor, targets: Tensor) -> np.ndarray:
    scored = targets != IGNORED
    return nn.functional.cross_entropy(logits[scored], targets[scored], reduction="none").double().numpy()


def test_every_row_has_a_tiny_model() -> None:
    assert set(tiny.FAMILIES) == set(ARCHITECTURES)


def test_the_site_is_heads_times_head_dim_wide(model: LoadedModel) -> None:
    captured = forward.z_values(model, tiny.batch(model), range(model.num_layers))
    for layer, heads in enumerate(model.shape.heads):
        assert captured[layer].shape[-1] == heads * model.head_dim == input_width(model.projections[layer])


def test_zeroing_a_head_is_zeroing_its_columns(model: LoadedModel) -> None:
    batch, selection = tiny.batch(model), middle_head(model)
    clean_pass = forward.record(model, batch)
    replacements = clean_passes.constant_replacements(selection, zeros(model), model)
    with replace_z(model, replacements):
        hooked = whole_logits(model, batch)

    layer = selection.layers[0]
    weight = model.projections[layer].weight
    columns = torch.from_numpy(selection.mask(layer))
    kept = weight.data.clone()
    if isinstance(model.projections[layer], nn.Linear):
        weight.data[:, columns] = 0
    else:
        weight.data[columns] = 0
    expected = whole_logits(model, batch)
    weight.data.copy_(kept)

    torch.testing.assert_close(hooked, expected, rtol=1e-5, atol=1e-5)
    assert not torch.equal(hooked, whole_logits(model, batch))
    scores = scoring.score_outputs(model, clean_pass, [clean_passes.ablated_output(model, clean_pass, replacements)])[1]
    np.testing.assert_allclose(scores.loss, scored_cross_entropy(expected, batch.targets), rtol=1e-4, atol=1e-5)


def test_the_clean_score_is_the_models_own(model: LoadedModel) -> None:
    batch = tiny.batch(model)
    clean_pass = forward.record(model, batch)
    scores, again = scoring.score_outputs(model, clean_pass, [clean_pass.outputs[-1]])
    assert (scores.loss == again.loss).all() and not again["kl"].any()
    np.testing.assert_allclose(
        scores.loss, scored_cross_entropy(whole_logits(model, batch), batch.targets), rtol=1e-4, atol=1e-5
    )


def test_resuming_equals_the_whole_forward_bit_for_bit(model: LoadedModel) -> None:
    """At the block, and behind its attention; by a constant, and position by position in several layers."""
    batch = tiny.batch(model)
    clean_pass = forward.record(model, batch)
    assert forward.record(model, batch, z_values=False).z_values == {}
    resampled = forward.z_values(model, tiny.batch(model, seed=1), range(model.num_layers))
    in_windows = any(len(z) != len(batch.targets) for z in resampled.values())  # where no position can be named
    for layer in range(model.num_layers):
        selection = Selection.parse(f"{layer}.0", model.shape)
        several = Selection.parse(f"{layer}.0 {model.num_layers - 1}.*", model.shape)
        for replacements in (
            clean_passes.constant_replacements(selection, zeros(model) + 0.3, model),
            clean_passes.resampled_replacements(several, resampled)
            if in_windows
            else clean_passes.at_positions(
                clean_passes.resampled_replacements(several, resampled), Positions.after(1).mask(batch)
            ),
        ):
            with replace_z(model, replacements):
                whole = forward.record(model, batch, z_values=False).outputs
            for begin in (clean_pass, replace(clean_pass, z_values={})):
                resumed = clean_passes.ablated_outputs(model, begin, replacements)
                for one, other in zip(resumed, whole, strict=True):
                    assert torch.equal(hooks.hidden_of(one), hooks.hidden_of(other)), f"layer {layer}"


def test_attention_behind_which_an_ablation_begins_is_not_computed(model: LoadedModel) -> None:
    """No module of the first ablated block but the projection sees the attention's inputs; later blocks run whole."""
    batch = tiny.batch(model)
    clean_pass = forward.record(model, batch)
    if model.family == "bloom":  # whose attention adds the residual stream itself
        assert not clean_pass.z_values
        return
    assert list(clean_pass.z_values) == [*range(model.num_layers)]
    selection = Selection.parse("1.0", model.shape)
    replacements = clean_passes.constant_replacements(selection, zeros(model), model)
    ran: dict[bool, list[int]] = {True: [], False: []}
    for skipped, begin in ((True, clean_pass), (False, replace(clean_pass, z_values={}))):
        handles = [
            module.register_forward_hook(lambda *_, place=place, skipped=skipped: ran[skipped].append(place))
            for place, block in enumerate(model.blocks)
            for module in block.modules()
        ]
        clean_passes.ablated_output(model, begin, replacements)
        for handle in handles:
            handle.remove()
    assert ran[True].count(1) < ran[False].count(1)
    assert [place for place in ran[True] if place != 1] == [place for place in ran[False] if place != 1]
    assert not any("forward" in vars(module) for module in model.module.modules())


def test_empty_selection_and_own_activations_change_no_bit(model: LoadedModel) -> None:
    batch = tiny.batch(model)
    clean_pass = forward.record(model, batch)
    everything = Selection.parse("*.*", model.shape)
    own = clean_passes.resampled_replacements(everything, forward.z_values(model, batch, everything.layers))
    # an empty selection puts no hook in; hooks whose masks choose nothing must not change anything either
    nothing = clean_passes.constant_replacements(Selection.parse("", model.shape), zeros(model), model)
    unchosen = {
        layer: clean_passes._swapper(Selection(model.shape), layer, torch.zeros(1)) for layer in everything.layers
    }
    for replacements in (own, nothing, unchosen):
        output = clean_passes.ablated_output(model, clean_pass, replacements)
        assert torch.equal(hooks.hidden_of(output), hooks.hidden_of(clean_pass.outputs[-1]))


def test_statistics_equal_numpy_on_raw_activations(model: LoadedModel) -> None:
    raw: dict[int, list[Tensor]] = {layer: [] for layer in range(model.num_layers)}
    hooks = [
        projection.register_forward_pre_hook(lambda _m, inputs, layer=layer: raw[layer].append(inputs[0]))
        for layer, projection in enumerate(model.projections)
    ]
    accumulators = [Accumulator(heads * model.head_dim) for heads in model.shape.heads]
    for seed in range(3):
        captured = forward.z_values(model, tiny.batch(model, seed=seed), range(model.num_layers))
        for layer, accumulator in enumerate(accumulators):
            accumulator.update(captured[layer].flatten(0, -2))
    for hook in hooks:
        hook.remove()
    statistics = gather_statistics(accumulators, model.shape.heads, {})
    for layer, heads in enumerate(model.shape.heads):
        values = torch.cat([tensor.flatten(0, -2) for tensor in raw[layer]]).double().numpy()
        values = values.reshape(len(values), heads, model.head_dim)
        np.testing.assert_allclose(statistics.mean[layer, :heads], values.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(statistics.std[layer, :heads], values.std(0), rtol=1e-4, atol=1e-6)
        edges, counts = statistics.histogram(layer, 0, 0, bins=100)
        np.testing.assert_array_equal(counts, np.histogram(values[:, 0, 0], edges)[0])


def test_rows_of_a_batch_do_not_leak_into_each_other(model: LoadedModel) -> None:
    batch = tiny.batch(model)
    alone = Batch({name: tensor[1:2] for name, tensor in batch.inputs.items()}, batch.targets[1:2])
    torch.testing.assert_close(whole_logits(model, batch)[1:2], whole_logits(model, alone), rtol=1e-4, atol=1e-5)
    replacements = clean_passes.constant_replacements(middle_head(model), zeros(model), model)
    together, single = forward.record(model, batch), forward.record(model, alone)
    ours = scoring.score_outputs(model, together, [clean_passes.ablated_output(model, together, replacements)])[1].loss
    theirs = scoring.score_outputs(model, single, [clean_passes.ablated_output(model, single, replacements)])[1].loss
    first = int((batch.targets[0] != IGNORED).sum())
    np.testing.assert_allclose(ours[first : first + len(theirs)], theirs, rtol=1e-4, atol=1e-5)


def test_padding_changes_nothing(model: LoadedModel) -> None:
    if model.modality == "vision":
        pytest.skip("images are not padded")
    batch = tiny.batch(model)
    padded = {
        "input_ids": nn.functional.pad(batch.inputs["input_ids"], (0, 4), value=1),
        "attention_mask": nn.functional.pad(batch.inputs["attention_mask"], (0, 4), value=0),
    }
    targets = nn.functional.pad(batch.targets, (0, 4), value=IGNORED)
    replacements = clean_passes.constant_replacements(middle_head(model), zeros(model), model)
    losses = []
    for clean_pass in (forward.record(model, batch), forward.record(model, Batch(padded, targets))):
        output = clean_passes.ablated_output(model, clean_pass, replacements)
        losses.append(scoring.score_outputs(model, clean_pass, [output])[1].loss)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3, atol=1e-4)


def test_hooks_are_gone_after_use_and_after_an_exception(model: LoadedModel) -> None:
    class Fault(Exception):
        pass

    def fail(_pre_out: Tensor) -> Tensor:
        raise Fault

    before, batch = hooks_of(model.module), tiny.batch(model)
    clean_pass = forward.record(model, batch)
    fault: dict[int, Callable[[Tensor], Tensor]] = {model.num_layers - 1: fail}
    with pytest.raises(Fault):
        clean_passes.ablated_output(model, clean_pass, fault)
    assert hooks_of(model.module) == before
    assert not any("forward" in vars(module) for module in model.module.modules())


def test_bfloat16_runs(model: LoadedModel) -> None:
    low = tiny.build(model.family)
    low.module.to(torch.bfloat16)
    clean_pass = forward.record(low, tiny.batch(low))
    assert hooks.hidden_of(clean_pass.outputs[-1]).dtype == torch.bfloat16
    replacements = clean_passes.constant_replacements(middle_head(low), zeros(low), low)
    scores = scoring.score_outputs(low, clean_pass, [clean_passes.ablated_output(low, clean_pass, replacements)])[1]
    assert np.isfinite(scores.loss).all()
