"""Where a head looks: its attention pattern over one input.

pattern = attention_pattern(model, "The cat sat on the cat", "3.2")
pattern.shape, pattern.sum(1)  # (positions, positions), 1 in every row
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ablation_core.data.arguments import measures
from ablation_core.data.dataset import Batch
from ablation_core.engine.forward import on_device, run_blocks
from ablation_core.engine.hooks import Replace, replace_z
from ablation_core.heads.observe import observe_attention
from ablation_core.heads.target import OwnInput, Target, one_input
from ablation_core.models.loaded import LoadedModel


@measures
def attention_pattern(
    model: LoadedModel, own: OwnInput, select: str, replacements: Mapping[int, Replace] | None = None
) -> np.ndarray:
    """The weights with which a head, at each position (row), reads the others (columns).

    >>> from ablation_core import attention_pattern, load_model
    >>> pattern = attention_pattern(load_model("opt-mini"), "def area(width, height):", "3.2")
    >>> pattern.shape[0] == pattern.shape[1], bool(abs(pattern.sum(1) - 1).max() < 1e-5)
    (True, True)

    They are the ones that the model itself used, and are returned only if weights times values are the z that the
    layer's output projection read. With learned sinks (gpt_oss) a row sums to 1 less what the sink took.

    Args:
        own: a text, a PIL image, token ids (positions,) or (sequences, positions), or a `Batch`.
        select: the head, `3.2`.
        replacements: what other heads' z is replaced with, by layer, as `AblationRun.replacements` gives it.

    Returns:
        float32 (positions, positions); (sequences, positions, positions) where several sequences are given. A vision
        model's positions are its patches, behind CLS and registers where it has them.

    Raises:
        ModelError: the model's own attention cannot be seen, or does not make its z.
        DataError, SelectionError: the input or the head is not one of this model.
    """
    target = Target.parse(select, model.shape)
    patterns = layer_patterns(model, one_input(model, own), target.layer, replacements)[:, target.head]
    return patterns[0] if len(patterns) == 1 else patterns


@torch.inference_mode()
def layer_patterns(
    model: LoadedModel, batch: Batch, layer: int, replacements: Mapping[int, Replace] | None = None
) -> np.ndarray:
    """The patterns of all heads of a layer; float32 (sequences, heads, positions, positions)."""
    batch = on_device(batch, model)
    found: list[np.ndarray] = []
    with (
        model.lock,
        observe_attention(model, [layer], len(batch.targets), lambda _, weights: found.append(weights.cpu().numpy())),
        replace_z(model, replacements or {}),
    ):
        run_blocks(model, batch)
    return found[-1]
