"""Every family of the installed transformers, made tiny: it works, or it is refused with a sentence; never wrong, never a traceback."""

import random
from pathlib import Path

import pytest

from ablation_core import load_model
from tests.models.every_family import KINDS, Sizes, build, try_family, zeroed_gap

ALL = [(kind, family) for kind, row in KINDS.items() for family in sorted(row.names)]
# families of all sorts: latent attention, hybrids, gates, grouped queries, parallel blocks, post-norms, encoders
VARIED = [
    ("causal", "gpt2"), ("causal", "llama"), ("causal", "falcon"), ("causal", "gpt_neox"), ("causal", "bloom"),
    ("causal", "qwen3"), ("causal", "gemma2"), ("causal", "mistral"), ("causal", "mixtral"), ("causal", "opt"),
    ("causal", "openai-gpt"), ("causal", "mpt"), ("causal", "afmoe"), ("causal", "deepseek_v3"), ("causal", "lfm2"),
    ("causal", "qwen3_next"), ("causal", "diffllama"), ("masked", "bert"), ("masked", "deberta-v2"), ("masked", "modernbert"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "family"), ALL)
def test_a_family_works_or_says_why_not(tmp_path: Path, kind: str, family: str) -> None:
    found = try_family(kind, family, tmp_path)
    if found.state == "not made":
        pytest.skip(found.said)
    assert found.state in ("works", "refused"), found.said
    if "Unrecognized configuration class" not in found.said:  # transformers has no class for this configuration alone
        assert "cannot be loaded" not in found.said, found.said  # not a sentence about the model


@pytest.mark.parametrize(("kind", "family"), VARIED)
def test_zero_ablation_is_zeroed_columns_at_any_sizes(tmp_path: Path, kind: str, family: str) -> None:
    draw = random.Random(family)
    key_value_heads = draw.choice([1, 2, 3])
    heads = key_value_heads * draw.choice([1, 2]) * 2
    sizes = Sizes(
        draw.choice([2, 3]),
        heads,
        heads if family in ("deepseek_v3", "diffllama") else key_value_heads,
        draw.choice([6, 8, 10]),
    )
    build(kind, family, tmp_path, sizes)
    model = load_model(str(tmp_path), device="cpu", dtype="float32")
    expected = heads // 2 if family == "diffllama" else heads
    assert {count for count in model.shape.heads if count} == {expected}
    assert zeroed_gap(model) < 1e-4
