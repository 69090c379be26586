"""Attention patterns against the model's own, for every family that gives them."""

import copy

import numpy as np
import pytest
import torch
import transformers

from ablation_core.engine.clean_passes import constant_replacements
from ablation_core.errors import AblationError, ModelError, SelectionError
from ablation_core.heads.attention import attention_pattern, layer_patterns
from ablation_core.models.architectures import Architecture
from ablation_core.models.loaded import LoadedModel, wrap
from ablation_core.selection import Selection
from tests import tiny

WINDOWED = ("swin", "SwinTransformer")
# Learned sinks, and ALiBi in two ways: where the projection is, configuration, arguments
OTHERS = {
    "gpt_oss": ("model.layers.* self_attn.o_proj", "GptOssConfig", tiny.LLAMA | {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1,
                "sliding_window": 4}),
    "mpt": ("transformer.blocks.* attn.out_proj", "MptConfig", {"d_model": 32, "n_heads": 4, "n_layers": 3, "vocab_size": tiny.VOCAB, "max_seq_len": 64}),
    "falcon": ("transformer.h.* self_attention.dense", "FalconConfig", tiny.TEXT | tiny.IDS | {"multi_query": True, "alibi": True}),
}  # fmt: skip


def own_attentions(module: torch.nn.Module) -> LoadedModel:
    """The same weights in a module that gives its attentions: built so, as some families decide it then."""
    config = copy.deepcopy(module.config)
    config._attn_implementation_internal = None
    with torch.device("cpu"):
        twin = type(module)._from_config(config, attn_implementation="eager")
    twin.load_state_dict(module.state_dict())
    return twin.eval()


def compare(model: LoadedModel) -> list[np.ndarray]:
    batch = tiny.batch(model)
    patterns = [layer_patterns(model, batch, layer) for layer in range(model.num_layers)]
    with torch.no_grad():
        expected = own_attentions(model.module)(**batch.inputs, output_attentions=True).attentions
    for pattern, own in zip(patterns, expected, strict=True):
        assert pattern.dtype == np.float32
        np.testing.assert_allclose(pattern, own.float().numpy(), atol=2e-6)
    return patterns


@pytest.mark.parametrize("family", [family for family in tiny.TRANSFORMERS if family not in WINDOWED])
def test_a_pattern_is_the_models_own(family: str) -> None:
    for pattern in compare(tiny.build(family)):
        np.testing.assert_allclose(pattern.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_sinks_and_alibi(name: str) -> None:
    torch.manual_seed(0)
    where, kind, arguments = OTHERS[name]
    # eager, as Falcon's two implementations scale ALiBi differently
    config = getattr(transformers, kind)(**arguments)
    module = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    module = module.eval().requires_grad_(False)
    patterns = compare(wrap(name, module, Architecture(name, "causal", *where.split())))
    sums = patterns[0].sum(-1)
    assert (sums < 0.999).all() if name == "gpt_oss" else np.allclose(sums, 1, atol=1e-5)  # the sink takes the rest


@pytest.mark.parametrize("family", [family for family in tiny.TIMM if family not in WINDOWED])
def test_timm_patterns_make_z(family: str) -> None:
    """timm gives no attentions: with fused attention off, its own softmax is seen, and must be the same."""
    model = tiny.build(family)
    batch = tiny.batch(model)
    fused = layer_patterns(model, batch, 1)
    for block in model.blocks:
        block.attn.fused_attn = False
    np.testing.assert_allclose(fused, layer_patterns(model, batch, 1), atol=2e-6)
    np.testing.assert_allclose(fused.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("family", WINDOWED)
def test_windows_within_an_image_are_refused(family: str) -> None:
    model = tiny.build(family)
    with pytest.raises(ModelError, match="within windows"):
        layer_patterns(model, tiny.batch(model), 0)


def test_what_is_more_than_weighting_values_is_refused() -> None:
    module = transformers.AutoModelForCausalLM.from_config(transformers.DiffLlamaConfig(**tiny.LLAMA)).eval()
    model = wrap("diffllama", module, Architecture("diffllama", "causal", "model.layers.*", "self_attn.o_proj"))
    with pytest.raises(ModelError, match="not the z"):
        layer_patterns(model, tiny.batch(model), 0)


def test_a_window_of_attention_shows() -> None:
    pattern = attention_pattern(tiny.build("mistral"), torch.arange(5, 17), "1.2")
    rows, columns = np.indices(pattern.shape)
    assert (pattern[(columns > rows) | (columns <= rows - 4)] == 0).all()
    assert (pattern[(columns <= rows) & (columns > rows - 4)] > 0).all()


def test_ablating_an_earlier_head_changes_the_pattern_and_leaves_no_trace() -> None:
    model = tiny.build("llama")
    ids = torch.arange(5, 17)
    before = attention_pattern(model, ids, "2.1")
    zeros = np.zeros((3, 4, model.head_dim), np.float32)
    earlier = constant_replacements(Selection.parse("0.*", model.shape), zeros, model)
    assert not np.allclose(before, attention_pattern(model, ids, "2.1", earlier), atol=1e-4)
    later = constant_replacements(Selection.parse("2.0", model.shape), zeros, model)
    assert (attention_pattern(model, ids, "2.1", later) == before).all()
    assert (attention_pattern(model, ids, "2.1") == before).all()
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.module.modules())


def test_a_text_and_an_image(opt_mini: LoadedModel, vit_mini: LoadedModel) -> None:
    from PIL import Image

    pattern = attention_pattern(opt_mini, "def f(x):", "3.2")
    assert pattern.shape[0] == pattern.shape[1] > 3 and (np.triu(pattern, 1) == 0).all()
    assert attention_pattern(vit_mini, Image.new("L", (28, 28), 90), "3.2").shape == (50, 50)


@pytest.mark.parametrize(
    ("own", "select"),
    [
        ("", "3.2"),
        ("x " * 5000, "3.2"),
        ("a", "3.2 3.3"),
        ("a", "9.9"),
        ("a", "3.2:1-4"),
        (7, "3.2"),
        (torch.tensor([-5, 3]), "3.2"),
    ],
)
def test_what_cannot_be_shown_gets_a_sentence(opt_mini: LoadedModel, own: str, select: str) -> None:
    with pytest.raises((AblationError, SelectionError), match=r"\w+ .*\."):
        attention_pattern(opt_mini, own, select)
