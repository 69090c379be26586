"""timm's models that hold attention in other ways than a plain transformer: every attention's heads are there, or a sentence says why not."""

from pathlib import Path
from typing import Any

import pytest

from tests.models.every_timm_model import try_model

NAFLEX = {"embed_dim": 48, "num_heads": 4}
# By hand, from what each was made with.
WORK: list[tuple[str, dict[str, Any], str]] = [
    ("test_maxvit", {}, "1 × 2, 2 × 2, 3 × 2, 4 × 2"),  # two attentions per block, by windows and across them
    ("naflexvit_base_patch16_parfac_gap", NAFLEX, "4 × 2"),  # its patches are read by no convolution
    ("twins_svt_small", {"embed_dims": (16, 32, 64, 128), "num_heads": (1, 2, 4, 8), "depths": (2, 2, 2, 2), "img_size": 64},
     "1 × 2, 2 × 2, 4 × 2, 8 × 2"),  # windows beside the heads
    ("hiera_tiny_224", {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 2, 1)}, "1 × 1, 2 × 1, 4 × 2, 8 × 1"),
    ("davit_tiny", {"embed_dims": (16, 32, 64, 128), "num_heads": (1, 2, 4, 8), "depths": (1, 1, 1, 1)},
     "1 × 2, 2 × 2, 4 × 2, 8 × 2"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "heads"), WORK, ids=[name for name, _, _ in WORK])
def test_every_attention_of_every_block_has_its_heads(
    tmp_path: Path, name: str, arguments: dict[str, Any], heads: str
) -> None:
    found = try_model(name, tmp_path, **arguments)
    assert found.state == "works" and found.said.endswith(f"heads × layers: {heads}"), found


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("maxvit_tiny_pm_256", {"embed_dim": (32, 32, 32, 32), "depths": (1, 1, 1, 1)}, "attention in several places"),
        ("nest_tiny", {}, "not independent slices"),
        ("test_coatnet", {}, "no linear map that reads them"),
    ],
)
def test_what_cannot_be_ablated_by_heads_says_why(
    tmp_path: Path, name: str, arguments: dict[str, Any], words: str
) -> None:
    found = try_model(name, tmp_path, **arguments)
    assert found.state == "refused" and words in found.said, found
