"""Every family of transformers, made tiny and random from its own configuration class, with a row of overrides where one needs it.

    build("causal", "qwen3_next", folder)

leaves a folder as a person's would be: weights, configuration, tokenizer or image processor.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ablation_core import bundled, load_model
from ablation_core.data.dataset import Batch
from ablation_core.engine import clean_passes, forward, scoring
from ablation_core.errors import AblationError, first_line
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import padding_id
from ablation_core.selection import Selection

MOST_WEIGHTS = 30_000_000
VOCABULARY = 4096


@dataclass(frozen=True)
class Kind:
    """A head that predicts: transformers' mapping of its classes, and the class that picks one."""

    names: dict[str, Any]
    auto: str
    tokenizer: str


KINDS = {
    "causal": Kind(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "AutoModelForCausalLM", "opt-mini"),
    "image-text": Kind(
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, "AutoModelForImageTextToText", "opt-mini"
    ),
    "masked": Kind(modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, "AutoModelForMaskedLM", "roberta-mini"),
    "vision": Kind(modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, "AutoModelForImageClassification", ""),
    "text-classification": Kind(
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "AutoModelForSequenceClassification",
        "roberta-mini",
    ),
}


@dataclass(frozen=True)
class Sizes:
    """What a tiny model is made of; odd ones show what round ones hide."""

    layers: int = 3
    heads: int = 4
    key_value_heads: int = 2
    head_dim: int = 12

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


def common(sizes: Sizes) -> dict[str, Any]:
    """What configuration classes call the sizes."""
    width = dict.fromkeys(
        (
            "hidden_size",
            "d_model",
            "n_embd",
            "n_embed",
            "dim",
            "embed_dim",
            "embedding_size",
            "word_embed_proj_dim",
            "emb_dim",
        ),
        sizes.width,
    )
    layers = dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), sizes.layers
    )
    heads = dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"),
        sizes.heads,
    )
    inner = dict.fromkeys(
        (
            "intermediate_size",
            "ffn_dim",
            "d_ff",
            "n_inner",
            "d_inner",
            "dim_feedforward",
            "encoder_ffn_dim",
            "decoder_ffn_dim",
            "moe_intermediate_size",
            "shared_expert_intermediate_size",
            "shared_intermediate_size",
            "moe_shared_expert_intermediate_size",
        ),
        64,
    )
    length = dict.fromkeys(
        ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_target_positions", "max_position"), 256
    )
    experts = dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4)
    return {
        **width, **layers, **heads, **inner, **length, **experts,
        "vocab_size": VOCABULARY, "num_key_value_heads": sizes.key_value_heads, "head_dim": sizes.head_dim,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
        "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "sliding_window": 32, "attention_window": 32,
        "image_size": 32, "patch_size": 8, "num_channels": 3,
    }  # fmt: skip


def latent(sizes: Sizes) -> dict[str, Any]:
    """Latent attention: a head's queries and values have sizes of their own, and every head its own keys."""
    return {
        "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": sizes.head_dim,
        "head_dim": None, "num_key_value_heads": sizes.heads,
    }  # fmt: skip


def mixed(other: str, sizes: Sizes, attention: str = "full_attention") -> list[str]:
    """Layers of another kind, with attention in every second."""
    return [attention if layer % 2 else other for layer in range(sizes.layers)]


def overrides(family: str, sizes: Sizes) -> dict[str, Any]:
    """What a family's configuration class wants beside, or in place of, the common sizes; None leaves its own."""
    linear = {
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "layer_types": mixed("linear_attention", sizes),
    }  # fmt: skip
    mamba = {
        "mamba_n_heads": 8,
        "mamba_d_head": sizes.width * 2 // 8,
        "mamba_d_state": 8,
        "mamba_expand": 2,
        "mamba_chunk_size": 16,
    }
    gemma4 = {
        "layer_types": mixed("sliding_attention", sizes), "global_head_dim": 2 * sizes.head_dim, "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY,
    }  # fmt: skip
    by_axes = {
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [sizes.head_dim // 6] * 3}
    }
    swin = {"window_size": 4, "embed_dim": 16, "hidden_size": None, "patch_size": 2}
    stages = dict.fromkeys(
        (
            "depths",
            "num_heads",
            "hidden_size",
            "patch_size",
            "embed_dim",
            "num_attention_heads",
            "num_hidden_layers",
            "image_size",
        )
    )
    for_family: dict[str, dict[str, Any]] = {
        **dict.fromkeys(("deepseek_v2", "deepseek_v3", "minicpm3", "glm4_moe_lite", "youtu", "sarvam_mla", "mistral4", "axk1"), latent(sizes)),
        **dict.fromkeys(("deepseek_v32", "glm_moe_dsa", "axk2", "hy_v4"), latent(sizes) | {"index_n_heads": 2, "index_head_dim": 16, "index_topk": 64}),
        **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "olmo_hybrid"), linear),
        "longcat_flash": latent(sizes) | {"head_dim": 8, "num_layers": 2, "expert_ffn_hidden_size": 32, "zero_expert_num": 1, "moe_topk": 2, "num_hidden_layers": None},
        "qwen4_exp_text": linear | {"layer_types": mixed("linear_attention", sizes, "indexed_attention")},
        "minimax": {"layer_types": mixed("linear_attention", sizes), "block_size": 16},
        "bailing_hybrid": latent(sizes) | {"head_dim": sizes.head_dim, "layer_types": mixed("linear_attention", sizes)},
        "kimi_linear": latent(sizes) | {"layer_types": mixed("linear_attention", sizes), "linear_head_dim": 8, "linear_num_heads": 4},
        "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1, "use_mamba_kernels": False},
        "granitemoehybrid": mamba | {"layer_types": mixed("linear_attention", sizes), "layers_block_type": None},
        "bamba": mamba | {"attn_layer_indices": list(range(1, sizes.layers, 2))},
        "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 16},
        "nemotron_h": {"layers_block_type": mixed("mamba", sizes, "attention"), "num_hidden_layers": None, "mamba_num_heads": 4,
                       "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 1, "chunk_size": 16, "use_mamba_kernels": False},
        "lfm2": {"layer_types": mixed("conv", sizes)},
        "lfm2_moe": {"layer_types": mixed("conv", sizes), "num_dense_layers": 1},
        "recurrent_gemma": {"block_types": ["recurrent", "attention"], "lru_width": sizes.width},
        "zamba": {"use_mamba_kernels": False, "n_mamba_heads": 2, "mamba_d_state": 8, "layers_block_type": ["mamba", "mamba", "hybrid", "mamba", "hybrid"],
                  "num_hidden_layers": 5, "num_key_value_heads": sizes.heads, "attention_head_dim": None},
        "zamba2": {"use_mamba_kernels": False, "n_mamba_heads": 8, "mamba_headdim": 12, "mamba_d_state": 8, "chunk_size": 16,
                   "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "num_hidden_layers": 4, "num_mem_blocks": 1,
                   "num_key_value_heads": sizes.heads},
        "gemma3n_text": {"layer_types": ["sliding_attention", "full_attention"] * 2, "num_hidden_layers": 4, "num_kv_shared_layers": 2,
                         "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8, "activation_sparsity_pattern": [0.0] * 4,
                         "intermediate_size": 64, "laurel_rank": 8},
        "gemma4_text": gemma4, "gemma4_unified_text": gemma4,
        **dict.fromkeys(("swin", "donut-swin"), swin),
        **dict.fromkeys(("segformer", "pvt", "pvt_v2", "cvt", "levit"), stages),
        "timm_wrapper": {"architecture": "vit_tiny_patch16_224", "model_args": {"img_size": 32, "patch_size": 8, "depth": 2}},
        "layoutlmv3": {"coordinate_size": sizes.width // 6, "shape_size": sizes.width // 6},
        "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
        "neomme": {"layer_types": mixed("sliding_attention", sizes)},
        "hiera": {"embed_dim": 16, "image_size": [64, 64], "depths": [1, 2, 1, 1], "num_heads": [1, 2, 4, 8], "num_layers": None,
                  "num_hidden_layers": None, "patch_size": None, "num_attention_heads": None},
        "gpt_neo": {"attention_types": [[["global"], sizes.layers]], "num_layers": sizes.layers},
        "gptj": {"rotary_dim": 4},
        "codegen": {"rotary_dim": 4, "n_head": 4, "n_embd": 48},
        "stablelm": {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}},
        "openai-gpt": {"n_positions": 256},
        "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
        "dbrx": {"d_model": sizes.width, "attn_config": {"kv_n_heads": sizes.key_value_heads, "rope_theta": 10_000.0, "clip_qkv": 8.0},
                 "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": sizes.width}},
        "zaya": {"num_experts_per_tok": 1, "layer_types": ["hybrid"] * sizes.layers, "router_hidden_size": 16},
        "dots3_note_text": latent(sizes) | {"head_dim": None, "layer_types": mixed("sliding_attention", sizes, "indexed_attention"),
                                            "n_routed_experts": 4, "vocab_size": VOCABULARY, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 64},
        "cohere_compass_text": {"layer_types": ["full_attention"] * sizes.layers, "num_key_value_heads": sizes.heads,
                                "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10_000.0}}},
        **dict.fromkeys(("qwen2_vl_text", "qwen2_5_vl_text", "paddleocr_vl_text", "glm_ocr_text"), by_axes),
        "mamba2": {"num_heads": 8, "head_dim": sizes.width // 4, "state_size": 8, "n_groups": 1},
        "inkling2_text": {"unpadded_vocab_size": VOCABULARY}, "inkling2_loop_text": {"unpadded_vocab_size": VOCABULARY},
        "phi4_multimodal": {"vision_config": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
                                              "image_size": 32, "patch_size": 8, "crop_size": 32},
                            "audio_config": {"hidden_size": 32, "num_blocks": 1, "num_attention_heads": 2, "intermediate_size": 32,
                                             "nemo_conv_channels": 32, "ext_pw_out_channel": 32}},
        "roberta": {"type_vocab_size": 1},
        "big_bird": {"attention_type": "original_full"},
        "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
        "openelm": {},
        "llama4_text": {"interleave_moe_layer_step": 2, "layer_types": None},
        "mra": {}, "yoso": {}, "nystromformer": {"segment_means_seq_len": 32, "num_landmarks": 8},
        "esmc": {"num_key_value_heads": None},
        "reformer": {"attn_layers": ["local", "lsh"], "axial_pos_embds": False, "is_decoder": True, "attention_head_size": 12},
    }  # fmt: skip
    return for_family.get(family, {})


def tiny_config(kind: str, family: str, sizes: Sizes) -> Any:
    """The family's configuration, made small."""
    kind_of = CONFIG_MAPPING[family]
    base = kind_of()
    known = set(vars(base)) | set(getattr(base, "attribute_map", {}))
    values = {name: value for name, value in common(sizes).items() if name in known}
    for name, value in list(values.items()):
        try:
            now = getattr(base, name, None)
        except Exception:  # noqa: BLE001 - refused where layers may differ
            now = None
        if isinstance(now, list | tuple) and not isinstance(value, list | tuple):
            del values[name]
    if kind == "text-classification":
        values["num_labels"] = 3
    if kind == "vision":
        values["num_labels"] = 5
        if hasattr(base, "depths"):
            values["depths"] = [2, 2]
            if isinstance(getattr(base, "num_heads", None), list | tuple):
                values["num_heads"] = [2, 4]
    for name in ("vision_config", "text_config"):
        inner = getattr(base, name, None)
        if inner is not None and hasattr(inner, "to_dict"):
            values[name] = {key: value for key, value in common(sizes).items() if key in vars(inner)}
            own = values[name] | overrides(inner.model_type, sizes)
            values[name] = {key: value for key, value in own.items() if value is not None}
    for name, value in overrides(family, sizes).items():
        if value is None:
            values.pop(name, None)
        elif name in known or name in getattr(kind_of, "__annotations__", {}):
            values[name] = value
    chosen = {"layer_types", "layers_block_type"} & set(values)
    for name in ("layer_types", "mlp_layer_types", "layers_block_type"):
        own = vars(base).get(name)
        if isinstance(own, list) and "num_hidden_layers" in values and (name.startswith("mlp") or not chosen):
            values[name] = own[: values["num_hidden_layers"]]
    config = kind_of(**values)
    if isinstance(names := KINDS[kind].names[family], tuple):
        config.architectures = [names[0]]  # a saved model says which of them it is
    if kind == "causal" and hasattr(config, "is_decoder") and not getattr(config, "is_encoder_decoder", False):
        config.is_decoder = True  # an encoder that is made a decoder
    return config


def build(kind: str, family: str, folder: Path, sizes: Sizes = Sizes()) -> Any:
    """Make and save a tiny random model of a family; returns its module.

    Raises:
        ValueError: it cannot be made tiny this way; other exceptions of the configuration class likewise.
    """
    auto = getattr(transformers, KINDS[kind].auto)
    with torch.device("meta"):
        count = sum(weight.numel() for weight in auto.from_config(tiny_config(kind, family, sizes)).parameters())
    if count > MOST_WEIGHTS * (4 if kind == "image-text" else 1):  # towers of images have sizes of their own
        raise ValueError(f"not tiny: {count:,} weights")
    torch.manual_seed(0)
    module = auto.from_config(tiny_config(kind, family, sizes)).eval()
    for weight in module.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.08)  # random, but not so small that nothing shows
    module.save_pretrained(folder)
    if source := KINDS[kind].tokenizer:
        for file in (bundled.FOLDER / source).iterdir():
            if "token" in file.name or file.name.startswith("special"):
                shutil.copy(file, folder)
    else:
        settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "do_resize": True}
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(settings))
    return module


@dataclass(frozen=True)
class Outcome:
    """What became of a family: works, refused, wrong, or not made tiny here; and the sentence that belongs to it."""

    family: str
    state: str
    said: str


def try_family(kind: str, family: str, folder: Path, sizes: Sizes = Sizes()) -> Outcome:
    """Build, save, load and ablate: a zero-ablated head must equal zeroed columns of the projection, in plain torch."""
    try:
        build(kind, family, folder, sizes)
    except Exception as error:  # noqa: BLE001 - a configuration class may refuse sizes in any way
        return Outcome(family, "not made", first_line(error))
    return try_saved(family, folder, _first_without_heads)


def _first_without_heads(model: LoadedModel) -> str:
    missing = [layer for layer, heads in enumerate(model.shape.heads) if not heads]
    return f"; {model.without_heads(missing[0])}" if missing else ""


def try_saved(name: str, folder: Path, about: Callable[[LoadedModel], str]) -> Outcome:
    """Load and ablate what a folder holds; `about` says more of one that works."""
    try:
        model = load_model(
            str(folder), device="cpu", dtype="float32", cache_dir=folder / "cache"
        )  # tried, whatever is remembered
    except AblationError as error:
        return Outcome(name, "refused", str(error).replace(str(folder), "It"))
    gap = zeroed_gap(model)
    where = f"`{model.architecture.blocks}.{model.architecture.projection}`"
    if gap > 1e-4:
        return Outcome(name, "wrong", f"{where}: {gap:.1e} nats from zeroed columns")
    return Outcome(name, "works", where + about(model))


@torch.inference_mode()
def zeroed_gap(model: LoadedModel) -> float:
    """The largest difference of a loss, in nats, between each layer's last head ablated and its columns zeroed."""
    batch = _batch(model)
    clean_pass = forward.record(model, batch)
    zeros = np.zeros((model.num_layers, max(model.shape.heads), model.head_dim), np.float32)
    gaps = []
    for layer, heads in enumerate(model.shape.heads):
        if not heads:
            continue
        selection = Selection.parse(f"{layer}.{heads - 1}", model.shape)
        output = clean_passes.ablated_output(
            model, clean_pass, clean_passes.constant_replacements(selection, zeros, model)
        )
        ablated = scoring.score_outputs(model, clean_pass, [output])[1].loss
        weight: Any = model.projections[layer].weight
        size = model.shape.size(layer)
        columns = slice((heads - 1) * size, heads * size)
        kept = weight.clone()
        if type(model.projections[layer]).__name__ == "Conv1D":
            weight[columns] = 0
        else:
            weight[:, columns] = 0
        result = model.module(**batch.inputs)
        logits = (result if isinstance(result, torch.Tensor) else result.logits).double()
        weight.copy_(kept)
        scored = batch.targets != -100
        expected = torch.nn.functional.cross_entropy(logits[scored], batch.targets[scored], reduction="none")
        gaps.append(float(np.abs(ablated - expected.numpy()).max()))
    return max(gaps)


def _batch(model: LoadedModel) -> Batch:
    generator = torch.Generator().manual_seed(0)
    if model.modality == "vision":
        images = [Image.effect_noise((32, 32), 80).convert("RGB") for _ in range(3)]
        pixels = torch.stack([model.to_pixels(image) for image in images])
        return Batch({model.input_name: pixels}, torch.arange(3))
    ids = torch.randint(5, VOCABULARY, (3, 14), generator=generator)
    if model.modality == "text-classification":
        mask = (torch.arange(14) < torch.tensor([[14], [9], [5]])).long()  # padded beside each other
        ids = ids.where(mask.bool(), padding_id(model))
        return Batch({"input_ids": ids, "attention_mask": mask}, torch.arange(3))
    targets = ids.roll(-1, 1)
    targets[:, ::3] = -100
    return Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, targets)
