"""Where blocks and projections are looked for, on models of a few lines; and what is refused, with its reason."""

from types import SimpleNamespace

import pytest
from torch import nn

from ablation_core.errors import ModelError
from ablation_core.models.architectures import Architecture, find_modules, find_projections, find_shape, input_width
from ablation_core.models.loaded import wrap
from ablation_core.models.structure import find_by_structure


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


def test_an_unknown_model_is_known_by_the_one_projection_behind_its_queries() -> None:
    found = find_by_structure(Tower(Block(), Block()), "tower", "masked")
    assert (found.blocks, found.projection, found.modality) == ("layers.*", "attention.out", "masked")
    assert not found.verified


def test_an_unknown_model_in_which_nothing_makes_queries_is_refused() -> None:
    plain = Tower(nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2)))
    for tower in (Tower(), plain):
        with pytest.raises(
            ModelError, match=r"No attention output projection was found in this tower model\. Supported"
        ):
            find_by_structure(tower, "tower", "causal")


def test_an_unknown_model_with_two_candidates_is_refused_with_both() -> None:
    tower = Tower(Block(), Block())
    for block in tower.layers:
        block.attention.gate = nn.Linear(6, 6)
    with pytest.raises(ModelError, match=r"ambiguous: in layers it could be attention\.gate or attention\.out\."):
        find_by_structure(tower, "tower", "causal")


def test_a_text_model_reads_no_images() -> None:
    with pytest.raises(ModelError, match="reads text, not images"):
        wrap("tower", Tower(Block()), ROW).to_pixels(None)
