"""How each bundled model is built, fed and saved: one class a model, all with the same four members.

A recipe draws the batch of step `n` from `(seed, n)` alone, so that a training run interrupted anywhere and resumed
sees the very batches that an uninterrupted one sees.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from timm.models import create_model as create_timm_model
from timm.models import save_for_hf
from tokenizers import Tokenizer, processors
from torch import Tensor, nn
from transformers import (
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from ablation_core.training import corpus

VOCAB_SIZE = 4096
PAD, END, MASK, FIRST_WORD = 1, 2, 4, len(corpus.SPECIAL_TOKENS)
MAX_POSITIONS = 256


class Recipe(Protocol):
    """What the training loop needs to know of a model."""

    steps: int

    @property
    def model(self) -> nn.Module:
        """The model, as its library builds it."""

    def loss(self, step: int, seed: int) -> Tensor:
        """The scalar training loss of batch number `step`."""

    def save(self, folder: Path) -> None:
        """Write the model, in its library's ordinary format, into `folder`."""


def text_tokens(work: Path, held_out: str) -> np.ndarray:
    """The training tokens as uint16; collected once (some minutes), then kept in `work` with their tokenizer."""
    path = work / "tokens.npy"
    if not path.exists():
        documents = corpus.training_documents(held_out)
        tokenizer = corpus.train_tokenizer(documents, VOCAB_SIZE)
        tokenizer.save(str(work / "tokenizer.json"))
        partial = work / "tokens.partial.npy"
        np.save(partial, corpus.encode_documents(tokenizer, documents, END))
        (work / "text.json").write_text(json.dumps(corpus.provenance() | {"documents": len(documents)}))
        partial.replace(path)
    return np.load(path, mmap_mode="r")


def _windows(tokens: np.ndarray, step: int, batch: int, length: int, seed: int) -> Tensor:
    """Batch `step` of a shuffled pass over the windows; each pass has its own order and its own offset. (batch, length)"""
    epoch, place = divmod(step * batch, len(tokens) // length - 1)
    generator = np.random.default_rng((seed, epoch))
    offset = int(generator.integers(length))
    order = generator.permutation(len(tokens) // length - 1)
    chosen = np.resize(order[place : place + batch], batch)
    rows = [tokens[offset + length * i : offset + length * (i + 1)] for i in chosen]
    return torch.from_numpy(np.stack(rows).astype(np.int64))


class OptMini:
    """A causal language model of OPT's architecture."""

    steps = 3600
    batch, length = 12, MAX_POSITIONS

    def __init__(self, work: Path, held_out: str) -> None:
        self.work, self.tokens = work, text_tokens(work, held_out)
        self.model = OPTForCausalLM(
            OPTConfig(
                vocab_size=VOCAB_SIZE,
                hidden_size=192,
                word_embed_proj_dim=192,
                num_hidden_layers=6,
                num_attention_heads=6,
                ffn_dim=768,
                max_position_embeddings=MAX_POSITIONS,
                dropout=0.0,
                pad_token_id=PAD,
                bos_token_id=END,
                eos_token_id=END,
            )
        )

    def loss(self, step: int, seed: int) -> Tensor:
        rows = _windows(self.tokens, step, self.batch, self.length, seed)
        rows[:, 0] = END  # as at evaluation: every window begins with OPT's own first token
        logits = self.model(input_ids=rows).logits[:, :-1]
        return nn.functional.cross_entropy(logits.reshape(-1, VOCAB_SIZE), rows[:, 1:].reshape(-1))

    def save(self, folder: Path) -> None:
        _save_language_model(self.model, self.work, folder, f"{corpus.SPECIAL_TOKENS[END]} $A")


class RobertaMini:
    """A masked language model of RoBERTa's architecture."""

    steps = 5000
    batch, length = 16, 128
    chosen = 0.25  # more than the 15% of evaluation: more targets a batch lead off the unigram plateau sooner

    def __init__(self, work: Path, held_out: str) -> None:
        self.work, self.tokens = work, text_tokens(work, held_out)
        self.model = RobertaForMaskedLM(
            RobertaConfig(
                vocab_size=VOCAB_SIZE,
                hidden_size=192,
                num_hidden_layers=6,
                num_attention_heads=6,
                intermediate_size=768,
                max_position_embeddings=MAX_POSITIONS + 2,  # RoBERTa's positions start at pad_token_id + 1
                type_vocab_size=1,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                pad_token_id=PAD,
                bos_token_id=0,
                eos_token_id=END,
            )
        )
        with torch.no_grad():
            positions = self.model.roberta.embeddings.position_embeddings.weight
            # Neighbours are alike in a sinusoid: attention finds them from the first steps on, which a small masked
            # model with random positions needs thousands of steps to do.
            positions.copy_(0.03 * _sinusoids(*positions.shape))

    def loss(self, step: int, seed: int) -> Tensor:
        rows = _windows(self.tokens, step, self.batch, self.length, seed)
        rows[:, 0], rows[:, -1] = 0, END
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        draw = torch.rand(rows.shape, generator=generator)
        chosen = (draw < self.chosen) & (rows >= FIRST_WORD)
        inputs = torch.where(chosen & (draw < 0.8 * self.chosen), MASK, rows)
        noise = torch.randint(FIRST_WORD, VOCAB_SIZE, rows.shape, generator=generator)
        inputs = torch.where(chosen & (draw >= 0.9 * self.chosen), noise, inputs)
        hidden = self.model.roberta(input_ids=inputs).last_hidden_state
        return nn.functional.cross_entropy(self.model.lm_head(hidden[chosen]), rows[chosen])

    def save(self, folder: Path) -> None:
        first, last = corpus.SPECIAL_TOKENS[0], corpus.SPECIAL_TOKENS[END]
        _save_language_model(self.model, self.work, folder, f"{first} $A {last}")


class VitMini:
    """A timm `VisionTransformer` for 28 × 28 grey images."""

    steps = 5600
    batch = 128
    architecture = "vit_tiny_patch16_224"
    arguments: ClassVar[dict[str, Any]] = {
        "img_size": 28,
        "patch_size": 4,
        "in_chans": 1,
        "embed_dim": 96,
        "depth": 6,
        "num_heads": 6,
        "num_classes": 10,
        "qkv_bias": True,
    }

    def __init__(self, images: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> None:
        self.mean, self.std = float(images.mean() / 255), float(images.std() / 255)
        self.images = torch.from_numpy((images / 255 - self.mean) / self.std).float()[:, None]
        self.labels, self.names = torch.from_numpy(labels.astype(np.int64)), names
        self.model: Any = create_timm_model(self.architecture, pretrained=False, **self.arguments)

    def loss(self, step: int, seed: int) -> Tensor:
        epoch, place = divmod(step, len(self.images) // self.batch)
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(seed * 1009 + epoch))
        rows = order[place * self.batch : (place + 1) * self.batch]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        images = _shifted_and_flipped(self.images[rows], generator)
        return nn.functional.cross_entropy(self.model(images), self.labels[rows], label_smoothing=0.05)

    def save(self, folder: Path) -> None:
        self.model.pretrained_cfg = self.model.default_cfg | {
            "architecture": self.architecture,
            "tag": "fashion_mnist",
            "license": "mit",
            "input_size": (1, 28, 28),
            "mean": (self.mean,),
            "std": (self.std,),
            "num_classes": 10,
            "label_names": self.names,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
        }
        save_for_hf(self.model, str(folder), model_args=self.arguments, safe_serialization=True)


def _shifted_and_flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by up to 2 pixels and mirrored half of the time. (B, 1, 28, 28)"""
    count, _, height, width = images.shape
    padded = nn.functional.pad(images, (2, 2, 2, 2), value=float(images.min()))
    down, right = torch.randint(0, 5, (2, count), generator=generator)
    ys = down[:, None] + torch.arange(height)
    xs = right[:, None] + torch.arange(width)
    mirrored = torch.rand(count, generator=generator) < 0.5
    xs = torch.where(mirrored[:, None], xs.flip(1), xs)
    return padded[torch.arange(count)[:, None, None], 0, ys[:, :, None], xs[:, None, :]][:, None]


def _sinusoids(positions: int, width: int) -> Tensor:
    """Sines and cosines of geometrically spaced wavelengths (Vaswani et al. 2017, section 3.5). (positions, width)"""
    rates = torch.exp(-math.log(10_000) * torch.arange(0, width, 2) / width)
    angles = torch.arange(positions)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _save_language_model(model: PreTrainedModel, work: Path, folder: Path, template: str) -> None:
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    specials = [(token, index) for index, token in enumerate(corpus.SPECIAL_TOKENS) if token in template]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=specials)
    first = template.split()[0]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=first,
        cls_token=first,
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=MAX_POSITIONS,
    ).save_pretrained(folder)
    # Half precision halves the file; the models are trained and used in single precision.
    model.half().save_pretrained(folder)
    model.float()
