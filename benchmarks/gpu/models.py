"""Models of true size with random weights, and random data for them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import transformers

from ablation_core.data.dataset import IGNORED, Batch, Data
from ablation_core.models.architectures import ARCHITECTURES
from ablation_core.models.loaded import LoadedModel, wrap

TOKENS = {"tie_word_embeddings": True, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
AUTO = {"causal": "AutoModelForCausalLM", "vision": "AutoModelForImageClassification"}


@dataclass(frozen=True)
class Case:
    """A model, and how much of it a run takes.

    Attributes:
        true, tiny: the configuration's arguments at true size, and for a trial without a card.
        sequences: windows or images, `batch_size` at a time.
    """

    family: str
    config: str
    true: dict
    tiny: dict
    sequences: int
    batch_size: int
    length: int | None  # tokens; None for images


CASES = {
    "OPT-1.3B": Case(
        "opt",
        "OPTConfig",
        TOKENS | {"hidden_size": 2048, "word_embed_proj_dim": 2048, "num_hidden_layers": 24, "num_attention_heads": 32,
                  "ffn_dim": 8192, "vocab_size": 50272, "max_position_embeddings": 2048},
        TOKENS | {"hidden_size": 32, "word_embed_proj_dim": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
                  "ffn_dim": 48, "vocab_size": 99, "max_position_embeddings": 64},
        16, 8, 128,
    ),
    "Llama-1.2B": Case(
        "llama",
        "LlamaConfig",
        TOKENS | {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
                  "head_dim": 64, "intermediate_size": 8192, "vocab_size": 128256, "max_position_embeddings": 2048},
        TOKENS | {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
                  "head_dim": 12, "intermediate_size": 48, "vocab_size": 99, "max_position_embeddings": 64},
        16, 8, 128,
    ),
    "ViT-L": Case(
        "vit",
        "ViTConfig",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
         "image_size": 224, "patch_size": 16, "num_labels": 1000},
        {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
         "image_size": 16, "patch_size": 4, "num_labels": 12},
        64, 32, None,
    ),
}  # fmt: skip


def build(name: str, device: torch.device, dtype: torch.dtype, tiny: bool) -> LoadedModel:
    """The model on the device, without tokenizer or image transform."""
    case = CASES[name]
    config = getattr(transformers, case.config)(**(case.tiny if tiny else case.true))
    architecture = ARCHITECTURES[case.family]
    torch.manual_seed(0)
    with device:
        module = getattr(transformers, AUTO[architecture.modality]).from_config(config, dtype=dtype)
    model = wrap(f"{name}, random weights", module.to(device).eval().requires_grad_(False), architecture)
    model.__dict__["fingerprint"] = "random"  # a digest of every weight would take longer than what is measured
    return model


def random_data(name: str, model: LoadedModel, tiny: bool) -> Data:
    """Random tokens, or noise for images: kept in memory, the same at each iteration."""
    case, generator = CASES[name], torch.Generator().manual_seed(0)
    count, size = (4, 2) if tiny else (case.sequences, case.batch_size)
    config = model.module.config
    if case.length is None:
        length = None
        shape = (count + 1, 3, config.image_size, config.image_size)
        inputs = {"pixel_values": torch.randn(shape, generator=generator).to(getattr(torch, model.dtype))}
        targets = torch.randint(0, config.num_labels, (count + 1,), generator=generator)
    else:
        length = 12 if tiny else case.length
        ids = torch.randint(3, config.vocab_size, (count + 1, length), generator=generator)
        inputs, targets = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids.roll(-1, 1)
        targets[:, -1] = IGNORED

    def rows(numbers: Sequence[int]) -> Batch:
        index = torch.as_tensor(list(numbers))
        return Batch({name: tensor[index] for name, tensor in inputs.items()}, targets[index])

    return Data(
        ref="random", split="evaluation", seq_len=length, seed=0, batch_size=size, sequences=count, pool=count + 1,
        predictions=int((targets[:count] != IGNORED).sum()), fingerprint="random", source="", notes=(), rows=rows,
    )  # fmt: skip
