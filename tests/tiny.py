"""One tiny, randomly initialised model per supported family: what the conformance test runs on."""

import timm
import torch
import transformers

from ablation_core.data.dataset import Batch
from ablation_core.models.architectures import ARCHITECTURES
from ablation_core.models.loaded import LoadedModel, wrap

VOCAB = 99
TEXT = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
IDS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
WIDE = {"intermediate_size": 48, "max_position_embeddings": 64}
LLAMA = TEXT | IDS | WIDE | {"num_key_value_heads": 2}  # grouped queries: two heads share a key and value
GPT = IDS | {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
IMAGE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
         "image_size": 16, "patch_size": 4, "num_labels": 7}  # fmt: skip

# family → (configuration class, its arguments)
TRANSFORMERS: dict[str, tuple[str, dict]] = {
    "gpt2": ("GPT2Config", GPT),
    "gpt_neo": ("GPTNeoConfig", IDS | {"vocab_size": VOCAB, "hidden_size": 32, "num_layers": 4, "num_heads": 4,
                "attention_types": [[["global", "local"], 2]], "max_position_embeddings": 64, "window_size": 4}),
    "gptj": ("GPTJConfig", GPT | {"rotary_dim": 4}),
    "gpt_neox": ("GPTNeoXConfig", TEXT | IDS | WIDE),
    "opt": ("OPTConfig", TEXT | IDS | {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64}),
    "bloom": ("BloomConfig", IDS | {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "falcon": ("FalconConfig", TEXT | IDS | {"multi_query": True, "alibi": False}),
    "llama": ("LlamaConfig", LLAMA | {"head_dim": 12}),  # a head size that is not hidden / heads
    "mistral": ("MistralConfig", LLAMA | {"sliding_window": 4}),
    "mixtral": ("MixtralConfig", LLAMA | {"num_local_experts": 3, "num_experts_per_tok": 2}),
    "qwen2": ("Qwen2Config", LLAMA),
    "qwen3": ("Qwen3Config", LLAMA | {"head_dim": 12}),
    "gemma": ("GemmaConfig", LLAMA | {"head_dim": 12}),
    "gemma2": ("Gemma2Config", LLAMA | {"head_dim": 12, "query_pre_attn_scalar": 12, "sliding_window": 4}),
    "gemma3_text": ("Gemma3TextConfig", LLAMA | {"head_dim": 12, "query_pre_attn_scalar": 12, "sliding_window": 4}),
    "phi": ("PhiConfig", TEXT | IDS | WIDE),
    "phi3": ("Phi3Config", LLAMA),
    "olmo2": ("Olmo2Config", LLAMA),
    "stablelm": ("StableLmConfig", LLAMA),
    "starcoder2": ("Starcoder2Config", LLAMA),
    "smollm3": ("SmolLM3Config", LLAMA),
    "granite": ("GraniteConfig", LLAMA | {"logits_scaling": 3.0}),
    "bert": ("BertConfig", TEXT | IDS | WIDE),
    "roberta": ("RobertaConfig", TEXT | IDS | WIDE),
    "xlm-roberta": ("XLMRobertaConfig", TEXT | IDS | WIDE),
    "camembert": ("CamembertConfig", TEXT | IDS | WIDE),
    "electra": ("ElectraConfig", TEXT | IDS | WIDE | {"embedding_size": 24}),
    "distilbert": ("DistilBertConfig", {"vocab_size": VOCAB, "dim": 32, "n_layers": 3, "n_heads": 4,
                   "hidden_dim": 48, "max_position_embeddings": 64, "pad_token_id": 1}),
    "deberta-v2": ("DebertaV2Config", TEXT | IDS | WIDE | {"relative_attention": True, "position_buckets": 8,
                   "pos_att_type": ["p2c", "c2p"], "conv_kernel_size": 3, "max_relative_positions": 16}),
    "modernbert": ("ModernBertConfig", TEXT | IDS | WIDE | {"cls_token_id": 0, "sep_token_id": 2,
                   "local_attention": 8, "global_attn_every_n_layers": 2}),
    "esm": ("EsmConfig", TEXT | WIDE | {"pad_token_id": 1, "mask_token_id": 4, "position_embedding_type": "rotary"}),
    "vit": ("ViTConfig", IMAGE),
    "deit": ("DeiTConfig", IMAGE),
    "beit": ("BeitConfig", IMAGE),
    "dinov2": ("Dinov2Config", IMAGE | {"mlp_ratio": 2}),
    "dinov2_with_registers": ("Dinov2WithRegistersConfig", IMAGE | {"mlp_ratio": 2, "num_register_tokens": 4}),
    "siglip": ("SiglipConfig", {"vision_config": IMAGE, "num_labels": 7}),
    "clip": ("CLIPConfig", {"vision_config": IMAGE | {"projection_dim": 16}, "num_labels": 7}),
    "swin": ("SwinConfig", {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4],
             "window_size": 4, "num_labels": 7}),
}  # fmt: skip

# timm class → (architecture, arguments)
TIMM: dict[str, tuple[str, dict]] = {
    "VisionTransformer": ("vit_tiny_patch16_224", {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 3,
                          "num_heads": 4, "num_classes": 7}),
    "VisionTransformerDistilled": ("deit_tiny_distilled_patch16_224", {"img_size": 16, "patch_size": 4, "embed_dim": 32,
                                   "depth": 3, "num_heads": 4, "num_classes": 7}),
    "Eva": ("eva02_tiny_patch14_224", {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 3, "num_heads": 4,
            "num_classes": 7}),
    "Beit": ("beit_base_patch16_224", {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 3, "num_heads": 4,
             "num_classes": 7}),
    "SwinTransformer": ("swin_tiny_patch4_window7_224", {"img_size": 32, "patch_size": 2, "embed_dim": 16,
                        "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "num_classes": 7}),
}  # fmt: skip

FAMILIES = (*TRANSFORMERS, *TIMM)


AUTO = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "vision": "AutoModelForImageClassification",
}


def build(family: str) -> LoadedModel:
    """A seeded random model of the family, without tokenizer or image transform."""
    torch.manual_seed(0)
    architecture = ARCHITECTURES[family]
    if family in TIMM:
        name, arguments = TIMM[family]
        module = timm.create_model(name, pretrained=False, **arguments)
    else:
        name, arguments = TRANSFORMERS[family]
        config = getattr(transformers, name)(**arguments)
        if family == "deit":  # transformers has two image classifiers for it, and a saved model says which
            config.architectures = ["DeiTForImageClassification"]
        module = getattr(transformers, AUTO[architecture.modality]).from_config(config)
    for parameter in module.parameters():  # parts that begin as zeros or ones would hide mistakes
        if parameter.ndim == 1 or float(parameter.detach().abs().max()) == 0:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return wrap(f"tiny-{family}", module.eval().requires_grad_(False), architecture)


def batch(model: LoadedModel, rows: int = 3, length: int = 12, seed: int = 0) -> Batch:
    """Random inputs and targets; in text every third target is not scored."""
    generator = torch.Generator().manual_seed(seed)
    if model.modality == "vision":
        config = getattr(model.module, "config", None)
        channels = 3
        size = _image_size(config) if config else model.module.patch_embed.img_size[0]
        pixels = torch.randn(rows, channels, size, size, generator=generator)
        return Batch({model.input_name: pixels}, torch.randint(0, 7, (rows,), generator=generator))
    ids = torch.randint(5, VOCAB, (rows, length), generator=generator)
    targets = ids.roll(-1, 1)
    targets[:, ::3] = -100
    return Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, targets)


def _image_size(config: transformers.PretrainedConfig) -> int:
    return getattr(config, "vision_config", config).image_size
