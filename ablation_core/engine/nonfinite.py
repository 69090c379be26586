"""Where numbers stop being numbers: the first layer with NaN or infinity, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ablation_core.errors import ModelError

if TYPE_CHECKING:
    from ablation_core.models.loaded import LoadedModel


def first_broken(outputs: Sequence[Any]) -> int | None:
    """The first block whose output, as recorded by the engine, holds NaN or infinity; None where all are finite."""
    from ablation_core.engine.hooks import hidden_of

    return next((layer for layer, output in enumerate(outputs) if not hidden_of(output).isfinite().all()), None)


def no_numbers(model: LoadedModel, data: str, outputs: Sequence[Any]) -> ModelError:
    """The error of a clean model whose losses are no numbers.

    Args:
        data: the reference of what it was run on.
        outputs: the blocks' outputs of the batch where that was seen.
    """
    layer = first_broken(outputs)
    where = (
        "all layers' outputs are finite, what follows them is not" if layer is None else f"it begins in layer {layer}"
    )
    return ModelError(
        f"{model.ref} in {model.dtype} gives losses that are NaN or infinite on {data}, even unablated; {where}. Try "
        f"--dtype float32, or another model."
    )
