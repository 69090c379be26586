"""Where blocks and projections are looked for, on models of a few lines; and what is refused, with its reason."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ablation_core.errors import ModelError
from ablation_core.models.architectures import Architecture, find_modules, find_projections, find_shape, input_width
from ablation_core.models.loaded import wrap
from ablation_core.models.structure import Structure, find_structure


class Attention(nn.Module):
    def __init__(self, width: int = 6, heads: int = 2, inner: int | None = None) -> None:
        super().__init__()
        self.num_heads = heads
        self.query = nn.Linear(width, inner or width)
        self.out = nn.Linear(inner or width, width)


class Block(nn.Module):
    def __init__(self, **sizes: int) -> None:
        super().__init__()
        self.attention = Attention(**sizes)


class Tower(nn.Module):
    def __init__(self, *blocks: nn.Module, heads: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)
        self.config = SimpleNamespace(num_attention_heads=heads)


ROW = Architecture("tower", "causal", "layers.*", "attention.out")
OWN_HEADS = Architecture("tower", "causal", "layers.*", "attention.out", heads="attention.num_heads")


def test_paths_lead_to_modules_in_order() -> None:
    tower = Tower(Block(), Block())
    assert find_modules(tower, "layers.*") == list(tower.layers)
    assert find_modules(tower, "layers.*.attention.out") == [block.attention.out for block in tower.layers]


def test_a_shape_from_the_configuration_and_from_each_block() -> None:
    assert str(wrap("tower", Tower(Block(), Block()), ROW).shape) == "2 layers of 2 heads of 3 neurons"
    assert wrap("tower", Tower(Block(), Block(inner=8)), ROW).shape.sizes == (3, 4)
    ragged = Tower(Block(heads=2), Block(inner=9, heads=3))
    assert wrap("tower", ragged, OWN_HEADS).shape.heads == (2, 3)
    assert wrap("tower", ragged, OWN_HEADS).num_heads == (2, 3)


def test_a_transposed_weight_has_its_inputs_first() -> None:
    transposed = SimpleNamespace(weight=nn.Parameter(nn.Linear(3, 5).weight.detach().T))
    assert input_width(nn.Linear(3, 5)) == input_width(transposed) == 3


def sharing() -> Tower:
    """Two blocks with one attention between them."""
    tower = Tower(Block(), Block())
    tower.layers[1].attention = tower.layers[0].attention
    return tower


@pytest.mark.parametrize(
    ("tower", "row", "words"),
    [
        (
            Tower(nn.Linear(2, 2)),
            ROW,
            "calls itself tower, but is not built like one.*expected at layers.*attention.out",
        ),
        (Tower(), ROW, "no blocks at layers.*no attention head to ablate"),
        (sharing(), ROW, "Layers of this tower model share their attention"),
        (Tower(Block(), heads=4), ROW, "Layer 0 concatenates 6 values from 4 heads: not a whole head size"),
    ],
)
def test_models_that_are_not_built_as_their_row_says(tower: nn.Module, row: Architecture, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        wrap("tower", tower, row)


def test_what_has_two_heads_of_three_has_no_heads_of_four() -> None:
    blocks, projections = find_projections(ROW, Tower(Block(), Block()))
    assert find_shape(ROW, Tower(Block(), heads=3), blocks, [6, 6]).head_dim == 2
    assert projections[1] is blocks[1].attention.out


class Attending(nn.Module):
    """Softmax attention of a few lines, with a gate beside its output projection."""

    def __init__(self, width: int = 6, heads: int = 2, mixed: bool = False) -> None:
        super().__init__()
        self.heads, self.mixed = heads, mixed
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.gate, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        z = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        z = z * self.gate(x).sigmoid()
        return self.out(z.cumsum(-1) if self.mixed else z)


class Layer(nn.Module):
    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mixer(x)


class Runs(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def structure(module: nn.Module) -> Structure:
    torch.manual_seed(0)
    for weight in module.parameters():
        weight.data.normal_()
    return find_structure(module, "tower", "causal", None, {"x": torch.randn(1, 5, 6)}, lambda batch: module(**batch))


def test_heads_are_found_by_running_past_a_gate_and_a_layer_without_them() -> None:
    module = Runs(Layer(Attending()), Layer(nn.Linear(6, 6)), Layer(Attending(heads=3)))
    found = structure(module)
    assert (found.architecture.blocks, found.architecture.projection) == ("layers.*", "mixer.out")
    assert (found.shape.heads, found.shape.sizes, found.shape.neurons) == ((2, 0, 3), (3, 0, 2), 12)
    assert found.projections[2] is module.layers[2].mixer.out
    assert found.projections[1].mixer == "Linear"


def test_a_model_without_softmax_attention_is_refused() -> None:
    with pytest.raises(ModelError, match="No softmax attention was seen"):
        structure(Runs(Layer(nn.Linear(6, 6)), Layer(nn.Linear(6, 6))))


def test_heads_that_are_mixed_before_their_projection_are_refused() -> None:
    with pytest.raises(ModelError, match=r"not independent slices of the 6 values that mixer\.out reads"):
        structure(Runs(Layer(Attending(mixed=True))))


def test_blocks_in_two_lists_are_refused_with_both() -> None:
    class Two(Runs):
        def __init__(self) -> None:
            super().__init__(Layer(Attending()))
            self.more = nn.ModuleList([Layer(Attending())])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.more[0](super().forward(x))

    with pytest.raises(ModelError, match=r"several lists of blocks \(layers\.\*, more\.\*\)"):
        structure(Two())


def test_a_block_that_runs_twice_is_refused() -> None:
    class Twice(Runs):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(super().forward(x))

    with pytest.raises(ModelError, match="Layer 0 of this tower model runs 2 times"):
        structure(Twice(Layer(Attending())))


def test_a_text_model_reads_no_images() -> None:
    with pytest.raises(ModelError, match="reads text, not images"):
        wrap("tower", Tower(Block()), ROW).to_pixels(None)
