"""How long an input a language model has positions for, whatever its configuration calls that, and as its tables show."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ablation_core.engine.forward import options
from ablation_core.loading.door.verification import tiny_inputs
from ablation_core.models.hooks import hooked
from ablation_core.models.loaded import LoadedModel

_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_seq_length",
    "max_sequence_length",
    "max_target_positions",
    "max_context_len",
    "context_length",
    "n_ctx",
)
_TOKENS = 5
_TRIED_WORK = 2e10  # multiplications that trying the longest input may take


def longest_input(model: LoadedModel) -> int | None:
    """The most tokens that fit; None where nothing limits them.

    Example:
        >>> longest_input(load_model("opt-mini"))
        128
    """
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    named = [getattr(config, name, None) for name in _NAMES]
    limits = [int(value) for value in named if isinstance(value, int) and value > 0]
    tables = _table_limits(model)
    longest = min([*limits, *tables], default=None)
    return _tried(model, longest)


@torch.inference_mode()
def _table_limits(model: LoadedModel) -> list[int]:
    """For each table of positions that is learned: its rows from where the first token's is."""
    inputs = tiny_inputs(model.module, _TOKENS)
    vocabulary = model.module.get_input_embeddings()  # type: ignore[operator]
    limits: list[int] = []

    def watch(table: nn.Module, arguments: tuple, _output: object) -> None:
        ids = arguments[0] if arguments and isinstance(arguments[0], Tensor) else None
        if ids is None or ids.is_floating_point() or ids.numel() < _TOKENS or table is vocabulary:
            return
        last = ids.reshape(-1, ids.shape[-1])[0] if ids.ndim else ids
        if len(last) == _TOKENS and bool((last.diff() == 1).all()):
            # OPT keeps its offset inside the table, and adds it there to ids that count from 0
            offset = int(getattr(table, "offset", 0)) if type(table) is not nn.Embedding else 0
            weight: Any = table.weight
            limits.append(int(weight.shape[0]) - int(last[0]) - (offset if not int(last[0]) else 0))

    with hooked((table, watch) for table in model.module.modules() if isinstance(table, nn.Embedding)):
        model.module(**inputs, **options(model))
    return limits


@torch.inference_mode()
def _tried(model: LoadedModel, longest: int | None) -> int | None:
    """What small models can really read: tried at the limit, and halved down where that fails."""
    weights = sum(weight.numel() for weight in model.module.parameters())
    most = int(min(longest or 1024, 1024, _TRIED_WORK / max(weights, 1)))
    if most < 32 or _runs(model, most):
        return longest
    low, high = 1, most  # it ran on a few tokens
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _runs(model, middle) else (low, middle)
    return low


def _runs(model: LoadedModel, length: int) -> bool:
    try:
        module: Any = model.module
        module.base_model(**tiny_inputs(model.module, length), **options(model))
    except (RuntimeError, IndexError, ValueError, AssertionError):
        return False
    return True
