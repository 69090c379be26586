"""Hooks on a model small enough to be written out: what they see, what they change, and that nothing is left."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from ablation_core.engine.hooks import (
    capture_z,
    hidden_of,
    join_z,
    record_outputs,
    replace_z,
    skip_blocks,
)
from ablation_core.models.architectures import ARCHITECTURES
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import ModelShape


class Projection(nn.Module):
    """Weighs its input; the weight comes as a second positional input, as some families hand one on."""

    def forward(self, z: Tensor, weight: Tensor) -> Tensor:
        return z * weight


class Block(nn.Module):
    def __init__(self, weight: float) -> None:
        super().__init__()
        self.projection, self.weight, self.calls = Projection(), torch.tensor(weight), 0

    def forward(self, hidden: Tensor, shift: float = 0.0) -> Tensor:
        self.calls += 1
        return hidden + self.projection(hidden.square() + shift, self.weight)


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(2.0), Block(3.0), Block(5.0)])

    def forward(self, hidden: Tensor) -> Tensor:
        for block in self.blocks:
            hidden = block(hidden, shift=1.0)
        return hidden


INPUT = torch.tensor([[[1.0], [2.0]]])  # (batch, position, width)
# By hand, for 1: 1 + 2·(1 + 1) = 5; 5 + 3·(25 + 1) = 83; 83 + 5·(6889 + 1) = 34533. For 2: 12, 447, 999 497 …
PRE_OUTS = [[2.0, 5.0], [26.0, 145.0], [6890.0, 199810.0]]
OUTPUTS = [[5.0, 12.0], [83.0, 447.0], [34533.0, 999497.0]]


@pytest.fixture
def model() -> LoadedModel:
    tower = Tower()
    blocks = list(tower.blocks)
    projections = [block.projection for block in blocks]
    return LoadedModel("tower", tower, ARCHITECTURES["opt"], ModelShape((1, 1, 1), 1), blocks, projections)


def hooks_in(model: LoadedModel) -> int:
    own = sum("forward" in module.__dict__ for module in model.module.modules())
    return own + sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.module.modules())


def test_the_example_is_computed_right(model: LoadedModel) -> None:
    assert model.module(INPUT).flatten().tolist() == OUTPUTS[-1]


@pytest.mark.parametrize("layers", [[0, 1, 2], [1], [2, 0], []])
def test_captured_are_the_pre_outs_of_these_layers(model: LoadedModel, layers: list[int]) -> None:
    with capture_z(model, layers) as captured:
        result = model.module(INPUT.clone().requires_grad_())
    assert {layer: tensor.flatten().tolist() for layer, tensor in captured.items()} == {
        layer: PRE_OUTS[layer] for layer in layers
    }
    assert all(tensor.shape == (1, 2, 1) and not tensor.requires_grad for tensor in captured.values())
    assert result.flatten().tolist() == OUTPUTS[-1]


def test_the_latest_pass_is_the_one_captured(model: LoadedModel) -> None:
    with capture_z(model, [0]) as captured:
        model.module(INPUT * 7)
        model.module(INPUT)
    model.module(INPUT * 7)
    assert captured[0].flatten().tolist() == PRE_OUTS[0]


def test_gradients_reach_every_joined_pre_out(model: LoadedModel) -> None:
    with join_z(model) as joined:
        model.module(INPUT).sum().backward(inputs=list(joined.values()))
    assert list(joined) == [0, 1, 2]
    assert [tensor.flatten().tolist() for tensor in joined.values()] == PRE_OUTS
    assert joined[0].is_leaf
    # By hand: the last z counts 5 times; the output before it 1 + 5·2·83 times; and so on.
    outer = [1 + 10 * value for value in OUTPUTS[1]]
    inner = [gain * (1 + 6 * value) for gain, value in zip(outer, OUTPUTS[0], strict=True)]
    assert joined[2].grad.flatten().tolist() == [5.0, 5.0]
    assert joined[1].grad.flatten().tolist() == [3 * gain for gain in outer]
    assert joined[0].grad.flatten().tolist() == [2 * gain for gain in inner]


def test_without_gradients_joining_changes_no_number(model: LoadedModel) -> None:
    with join_z(model):
        assert model.module(INPUT).flatten().tolist() == OUTPUTS[-1]


def test_each_layer_reads_its_own_replacement(model: LoadedModel) -> None:
    seen = []

    def by_ten(z: Tensor) -> Tensor:
        seen.append(z.clone())
        return torch.full_like(z, 10.0)

    with replace_z(model, {1: by_ten, 2: lambda z: z * 0}):
        result = model.module(INPUT)
    assert seen[0].flatten().tolist() == PRE_OUTS[1]
    assert result.flatten().tolist() == [5.0 + 3 * 10, 12.0 + 3 * 10]


def test_replacing_by_what_is_there_changes_no_bit(model: LoadedModel) -> None:
    with replace_z(model, dict.fromkeys(range(3), lambda z: z)):
        assert model.module(INPUT).flatten().tolist() == OUTPUTS[-1]


def test_outputs_are_recorded_in_the_order_of_the_blocks(model: LoadedModel) -> None:
    with record_outputs(model) as every, record_outputs(model, 1) as later:
        assert model.module(INPUT).flatten().tolist() == OUTPUTS[-1]
    assert [output.flatten().tolist() for output in every] == OUTPUTS
    assert [output.flatten().tolist() for output in later] == OUTPUTS[1:]


@pytest.mark.parametrize("skipped", [0, 1, 2, 3])
def test_skipped_blocks_give_what_they_are_told_and_compute_nothing(model: LoadedModel, skipped: int) -> None:
    outputs = [torch.tensor(row)[None, :, None] for row in OUTPUTS]
    with skip_blocks(model, outputs[:skipped]):
        assert model.module(INPUT * 0 if skipped else INPUT).flatten().tolist() == OUTPUTS[-1]
    assert [block.calls for block in model.blocks] == [0] * skipped + [1] * (3 - skipped)
    assert model.module(INPUT).flatten().tolist() == OUTPUTS[-1]


def test_a_forward_that_another_tool_put_there_is_put_back(model: LoadedModel) -> None:
    def foreign(hidden: Tensor, shift: float = 0.0) -> Tensor:
        return hidden * 0

    model.blocks[0].forward = foreign
    with skip_blocks(model, [INPUT, INPUT]):
        pass
    assert model.blocks[0].forward is foreign
    assert "forward" not in model.blocks[1].__dict__


CONTEXTS: dict[str, Callable[[LoadedModel], AbstractContextManager]] = {
    "capture": lambda model: capture_z(model, range(3)),
    "join": join_z,
    "replace": lambda model: replace_z(model, dict.fromkeys(range(3), torch.zeros_like)),
    "record": lambda model: record_outputs(model),
    "skip": lambda model: skip_blocks(model, [INPUT, INPUT]),
}


@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_but_its_own_hooks_is_removed_whatever_happens(model: LoadedModel, name: str, fails: bool) -> None:
    foreign = [
        model.projections[1].register_forward_pre_hook(lambda *_: None),
        model.blocks[1].register_forward_hook(lambda *_: None),
    ]
    before = hooks_in(model)
    try:
        with CONTEXTS[name](model):
            assert hooks_in(model) > before
            if fails:
                raise RuntimeError("the model fails")
    except RuntimeError:
        assert fails
    assert hooks_in(model) == before
    assert list(model.projections[1]._forward_pre_hooks) == [foreign[0].id]
    assert list(model.blocks[1]._forward_hooks) == [foreign[1].id]
    assert model.module(INPUT).flatten().tolist() == OUTPUTS[-1]


def test_hooks_put_in_before_a_layer_that_is_missing_are_gone_too(model: LoadedModel) -> None:
    with pytest.raises(IndexError), capture_z(model, [0, 1, 7]):
        pass
    assert hooks_in(model) == 0


def test_hidden_states_are_an_output_or_its_first_part() -> None:
    assert hidden_of(INPUT) is INPUT
    assert hidden_of((INPUT, "attention")) is INPUT
