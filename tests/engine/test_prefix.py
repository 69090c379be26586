"""Ablations that begin in the middle of a sequence: equal to the whole pass, in every causal family that takes a cache."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from ablation_core import load_data
from ablation_core.data.dataset import Batch
from ablation_core.data.positions import Positions
from ablation_core.engine.clean_passes import CleanPassCache, ablated_outputs
from ablation_core.engine.forward import record, run_blocks
from ablation_core.engine.hooks import hidden_of, record_outputs, replace_z
from ablation_core.experiments.ablation import AblationRun, AblationSpec
from ablation_core.methods.registry import METHODS
from ablation_core.models.architectures import ARCHITECTURES
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Selection
from tests import tiny

CAUSAL = [family for family in tiny.FAMILIES if ARCHITECTURES[family].modality == "causal"]
WHOLE_WAY: set[str] = set()  # families whose attention does not take a cached prefix so
ROUNDED = {"bloom"}  # which computes the same, and rounds otherwise
# Whose masks have windows or biases of their own, so that rows cannot be given columns of their own:
TOGETHER = {"bloom", "gpt_neo", "mistral", "gemma2", "gemma3_text"}
START = 6  # of 12 positions, in three sequences: 18 are run


@pytest.fixture(scope="module", params=CAUSAL)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny.build(request.param)


def padded(model: LoadedModel) -> Batch:
    """Three sequences, of which the last two end earlier, as prompts of several lengths do."""
    batch = tiny.batch(model)
    mask = batch.inputs["attention_mask"].clone()
    mask[1, -2:], mask[2, -4:] = 0, 0
    return Batch({"input_ids": batch.inputs["input_ids"], "attention_mask": mask}, batch.targets)


@contextmanager
def zeroed(model: LoadedModel, layer: int, head: int, start: int) -> Iterator[None]:
    """A hook of the test's own: the head's z is 0 from a position on."""
    columns = slice(head * model.head_dim, (head + 1) * model.head_dim)

    def hook(_module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        z = inputs[0].clone()
        z[:, start:, columns] = 0
        return (z, *inputs[1:])

    handle = model.projections[layer].register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.inference_mode()
def whole(model: LoadedModel, batch: Batch, layer: int, head: int) -> list[Tensor]:
    with zeroed(model, layer, head, START), record_outputs(model) as outputs:
        run_blocks(model, batch)
    return list(map(hidden_of, outputs))


def zero_from(model: LoadedModel, head: int) -> object:
    columns = torch.zeros(model.shape.width(0), dtype=torch.bool)
    columns[head * model.head_dim : (head + 1) * model.head_dim] = True
    return lambda z: torch.where((torch.arange(z.shape[1]) >= START)[:, None] & columns, 0.0, z)


def test_later_positions_are_those_of_the_whole_pass(model: LoadedModel) -> None:
    batch = padded(model)
    clean_pass = record(model, batch, keys_values=True)
    assert model.takes_prefix == (model.family not in WHOLE_WAY)
    plain = record(model, batch)
    assert all(torch.equal(hidden_of(a), hidden_of(b)) for a, b in zip(clean_pass.outputs, plain.outputs, strict=True))
    real = batch.inputs["attention_mask"].bool()
    for layer in range(model.num_layers):
        expected = whole(model, batch, layer, 1)
        found = ablated_outputs(model, clean_pass, {layer: zero_from(model, 1)}, torch.full((3,), START))
        for one, other in zip(map(hidden_of, found), expected, strict=True):
            torch.testing.assert_close(one[real], other[real], rtol=1e-5, atol=1e-5 * float(other.abs().max()))
            assert torch.equal(one[real], other[real]) or model.family in ROUNDED
    assert not any("forward" in vars(module) for module in model.module.modules())


def test_each_sequence_runs_its_own_last_position(model: LoadedModel) -> None:
    batch = padded(model)
    batch = Batch({name: tensor.repeat(6, 1) for name, tensor in batch.inputs.items()}, batch.targets.repeat(6, 1))
    clean_pass = record(model, batch, keys_values=True)
    real = batch.inputs["attention_mask"].bool()
    last = real.sum(1) - 1
    columns = slice(model.head_dim, 2 * model.head_dim)

    def zero_last(z: Tensor) -> Tensor:
        z = z.clone()
        z[torch.arange(len(z)), last, columns] = 0
        return z

    seen: list[int] = []
    for layer in range(model.num_layers):
        with torch.inference_mode(), replace_z(model, {layer: zero_last}), record_outputs(model) as expected:
            run_blocks(model, batch)
        handle = model.blocks[-1].register_forward_hook(lambda _m, _i, output: seen.append(hidden_of(output).shape[1]))
        found = ablated_outputs(model, clean_pass, {layer: zero_last}, last)
        handle.remove()
        assert seen[-1:] == ([2] if model.family not in TOGETHER else [batch.targets.shape[1] - int(last.min())])
        for one, other in zip(map(hidden_of, found), map(hidden_of, expected), strict=True):
            torch.testing.assert_close(one[real], other[real], rtol=1e-5, atol=1e-5 * float(other.abs().max()))
            assert torch.equal(one[real], other[real]) or model.family in ROUNDED
    assert model.takes_columns is (model.family not in TOGETHER)


def test_only_later_positions_are_run(model: LoadedModel) -> None:
    if model.family in WHOLE_WAY:
        return
    batch = padded(model)
    clean_pass = record(model, batch, keys_values=True)
    seen: list[int] = []
    handles = [
        block.register_forward_hook(lambda _m, _i, output: seen.append(hidden_of(output).shape[1]))
        for block in model.blocks[1:]
    ]
    ablated_outputs(model, clean_pass, {1: zero_from(model, 1)}, torch.full((3,), START))
    for handle in handles:
        handle.remove()
    assert seen == [batch.targets.shape[1] - START] * (model.num_layers - 1)


@pytest.mark.parametrize(("prompts", "positions"), [(12, "last"), (12, "-9"), (1, "last"), (1, "24-")])
def test_prompts_of_a_bundled_model_are_answered_bit_for_bit(
    opt_mini: LoadedModel, prompts: int, positions: str
) -> None:
    """Of a single prompt somewhat more than its last position is run, so that the bits are the same."""
    data = load_data("task:induction", opt_mini, predictions=prompts)
    spec = AblationSpec(
        Selection.parse("2.3", opt_mini.shape), (METHODS["zero"],), positions=Positions.parse(positions)
    )
    reused = AblationRun(opt_mini, data, spec, None, CleanPassCache(opt_mini, data, keys_values=True))
    assert reused.clean_cache[0].keys_values
    plain = AblationRun(opt_mini, data, spec, None, CleanPassCache(opt_mini, data))
    scores = [run.finish().scores()[1]["zero"] for run in (reused, plain)]
    assert all((scores[0][name] == scores[1][name]).all() for name in scores[0].values)


def test_what_is_not_kept_is_run_whole(opt_mini: LoadedModel) -> None:
    data = load_data("task:induction", opt_mini, predictions=4)
    clean_pass = CleanPassCache(opt_mini, data, limit=0, keys_values=True)[0]
    assert clean_pass.keys_values, "the latest pass is used as it is"
    small = CleanPassCache(opt_mini, data, limit=clean_pass.bytes - 1, keys_values=True)
    assert not small[0].keys_values
