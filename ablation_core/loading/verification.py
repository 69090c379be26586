"""A model of an unknown family has to show that it can be hooked: one small input, whole and resumed, must agree."""

import torch
from PIL import Image
from torch import Tensor

from ablation_core.data.dataset import Batch
from ablation_core.engine import clean_passes, forward, scoring
from ablation_core.errors import ModelError, first_line
from ablation_core.models.loaded import LoadedModel

TOKENS = 8


@torch.inference_mode()
def check_by_running(model: LoadedModel) -> None:
    """Compare the engine's clean log-probabilities, and a resumed pass, with the whole model.

    Raises:
        ModelError: they differ, or the model cannot be run this way.
    """
    try:
        agrees = _agrees(model)
    except Exception as error:  # whatever an unknown model does, the user needs one sentence
        raise ModelError(
            f"{model.ref} is of the family {model.family}, which is not known, and cannot be run block by block "
            f"({first_line(error)})."
        ) from error
    if not agrees:
        raise ModelError(
            f"{model.ref} is of the family {model.family}, which is not known, and gives other numbers when it is run "
            f"block by block; it cannot be ablated here."
        )


def _agrees(model: LoadedModel) -> bool:
    batch = _small_batch(model)
    whole = model.module(**batch.inputs)
    logits = whole if isinstance(whole, Tensor) else whole.logits
    right = logits.float().log_softmax(-1).gather(-1, batch.targets[..., None]).flatten()
    clean_pass = forward.record(model, batch)
    own = forward.pre_outs(model, batch, range(model.num_layers))
    resumed = clean_passes.ablated_output(
        model, clean_pass, {model.num_layers - 1: lambda x: own[model.num_layers - 1]}
    )
    losses = [torch.from_numpy(scores.loss) for scores in scoring.score_outputs(model, clean_pass, [resumed])]
    return all(torch.allclose(loss, -right.double(), rtol=1e-3, atol=1e-3) for loss in losses)


def _small_batch(model: LoadedModel) -> Batch:
    if model.modality == "vision":
        pixels = model.to_pixels(Image.new("RGB", (64, 64), (90, 120, 150)))[None]
        return Batch(
            {model.input_name: pixels.to(next(model.module.parameters()).dtype)}, torch.zeros(1, dtype=torch.long)
        )
    ids = torch.arange(TOKENS)[None] + 1
    return Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids.flip(1))
