"""Why a model cannot be run, or gives no numbers: what was tried on a tiny batch, and at which other lengths it runs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ablation_core.errors import ModelError, first_line
from ablation_core.models.attention_calls import Run

_OTHER_LENGTHS = (8, 16, 32, 64, 128)


def cannot_run(family: str, inputs: Mapping[str, Tensor], run: Run, error: Exception) -> ModelError:
    """The sentence for a model that fails on a tiny batch; one that reads only some lengths is named as that."""
    ids = inputs.get("input_ids")
    batch = "one image" if ids is None else f"a text of {ids.shape[1]} tokens"
    if ids is not None and (fitting := [length for length in _OTHER_LENGTHS if _runs(inputs, length, run)]):
        return ModelError(
            f"This {family} model cannot be run on {batch} ({first_line(error)}), but on one of {fitting[0]}: its attention "
            f"takes only texts of certain lengths, so that its heads cannot be measured at every position of any text."
        )
    return ModelError(
        f"This {family} model cannot be run on a tiny batch, {batch} ({first_line(error)}): either its configuration does not "
        f"fit together, or its library cannot run it here. Try its own forward on such a batch."
    )


@torch.inference_mode()
def _runs(inputs: Mapping[str, Tensor], length: int, run: Run) -> bool:
    longer = {
        name: value.repeat(1, -(-length // value.shape[1]))[:, :length] if value.ndim == 2 else value
        for name, value in inputs.items()
    }
    try:
        run(longer)
    except Exception:  # noqa: BLE001 (whatever a module raises)
        return False
    return True


@torch.inference_mode()
def check_finite(module: nn.Module, family: str, inputs: Mapping[str, Tensor], run: Run) -> None:
    """Refuse a model whose scores are no numbers: nothing can be seen in it.

    Raises:
        ModelError: with the first weight that is not finite, if one is.
    """
    made = run(inputs)
    logits = getattr(made, "logits", made)
    if not isinstance(logits, Tensor) or bool(torch.isfinite(logits).any()):
        return
    for name, weight in module.named_parameters():
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise ModelError(
                f"The weight {name} of this {family} model holds numbers that are not finite (NaN or infinite), and so are all "
                f"its scores. Take an earlier checkpoint."
            )
    raise ModelError(
        f"All scores of this {family} model are NaN or infinite, though its weights are numbers: a setting of its "
        f"configuration leaves attention nothing to see, or a type is too small for it."
    )
