"""Where each model family keeps its blocks and its attention output projections: one row a family.

Everything else (heads, head size) is derived from the modules themselves. A path may contain `*`, which stands for
every member of a module list.
"""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from ablation_core.errors import ModelError
from ablation_core.selection import Shape

Modality = Literal["causal", "masked", "vision"]


@dataclass(frozen=True)
class Architecture:
    """A family's row.

    Attributes:
        family: transformers' `model_type`, or the timm class.
        blocks: path from the model to its list of blocks.
        projection: path from a block to the linear map that reads the concatenated heads.
        backbone: path to the part that ends before the unembedding; empty where the whole model is cheap to run.
    """

    family: str
    modality: Modality
    blocks: str
    projection: str
    backbone: str = ""


_ROWS = (
    Architecture("opt", "causal", "model.decoder.layers.*", "self_attn.out_proj", "model"),
    Architecture("llama", "causal", "model.layers.*", "self_attn.o_proj", "model"),
    Architecture("roberta", "masked", "roberta.encoder.layer.*", "attention.output.dense", "roberta"),
    Architecture("VisionTransformer", "vision", "blocks.*", "attn.proj"),
)
ARCHITECTURES = {row.family: row for row in _ROWS}


def find_architecture(family: str) -> Architecture:
    """The row of a family.

    Raises:
        ModelError: the family has none.
    """
    if family not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ModelError(f"Models of the family {family!r} are not supported. Supported families: {known}.")
    return ARCHITECTURES[family]


def find_modules(root: nn.Module, path: str) -> list[nn.Module]:
    """The modules at a path in which `*` stands for every child, in order."""
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
    return blocks, projections


def input_width(projection: nn.Module) -> int:
    """The number of inputs of a linear map, also where its weight is stored transposed (transformers' Conv1D)."""
    if hasattr(projection, "in_features"):
        return projection.in_features
    return projection.weight.shape[0]


def find_shape(projections: list[nn.Module], heads: list[int]) -> Shape:
    """Heads per layer and neurons per head, from the projections' input widths.

    Raises:
        ModelError: a width is not a multiple of the number of heads, or head sizes differ between layers.
    """
    sizes = set()
    for layer, (projection, count) in enumerate(zip(projections, heads, strict=True)):
        width = input_width(projection)
        if width % count:
            raise ModelError(f"Layer {layer} concatenates {width} values from {count} heads: not a whole head size.")
        sizes.add(width // count)
    if len(sizes) != 1:
        raise ModelError(f"Head sizes differ between layers ({sorted(sizes)}); one size for all layers is needed.")
    return Shape(tuple(heads), sizes.pop())
