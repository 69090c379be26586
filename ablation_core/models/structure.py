"""Families without a row: looks for the one attention output projection in each block of an unknown model."""

import re

from torch import nn

from ablation_core.errors import ModelError
from ablation_core.models.architectures import ARCHITECTURES, REFUSED, Architecture, input_width
from ablation_core.models.info import Modality

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_READS_RESIDUAL = re.compile(
    r"(^|[_.])(q|k|v|kv|qkv|wq|wk|wv|wqkv|query|key|value|query_key_value|c_attn|in_proj)([_.]|$)", re.IGNORECASE
)
_SUFFIXES: tuple[tuple[str, Modality], ...] = (
    ("ForCausalLM", "causal"),
    ("LMHeadModel", "causal"),
    ("ForMaskedLM", "masked"),
    ("ForImageClassification", "vision"),
)


def known_architecture(family: str, is_encoder_decoder: bool = False) -> Architecture | None:
    """The family's row, or None where it has none.

    Raises:
        ModelError: the family cannot work.
    """
    if family in REFUSED:
        raise ModelError(f"Models of the family {family} cannot be ablated here: {REFUSED[family]}.")
    if is_encoder_decoder:
        raise ModelError(f"{family} is an encoder-decoder; only models with one row of blocks can be ablated here.")
    return ARCHITECTURES.get(family)


def modality_of(class_names: list[str], family: str) -> Modality:
    """What a model of an unknown family predicts, from the class names its configuration gives.

    Raises:
        ModelError: they do not tell.
    """
    for suffix, modality in _SUFFIXES:
        if any(name.endswith(suffix) for name in class_names):
            return modality
    raise ModelError(
        f"The family {family} is not known, and its configuration ({', '.join(class_names) or 'no class named'}) does "
        f"not say that it is a causal or masked language model or an image classifier. {supported()}"
    )


def find_by_structure(module: nn.Module, family: str, modality: Modality) -> Architecture:
    """A row for an unknown family: its longest list of equal blocks, with one candidate projection in each.

    Raises:
        ModelError: there is no such list, or the projection is ambiguous.
    """
    lists = [
        (name, child)
        for name, child in module.named_modules()
        if isinstance(child, nn.ModuleList) and len(child) and len({type(block) for block in child}) == 1
    ]
    found = [(name, child, paths) for name, child in lists if (paths := _candidates(child))]
    if not found:
        raise ModelError(f"No attention output projection was found in this {family} model. {supported()}")
    name, _, paths = max(found, key=lambda item: len(item[1]))
    if len(paths) > 1:
        raise ModelError(
            f"The attention output projection of this {family} model is ambiguous: in {name} it could be "
            f"{' or '.join(sorted(paths))}. {supported()}"
        )
    return Architecture(family, modality, f"{name}.*", paths.pop(), verified=False)


def supported() -> str:
    return f"Supported families: {', '.join(sorted(ARCHITECTURES))}."


def _candidates(blocks: nn.ModuleList) -> set[str]:
    """The paths of linear maps inside every block's attention that do not make queries, keys or values."""
    shared: set[str] | None = None
    for block in blocks:
        linear = {
            name
            for name, child in block.named_modules()
            if _ATTENTION.search(name) and _is_linear(child) and input_width(child) > 1
        }
        outputs = {name for name in linear if not _READS_RESIDUAL.search(name)}
        if len(outputs) == len(linear):
            return set()  # nothing here makes queries, keys and values
        shared = outputs if shared is None else shared & outputs
    return shared or set()


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
