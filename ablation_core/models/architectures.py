"""Where each model family keeps its blocks and its attention output projections: one row a family.

Everything else (layers, head size) is derived from the modules themselves. In a path `*` stands for every child of a
module list. `structure.py` looks for the same places in families that have no row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ablation_core.errors import ModelError
from ablation_core.models.info import Modality
from ablation_core.selection import ModelShape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Architecture:
    """A family's row.

    Attributes:
        family: transformers' `model_type`, or the timm class.
        blocks: path from the model to its blocks, in the order in which they run.
        projection: path from a block to the linear map that reads the concatenated heads.
        heads: path from a block to its number of heads; empty: the configuration's `num_attention_heads`.
        first_is_special: whether position 0 holds BOS, CLS or the like, which statistics leave out.
        verified: whether the conformance test runs this family.
    """

    family: str
    modality: Modality
    blocks: str
    projection: str
    heads: str = ""
    first_is_special: bool = True
    verified: bool = True


_ROWS = (
    Architecture("gpt2", "causal", "transformer.h.*", "attn.c_proj"),
    Architecture("gpt_neo", "causal", "transformer.h.*", "attn.attention.out_proj"),
    Architecture("gptj", "causal", "transformer.h.*", "attn.out_proj"),
    Architecture("gpt_neox", "causal", "gpt_neox.layers.*", "attention.dense"),
    Architecture("opt", "causal", "model.decoder.layers.*", "self_attn.out_proj"),
    Architecture("bloom", "causal", "transformer.h.*", "self_attention.dense"),
    Architecture("falcon", "causal", "transformer.h.*", "self_attention.dense"),
    Architecture("llama", "causal", "model.layers.*", "self_attn.o_proj"),
    Architecture("mistral", "causal", "model.layers.*", "self_attn.o_proj"),
    Architecture("mixtral", "causal", "model.layers.*", "self_attn.o_proj"),
    Architecture("qwen2", "causal", "model.layers.*", "self_attn.o_proj"),
    Architecture("qwen3", "causal", "model.layers.*", "self_attn.o_proj"),
    Architecture("gemma", "causal", "model.layers.*", "self_attn.o_proj"),
    Architecture("gemma2", "causal", "model.layers.*", "self_attn.o_proj"),
    Architecture("gemma3_text", "causal", "model.layers.*", "self_attn.o_proj"),
    Architecture("phi", "causal", "model.layers.*", "self_attn.dense"),
    Architecture("phi3", "causal", "model.layers.*", "self_attn.o_proj"),
    Architecture("olmo2", "causal", "model.layers.*", "self_attn.o_proj"),
    Architecture("stablelm", "causal", "model.layers.*", "self_attn.o_proj"),
    Architecture("starcoder2", "causal", "model.layers.*", "self_attn.o_proj"),
    Architecture("smollm3", "causal", "model.layers.*", "self_attn.o_proj"),
    Architecture("granite", "causal", "model.layers.*", "self_attn.o_proj"),
    Architecture("bert", "masked", "bert.encoder.layer.*", "attention.output.dense"),
    Architecture("roberta", "masked", "roberta.encoder.layer.*", "attention.output.dense"),
    Architecture("xlm-roberta", "masked", "roberta.encoder.layer.*", "attention.output.dense"),
    Architecture("camembert", "masked", "roberta.encoder.layer.*", "attention.output.dense"),
    Architecture("electra", "masked", "electra.encoder.layer.*", "attention.output.dense"),
    Architecture("distilbert", "masked", "distilbert.transformer.layer.*", "attention.out_lin"),
    Architecture("deberta-v2", "masked", "deberta.encoder.layer.*", "attention.output.dense"),
    Architecture("modernbert", "masked", "model.layers.*", "attn.Wo"),
    Architecture("esm", "masked", "esm.encoder.layer.*", "attention.output.dense"),
    Architecture("vit", "vision", "vit.layers.*", "attention.o_proj"),
    Architecture("deit", "vision", "deit.layers.*", "attention.o_proj"),
    Architecture("beit", "vision", "beit.layers.*", "attention.o_proj"),
    Architecture("dinov2", "vision", "dinov2.encoder.layer.*", "attention.o_proj"),
    Architecture("dinov2_with_registers", "vision", "dinov2_with_registers.encoder.layer.*", "attention.o_proj"),
    Architecture(
        "siglip", "vision", "vision_model.encoder.layers.*", "self_attn.out_proj", "self_attn.num_heads", False
    ),
    Architecture("clip", "vision", "vision_model.encoder.layers.*", "self_attn.out_proj", "self_attn.num_heads"),
    Architecture(
        "swin", "vision", "swin.encoder.layers.*.blocks.*", "attention.o_proj", "attention.num_attention_heads", False
    ),
    Architecture("VisionTransformer", "vision", "blocks.*", "attn.proj", "attn.num_heads"),
    Architecture("VisionTransformerDistilled", "vision", "blocks.*", "attn.proj", "attn.num_heads"),
    Architecture("Eva", "vision", "blocks.*", "attn.proj", "attn.num_heads"),
    Architecture("Beit", "vision", "blocks.*", "attn.proj", "attn.num_heads"),
    Architecture("SwinTransformer", "vision", "layers.*.blocks.*", "attn.proj", "attn.num_heads", False),
)
ARCHITECTURES = {row.family: row for row in _ROWS}

# Families that cannot work, and why.
REFUSED = {
    "albert": "all its layers share one set of weights, so that a layer's head cannot be ablated by itself",
    **dict.fromkeys(
        ("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm"), "its layers are not attention, so that they have no heads"
    ),
    "canine": "it pools several characters into one position, so that its blocks lie between others of another length",
    "convbert": "half of what its output projection reads comes from convolutions beside its heads",
    "jetmoe": "a mixture of experts reads its heads, each token's by other weights, and no one output projection",
    "lilt": "its blocks hand on two streams, of the text and of its layout, and the heads of both share their attention",
    "longformer": "it fills texts up to whole windows, so that its blocks have more positions than its input",
    "squeezebert": "convolutions, most of them in groups, stand where other models have linear maps, and read its heads",
    **dict.fromkeys(("t5", "mt5", "umt5", "longt5"), "it is an encoder-decoder, and its layers do not form one row"),
}

_MODALITY_WORDS = {
    "causal": "causal LM",
    "masked": "masked LM",
    "vision": "image classifier",
    "text-classification": "text classifier",
}
_REAL_MODELS = {
    "opt": "opt-mini",
    "roberta": "roberta-mini",
    "VisionTransformer": "vit-mini",
    "llama": "smollm2-135m",
}


def family_table() -> list[dict[str, str]]:
    """Every family: where it is from, what it predicts, where it is hooked, and on which models that was verified."""
    return [
        {
            "family": row.family,
            "from": "transformers" if row.family[0].islower() else "timm",
            "predicts": _MODALITY_WORDS[row.modality],
            "hooked at": f"`{row.blocks}.{row.projection}`",
            "verified on": "random weights, 3 or 4 layers, 2 to 4 heads",
            "real model": _REAL_MODELS.get(row.family, "none here"),
        }
        for row in ARCHITECTURES.values()
    ]


def row_for(row: Architecture | None, modality: Modality) -> Architecture | None:
    """A family's row for what a model predicts: a classifier of texts has the blocks of its language model; else None."""
    if row is None or row.modality == modality:
        return row
    if modality == "text-classification" and row.modality in ("causal", "masked"):
        return replace(row, modality=modality)
    return None


def find_modules(root: nn.Module, path: str) -> list[Any]:
    """The modules, or what else their attribute is, at a path in which `*` stands for every child, in order."""
    found = [root]
    for name in path.split("."):
        if name == "*":
            found = [child for module in found for child in module.children()]
        else:
            found = [getattr(module, name) for module in found]
    return found


def find_projections(architecture: Architecture, module: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """The blocks and, for each, its attention output projection.

    Raises:
        ModelError: the model is not built as its family's row says.
    """
    try:
        blocks = find_modules(module, architecture.blocks)
        projections = [find_modules(block, architecture.projection)[0] for block in blocks]
    except AttributeError as error:
        raise ModelError(
            f"This model calls itself {architecture.family}, but is not built like one ({error}). "
            f"Its attention output projection was expected at {architecture.blocks}.{architecture.projection}."
        ) from error
    if not blocks:
        raise ModelError(f"This model has no blocks at {architecture.blocks}: there is no attention head to ablate.")
    if len({id(projection) for projection in projections}) < len(projections):
        raise ModelError(f"Layers of this {architecture.family} model share their attention; a head cannot be ablated.")
    return blocks, projections


def find_shape(architecture: Architecture, module: nn.Module, blocks: list[nn.Module], widths: list[int]) -> ModelShape:
    """Heads per layer and neurons per head, from the number of heads and the projections' input widths.

    Raises:
        ModelError: a width is not a multiple of the number of heads.
    """
    if architecture.heads:
        heads: list[int] = [find_modules(block, architecture.heads)[0] for block in blocks]
    else:
        config: Any = module.config
        heads = [config.num_attention_heads] * len(blocks)
    for layer, (width, count) in enumerate(zip(widths, heads, strict=True)):
        if width % count:
            raise ModelError(f"Layer {layer} concatenates {width} values from {count} heads: not a whole head size.")
    return shape_of(tuple(heads), widths)


def shape_of(heads: tuple[int, ...], widths: Sequence[int]) -> ModelShape:
    """Heads per layer, and the size of one, from the width of each layer's z; a layer may have no heads."""
    sizes = tuple(width // count if count else 0 for width, count in zip(widths, heads, strict=True))
    differ = len({size for size in sizes if size}) > 1
    return ModelShape(heads, max(sizes), sizes if differ else ())


def input_width(projection: nn.Module) -> int:
    """The number of inputs of a linear map, also where its weight is stored transposed (transformers' Conv1D)."""
    linear: Any = projection
    if not hasattr(linear, "in_features") and not hasattr(linear, "weight"):
        raise ModelError(
            f"A {type(projection).__name__} stands where the attention's output projection was expected; only a linear map "
            f"can be hooked there."
        )
    return linear.in_features if hasattr(linear, "in_features") else linear.weight.shape[0]
