"""What is tried on a model when it is loaded: small models of the kinds that people bring, each with what is right."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from ablation_core import ablate, load_data, load_model
from ablation_core.errors import ModelError
from ablation_core.loading.images.pixels import image_mode
from ablation_core.loading.memory import weight_bytes
from tests import tiny
from tests.models.every_family import Sizes, build

TEXT = tiny.TEXT | tiny.IDS | tiny.WIDE | {"vocab_size": 4096}


def saved(folder: Path, class_name: str, config: transformers.PretrainedConfig, tokenizer: str = "opt-mini") -> str:
    from ablation_core import bundled

    torch.manual_seed(0)
    module = getattr(transformers, class_name)(config)
    for weight in module.parameters():
        weight.data.add_(0.2 * torch.randn_like(weight))
    module.save_pretrained(folder)
    if tokenizer:
        transformers.AutoTokenizer.from_pretrained(bundled.FOLDER / tokenizer).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("class_name", "config", "words"),
    [
        ("GPT2ForTokenClassification", transformers.GPT2Config(**tiny.GPT | {"vocab_size": 4096}), "saved as GPT2ForToken"),
        ("GPT2Model", transformers.GPT2Config(**tiny.GPT | {"vocab_size": 4096}), "without a head that predicts"),
        ("RobertaForCausalLM", transformers.RobertaConfig(**TEXT), "later token changes.*is_decoder"),
        ("BertForMaskedLM", transformers.BertConfig(**TEXT, is_decoder=True), "sees one side only"),
        (
            "FunnelForMaskedLM",
            transformers.FunnelConfig(vocab_size=4096, block_sizes=[2, 2], d_model=32, n_head=4, d_head=8, d_inner=48, pad_token_id=1),
            "Funnel|funnel",
        ),
    ],
)  # fmt: skip
def test_what_is_not_what_it_is_called_is_refused(
    tmp_path: Path, class_name: str, config: transformers.PretrainedConfig, words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(saved(tmp_path, class_name, config))


def test_an_encoder_made_a_decoder_is_causal(tmp_path: Path) -> None:
    model = load_model(saved(tmp_path, "BertLMHeadModel", transformers.BertConfig(**TEXT, is_decoder=True)))
    assert (model.modality, model.shape.heads) == ("causal", (4, 4, 4))


def test_differential_attention_has_half_as_many_heads_of_twice_the_size(tmp_path: Path) -> None:
    config = transformers.DiffLlamaConfig(**TEXT, num_key_value_heads=4)
    model = load_model(saved(tmp_path, "DiffLlamaForCausalLM", config))
    assert (model.num_heads, model.head_dim) == (2, 16)


def test_layers_without_attention_have_no_heads_and_say_why(tmp_path: Path) -> None:
    build("causal", "lfm2", tmp_path, Sizes(layers=3, heads=3, key_value_heads=3, head_dim=10))
    model = load_model(str(tmp_path))
    assert (model.num_heads, model.head_dim) == ((0, 3, 0), 10)
    assert "Lfm2ShortConv" in model.without_heads(0) and model.without_heads(1) == ""
    data = load_data("python-docs", model, predictions=60, seq_len=24)
    got = ablate(model, data, "1.2", "zero").to_dict()["results"][0]["loss"]
    model.module.model.layers[1].self_attn.out_proj.weight[:, 20:30] = 0
    total = count = 0.0
    for batch in data:
        scored = batch.targets != -100
        logits = model.module(**batch.inputs).logits[scored]
        total += float(torch.nn.functional.cross_entropy(logits.double(), batch.targets[scored], reduction="sum"))
        count += int(scored.sum())
    assert got == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize("flag", ["output_router_logits", "output_attentions", "output_hidden_states", "use_cache"])
def test_flags_of_a_configuration_change_no_number(tmp_path: Path, flag: str) -> None:
    config = transformers.MixtralConfig(**TEXT, num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=2)
    folder = saved(tmp_path, "MixtralForCausalLM", config)
    losses = []
    for value in (False, True):
        settings = json.loads((tmp_path / "config.json").read_text()) | {flag: value}
        (tmp_path / "config.json").write_text(json.dumps(settings))
        model = load_model(folder)
        data = load_data("python-docs", model, predictions=40, seq_len=16)
        losses.append(ablate(model, data, "0.0", "zero").to_dict()["results"][0]["loss"])
    assert losses[0] == losses[1]


def test_a_limit_of_length_is_found_under_another_name(tmp_path: Path) -> None:
    config = transformers.MptConfig(vocab_size=4096, d_model=32, n_heads=4, n_layers=2, max_seq_len=48)
    assert load_model(saved(tmp_path / "mpt", "MptForCausalLM", config)).max_length == 48
    config = transformers.OPTConfig(
        **tiny.TEXT | tiny.IDS | {"vocab_size": 4096, "ffn_dim": 48, "word_embed_proj_dim": 32},
        max_position_embeddings=40,
    )
    assert load_model(saved(tmp_path / "opt", "OPTForCausalLM", config)).max_length == 40
    config = transformers.RobertaConfig(**TEXT)
    assert load_model(saved(tmp_path / "roberta", "RobertaForMaskedLM", config)).max_length == 64 - 2


@pytest.mark.parametrize(
    ("class_name", "config", "special"),
    [
        ("IJepaForImageClassification", transformers.IJepaConfig(**tiny.IMAGE), 0),
        ("ViTForImageClassification", transformers.ViTConfig(**tiny.IMAGE), 1),
        ("DeiTForImageClassification", transformers.DeiTConfig(**tiny.IMAGE), 2),
        ("Dinov2WithRegistersForImageClassification", transformers.Dinov2WithRegistersConfig(**tiny.IMAGE, mlp_ratio=2, num_register_tokens=4), 5),
    ],
)  # fmt: skip
def test_special_first_positions_are_the_model_s_own(
    tmp_path: Path, class_name: str, config: transformers.PretrainedConfig, special: int
) -> None:
    folder = saved(tmp_path, class_name, config, "")
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    assert load_model(folder).excluded_positions == special


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_mode_and_shape_become_the_model_s_own(tmp_path: Path, channels: int) -> None:
    config = transformers.ViTConfig(**tiny.IMAGE, num_channels=channels)
    folder = saved(tmp_path, "ViTForImageClassification", config, "")
    mean = [0.5] * channels
    transformers.ViTImageProcessor(do_resize=False, image_mean=mean, image_std=mean).save_pretrained(tmp_path)
    model = load_model(folder)
    for mode, size in (("L", (16, 16)), ("RGB", (40, 20)), ("P", (7, 33))):
        pixels = model.to_pixels(Image.new(mode, size, 100))
        assert tuple(pixels.shape) == (channels, 16, 16)


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(ModelError, match="4 channels"):
        image_mode("a model", 4)


def test_weights_are_counted_once_and_by_their_own_type(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = {
        "w": torch.zeros(10, 10, dtype=torch.float16),
        "mask": torch.ones(64, dtype=torch.bool),
        "n": torch.zeros(2, dtype=torch.int64),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    save_file(tensors, tmp_path / "consolidated.safetensors")
    assert weight_bytes(tmp_path, torch.float32) == 400 + 64 + 16
    assert weight_bytes(tmp_path, torch.bfloat16) == 200 + 64 + 16


def test_more_weights_than_the_configuration_has_layers_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "LlamaForCausalLM", transformers.LlamaConfig(**TEXT))
    settings = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"weights of its blocks that its configuration has no place for.*layers\.2"):
        load_model(folder)


def test_a_quantised_model_names_the_library_that_is_missing(tmp_path: Path) -> None:
    folder = saved(tmp_path, "LlamaForCausalLM", transformers.LlamaConfig(**TEXT))
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": "aqlm", "in_group_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="quantised by aqlm, which the package aqlm reads"):
        load_model(folder)


def test_a_row_of_changed_heads_says_how_they_lie() -> None:
    from ablation_core.models.slices import independent_slices

    clean = torch.arange(1.0, 13).repeat(1, 2, 1)

    def rows(*changed: slice) -> torch.Tensor:
        made = [clean[0].clone() for _ in changed]
        for row, where in zip(made, changed, strict=True):
            row[:, where] *= np.pi
        return torch.stack([clean[0], *made])

    quarters = [slice(at, at + 3) for at in (0, 3, 6, 9)]
    assert independent_slices(rows(*quarters), [0, 1, 2, 3], 4) == 4
    halves = [slice(0, 6), slice(6, 12)] * 2
    assert independent_slices(rows(*halves), [0, 1, 2, 3], 4) == 2
    strided = [slice(at, None, 4) for at in range(4)]
    assert independent_slices(rows(*strided), [0, 1, 2, 3], 4) == 0
    everything = rows(*[slice(None)] * 4)  # a factor common to all: a norm over the heads
    assert independent_slices(everything, [0, 1, 2, 3], 4) == 4
