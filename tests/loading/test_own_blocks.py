"""Models with blocks of a person's own: each head of each attention is there, with its own columns, or a sentence says why not."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer

from ablation_core import load_model
from ablation_core.errors import ModelError
from tests.models.every_family import VOCABULARY, zeroed_gap

WIDTH = 48
fused = nn.functional.scaled_dot_product_attention


class Attends(nn.Module):
    """A norm, attention and its residual, with the heads computed in the module itself."""

    def __init__(self, heads: int = 4, size: int = 12) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.norm = nn.LayerNorm(WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, heads * size) for _ in range(3))
        self.o = nn.Linear(heads * size, WIDTH)

    def parts(self, hidden: Tensor) -> list[Tensor]:
        normed = self.norm(hidden)
        return [linear(normed).unflatten(-1, (self.heads, self.size)) for linear in (self.q, self.k, self.v)]

    def added(self, hidden: Tensor) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in self.parts(hidden))
        return self.o(fused(q, k, v, is_causal=True).transpose(1, 2).flatten(2))

    def forward(self, hidden: Tensor, **_: Any) -> Tensor:
        return hidden + self.added(hidden)


class Feeds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.down(self.up(hidden).relu())


class Deeper(nn.Module):
    """An attention as blocks of transformers have it: a module around its linear maps."""

    def __init__(self, heads: int = 4, size: int = 12) -> None:
        super().__init__()
        self.attention = Attends(heads, size)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.attention(hidden)


class Bare(Attends):
    """A block whose linear maps lie in it directly."""

    def __init__(self) -> None:
        super().__init__()
        self.feeds = Feeds()

    def forward(self, hidden: Tensor, **_: Any) -> Tensor:
        return self.feeds(hidden + self.added(hidden))


class OneAfterAnother(nn.Module):
    """Two attentions, which run in another order than they lie in."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.first, self.feeds = Deeper(2, 10), Deeper(), Feeds()

    def forward(self, hidden: Tensor, **_: Any) -> Tensor:
        return self.feeds(self.second(self.first(hidden)))


class Routed(nn.Module):
    """Attention, and in a part beside it a softmax of four dimensions over three experts."""

    class Router(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores, self.out = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)

        def forward(self, hidden: Tensor) -> Tensor:
            shares = self.scores(hidden).unflatten(-1, (4, 3)).transpose(1, 2).softmax(-1)
            return hidden + self.out(shares.transpose(1, 2).flatten(2))

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.router = Deeper(), self.Router()

    def forward(self, hidden: Tensor, **_: Any) -> Tensor:
        return self.router(self.attention(hidden))


class Windows(Bare):
    """Results (rows, windows, heads, queries, size); a text of ten tokens has as many windows as heads."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        Attends.__init__(self, 3, 16)
        self.feeds = Feeds()

    def added(self, hidden: Tensor) -> Tensor:
        length = hidden.shape[1]
        padded = nn.functional.pad(hidden, (0, 0, 0, -length % 4))
        q, k, v = (part.unflatten(1, (-1, 4)).transpose(2, 3) for part in self.parts(padded))
        z = fused(q, k, v, is_causal=True).transpose(2, 3).flatten(3).flatten(1, 2)
        return self.o(z[:, :length])


class Grouped(Bare):
    """Results (rows, groups, heads of a group, queries, size)."""

    def added(self, hidden: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (2, 2)).permute(0, 2, 3, 1, 4) for part in self.parts(hidden))
        return self.o(fused(q, k, v, is_causal=True).permute(0, 3, 1, 2, 4).flatten(2))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def made(block: type[nn.Module], layers: int = 2) -> nn.Module:
    """A model of a family without a row, with blocks of one's own."""
    config = transformers.OlmoConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=4,
        max_position_embeddings=64,
    )  # fmt: skip
    module = transformers.OlmoForCausalLM(config)
    module.model.layers = nn.ModuleList(block() for _ in range(layers))
    for weight in module.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.15)
    return module.eval()


@pytest.mark.parametrize(
    ("block", "heads", "sizes"),
    [
        (Bare, (4, 4), (12, 12)),
        (OneAfterAnother, (4, 2, 4, 2), (12, 10, 12, 10)),
        (Routed, (4, 4), (12, 12)),
        (Windows, (3, 3), (16, 16)),
        (Grouped, (4, 4), (12, 12)),
    ],
)
def test_every_head_is_there(block: type[nn.Module], heads: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    model = load_model(made(block))
    assert model.shape.heads == heads
    assert tuple(model.shape.size(layer) for layer in range(model.num_layers)) == sizes
    assert zeroed_gap(model) < 1e-5


class SideBySide(nn.Module):
    """Two attentions of which neither is a block: both are added at once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Attends(), Attends(2, 10)

    def forward(self, hidden: Tensor, **_: Any) -> Tensor:
        return hidden + self.first.added(hidden) + self.second.added(hidden)


class PartAndSelf(Bare):
    """One attention in a part, and another in the block itself behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.before = Attends()

    def forward(self, hidden: Tensor, **_: Any) -> Tensor:
        return super().forward(self.before(hidden))


class TwoKinds(Bare):
    """Four heads of one kind and two of another, which one linear map reads side by side."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        Attends.__init__(self, 6, 12)
        self.feeds = Feeds()

    def added(self, hidden: Tensor) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in self.parts(hidden))
        kinds = [fused(q[:, one], k[:, one], v[:, one], is_causal=True) for one in (slice(4), slice(4, 6))]
        return self.o(torch.cat(kinds, 1).transpose(1, 2).flatten(2))


class Torchs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)

    def forward(self, hidden: Tensor, **_: Any) -> Tensor:
        later = torch.ones(hidden.shape[1], hidden.shape[1], dtype=torch.bool).triu(1)
        return hidden + self.attention(hidden, hidden, hidden, attn_mask=later, need_weights=False)[0]


class TorchsBeside(Bare):
    def __init__(self) -> None:
        super().__init__()
        self.torchs = Torchs()

    def forward(self, hidden: Tensor, **_: Any) -> Tensor:
        return super().forward(self.torchs(hidden))


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (SideBySide, "in several places: first.o reads the heads of one, second.o those of another"),
        (PartAndSelf, "in several places: before.o reads the heads of one, o those of another"),
        (TwoKinds, "not independent slices of the 72 values that o reads"),
        (Torchs, r"\(model.layers.0.attention\) is torch.nn.MultiheadAttention"),
        (TorchsBeside, r"\(model.layers.0.torchs.attention\) is torch.nn.MultiheadAttention"),
    ],
)
def test_what_would_hide_heads_is_refused(block: type[nn.Module], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(made(block))


def test_a_second_attention_in_a_known_family_s_blocks_is_refused() -> None:
    class Block(LlamaDecoderLayer):
        def __init__(self, config: Any, layer: int) -> None:
            super().__init__(config, layer)
            self.another = LlamaAttention(config, layer + config.num_hidden_layers)

        def forward(self, hidden_states: Tensor, **options: Any) -> Tensor:
            hidden = super().forward(hidden_states, **options)
            return hidden + self.another(hidden_states=hidden, **options)[0]

    config = transformers.LlamaConfig(
        vocab_size=99, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    module = transformers.LlamaForCausalLM(config).eval()
    module.model.layers = nn.ModuleList(Block(config, layer) for layer in range(2))
    with pytest.raises(ModelError, match=r"self_attn\.o_proj reads the heads of one, another.o_proj those of another"):
        load_model(module)
