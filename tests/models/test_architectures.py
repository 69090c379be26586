"""Where blocks and projections are looked for, on models of a few lines; and what is refused, with its reason."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from ablation_core.errors import ModelError
from ablation_core.models.architectures import Architecture, find_modules, find_projections, find_shape, input_width
from ablation_core.models.loaded import wrap
from ablation_core.models.structure import Structure, find_structure
from ablation_core.selection import ModelShape


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
        (Tower(Block(), Block(inner=8)), ROW, r"Head sizes differ between layers \(\[3, 4\]\)"),
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
    """Causal attention that runs; `mixed` turns the heads' values among each other before the output map reads them."""

    def __init__(self, width: int = 6, heads: int = 2, mixed: bool = False) -> None:
        super().__init__()
        self.num_heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mixed = mixed

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        parts = [made(x).view(rows, length, self.num_heads, -1) for made in (self.query, self.key, self.value)]
        query, key, value = (part.transpose(1, 2) for part in parts)
        z = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        z = z.transpose(1, 2).reshape(rows, length, width)
        return self.out(z + z.flip(-1) if self.mixed else z)


class Running(Tower):
    """A tower whose blocks are attention itself, or whatever is given."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def found_in(tower: nn.Module, row: Architecture | None = None) -> Structure:
    torch.manual_seed(0)
    inputs = {"x": torch.randn(1, 5, 6)}
    return find_structure(tower, "tower", "causal", row, inputs, lambda given: tower(**given))


def test_an_unknown_model_is_known_by_what_reads_its_heads_when_it_runs() -> None:
    tower = Running(Attending(), Attending())
    found = found_in(tower)
    assert (found.architecture.blocks, found.architecture.projection) == ("layers.*", "out")
    assert not found.architecture.verified
    assert found.shape == ModelShape((2, 2), 3)
    assert found.projections == [layer.out for layer in tower.layers]


def test_an_unknown_model_in_which_nothing_attends_is_refused() -> None:
    with pytest.raises(ModelError, match="No softmax attention was seen while this tower model ran"):
        found_in(Running(nn.Linear(6, 6), nn.Linear(6, 6)))


def test_an_unknown_model_whose_heads_are_mixed_before_they_are_read_is_refused() -> None:
    with pytest.raises(ModelError, match="not independent slices of the 6 values that out reads"):
        found_in(Running(Attending(mixed=True), Attending(mixed=True)))


def test_a_model_that_reads_its_heads_elsewhere_than_its_row_says_is_refused() -> None:
    row = Architecture("tower", "causal", "layers.*", "value")
    with pytest.raises(ModelError, match="its heads are read by out, and value was expected"):
        found_in(Running(Attending(), Attending()), row)


def test_a_model_with_other_heads_than_its_configuration_says_is_refused() -> None:
    row = Architecture("tower", "causal", "layers.*", "out")
    with pytest.raises(ModelError, match="has 2 heads per layer when it runs, and its configuration says 3"):
        found_in(Running(Attending(), Attending(), heads=3), row)


def test_a_block_that_runs_twice_is_refused() -> None:
    once = Attending()
    with pytest.raises(ModelError, match="runs 2 times in a pass"):
        found_in(Running(once, once), Architecture("tower", "causal", "layers.*", "out"))


def test_a_text_model_reads_no_images() -> None:
    with pytest.raises(ModelError, match="reads text, not images"):
        wrap("tower", Tower(Block()), ROW).to_pixels(None)
