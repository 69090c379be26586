"""Every family of the installed transformers, made tiny: it works, or it is refused with a sentence; never wrong, never a traceback."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoConfig

from ablation_core import load_model
from ablation_core.data.dataset import Batch
from ablation_core.engine import forward, scoring
from tests.models.every_family import KINDS, VOCABULARY, Sizes, build, try_family, zeroed_gap

# of those that read images too, some: their towers make them large
IMAGE_TEXT = (
    "aria", "gemma3", "gemma4", "idefics3", "internvl", "lfm2_vl", "llava", "mistral3", "paligemma", "qwen2_5_vl", "qwen3_vl", "smolvlm",
)  # fmt: skip
ALL = [
    (kind, family)
    for kind, row in KINDS.items()
    for family in sorted(IMAGE_TEXT if kind == "image-text" else row.names)
]
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


FLAGS = ("use_cache", "output_attentions", "output_hidden_states", "return_dict", "output_router_logits", "torchscript")
WINDOWS = ("sliding_window", "window_size", "local_attention", "attention_window")


@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 2, 3))])
@pytest.mark.parametrize(("kind", "family"), VARIED)
def test_zero_ablation_is_zeroed_columns_at_any_sizes(tmp_path: Path, kind: str, family: str, number: int) -> None:
    draw = random.Random(f"{family} {number}")
    key_value_heads = draw.choice([1, 2, 3])
    heads = key_value_heads * draw.choice([1, 2]) * (4 if family == "diffllama" else 2)  # two of these make one head
    sizes = Sizes(
        draw.choice([2, 3, 4]),
        heads,
        heads if family in ("deepseek_v3", "diffllama") else key_value_heads,
        draw.choice([6, 8, 10, 14]),
    )
    build(kind, family, tmp_path, sizes)
    reconfigure(tmp_path / "config.json", draw)
    model = load_model(str(tmp_path), device="cpu", dtype="float32")
    expected = heads // 2 if family == "diffllama" else heads
    assert {count for count in model.shape.heads if count} == {expected}
    assert zeroed_gap(model) < 1e-4
    config = AutoConfig.from_pretrained(tmp_path, **dict.fromkeys(FLAGS[1:], False) | {"return_dict": True})
    plain = getattr(transformers, KINDS[kind].auto).from_pretrained(tmp_path, config=config, dtype=torch.float32).eval()
    ids = torch.randint(5, VOCABULARY, (3, 14), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        own = plain(input_ids=ids, attention_mask=mask, use_cache=False) if kind == "causal" else plain(ids, mask)
        losses = torch.nn.functional.cross_entropy(own.logits.double().flatten(0, 1), ids.flatten(), reduction="none")
    clean = forward.record(model, Batch({"input_ids": ids, "attention_mask": mask}, ids))
    np.testing.assert_allclose(scoring.score_outputs(model, clean, [])[0].loss, losses, atol=1e-4)


def reconfigure(file: Path, draw: random.Random) -> None:
    """Flags that change what a forward returns, and windows, as a person's config.json may have them."""
    settings = json.loads(file.read_text())
    changes = {name: draw.random() < 0.5 for name in FLAGS if name in settings or name in FLAGS[:4]}
    changes |= {name: draw.choice([4, 8, 12]) for name in WINDOWS if isinstance(settings.get(name), int)}
    file.write_text(json.dumps(settings | changes))
