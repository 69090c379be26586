"""Ways past a block's attention: found where nothing but the z decides, and nowhere else."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from ablation_core.engine import clean_passes, forward
from ablation_core.engine.shortcuts import find_shortcuts
from tests import tiny

WIDTH = 6


class Attention(nn.Module):
    """Mixes positions, projects, and does something with the result."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self.mix, self.out, self.end = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), end

    def forward(self, x: Tensor) -> Tensor | tuple:
        made = self.out(torch.tanh(self.mix(x)).cumsum(1))
        if self.end == "clamped":
            return made.clamp(-1e4, 1e4)  # the same values, but for large ones
        if self.end == "in place":
            return made.mul_(1.0)
        if self.end == "residual":
            return made + x
        if self.end == "viewed":
            return made.flatten().view_as(made)
        return (made, made.softmax(-1)) if self.end == "weights" else made


class Block(nn.Module):
    def __init__(self, end: str) -> None:
        super().__init__()
        self.attention = Attention("weights" if end == "used weights" else end)
        self.mlp, self.end = nn.Linear(WIDTH, WIDTH), end

    def forward(self, x: Tensor) -> Tensor:
        given = self.attention(x)
        hidden = given[0] if isinstance(given, tuple) else given
        if self.end == "twice":
            hidden = hidden + self.attention(x + 1)
        if self.end == "used weights":
            hidden = hidden * given[1]
        return x + hidden + self.mlp(x)


class Apart(nn.Module):
    """As BERT: one module makes the z, the projection lies outside it."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.heads, self.out, self.gated = (
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()),
            nn.Linear(WIDTH, WIDTH),
            gated,
        )

    def forward(self, x: Tensor) -> Tensor:
        z = self.heads(x)
        return x + self.out(z.mul_(0.5) if self.gated else z)


def found(block: nn.Module, projection: nn.Module) -> str | None:
    """The name of the module that the shortcut replaces."""
    x = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    model = SimpleNamespace(blocks=[block], projections=[projection], num_layers=1, streams=1)
    before = {name: len(m._forward_hooks) for name, m in block.named_modules()}
    (shortcut,) = find_shortcuts(model, lambda: block(x))
    assert before == {name: len(m._forward_hooks) for name, m in block.named_modules()}
    assert not any("forward" in vars(m) for m in block.modules())
    return next((name for name, m in block.named_modules() if shortcut and m is shortcut.module), None)


@pytest.mark.parametrize("end", ["plain", "viewed", "weights"])
def test_what_hands_the_projections_output_on_is_passed_by(end: str) -> None:
    block = Block(end)
    assert found(block, block.attention.out) == "attention"


@pytest.mark.parametrize("end", ["clamped", "in place", "residual", "twice", "used weights"])
def test_what_does_more_is_not(end: str) -> None:
    block = Block(end)
    assert found(block, block.attention.out) is None


def test_what_makes_the_pre_out_is_passed_by_unless_that_is_changed_behind_it() -> None:
    plain, gated = Apart(gated=False), Apart(gated=True)
    assert found(plain, plain.out) == "heads"
    assert found(gated, gated.out) is None


def test_what_other_tools_put_on_the_attention_stays() -> None:
    model, batch = tiny.build("llama"), tiny.batch(tiny.build("llama"))
    attention = model.blocks[1].self_attn
    own, ran = attention.forward, []
    attention.forward = lambda *args, **kwargs: own(*args, **kwargs)  # as accelerate, or a profiler, does
    theirs = attention.forward
    handle = attention.q_proj.register_forward_hook(lambda *_: ran.append(1))
    clean_pass = forward.record(model, batch)
    assert 1 in clean_pass.z_values
    ran.clear()
    clean_passes.ablated_output(model, clean_pass, {1: torch.zeros_like})
    assert not ran and attention.forward is theirs
    forward.record(model, batch)
    assert ran == [1]
    handle.remove()
