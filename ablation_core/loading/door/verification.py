"""Before a model is used it has to show, on a tiny batch, that what will be measured is what it seems.

Numbers of the whole model, of its parts as the engine runs them, and of changed inputs are compared; what does not agree
is refused with what was found. Every family is tried, whether it has a row or was found by its structure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ablation_core.data.dataset import IGNORED, Batch
from ablation_core.engine import clean_passes, forward, scoring
from ablation_core.engine.clean_pass import CleanPass
from ablation_core.engine.forward import options
from ablation_core.engine.hooks import forward_replaced, hidden_of
from ablation_core.engine.nonfinite import no_numbers
from ablation_core.errors import AblationError, ModelError, first_line
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import padding_id

ROWS, TOKENS = 3, 10
_TOLERANCE = {"float32": 2e-4, "float64": 2e-4}  # in nats; half precision rounds more
_COARSE = 0.15


def tiny_inputs(module: torch.nn.Module, tokens: int = TOKENS, rows: int = 1, seed: int = 0) -> dict[str, Tensor]:
    """Random token ids, none of them special, and their attention mask."""
    config: Any = module.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    named = [getattr(text, name, None) for name in dir(text) if name.endswith("_token_id")]
    special = {int(one) for one in named if isinstance(one, int)}
    made: Any = module
    known = made.get_input_embeddings().weight.shape[0]
    usable = np.setdiff1d(np.arange(known), list(special))
    if not len(usable):
        usable = np.arange(known)
    ids = np.random.default_rng(seed).choice(usable, (rows, tokens))
    device = made.get_input_embeddings().weight.device
    there = torch.from_numpy(ids).to("cpu" if device.type == "meta" else device)
    return {"input_ids": there, "attention_mask": torch.ones_like(there)}


def noise_images(number: int, mode: str = "RGB", side: int = 64) -> Iterator[Image.Image]:
    """Images of random pixels."""
    generator = np.random.default_rng(0)
    for _ in range(number):
        pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        yield Image.fromarray(pixels).convert(mode)


def verify(model: LoadedModel) -> None:
    """Compare the engine's numbers with the whole model's, and look at what each prediction depends on.

    Raises:
        ModelError: they differ, or the model is not what its class says.
    """
    try:
        _verify(model)
    except AblationError:
        raise
    except Exception as error:  # whatever an unknown model does, the user needs one sentence
        raise ModelError(
            f"{model.ref}, of the family {model.family}, cannot be run block by block ({first_line(error)})."
        ) from error


@torch.inference_mode()
def _verify(model: LoadedModel) -> None:
    batch = _batch(model)
    logits = _whole(model, batch.inputs)
    if not torch.isfinite(logits).all():
        raise no_numbers(model, "a tiny batch", [])
    _check_shape(model, batch, logits)
    if model.modality == "vision":
        model.special_positions = _special_positions(model, batch)
    elif model.modality == "text-classification":
        _check_padding(model, batch.inputs, logits)
    else:
        _check_direction(model, batch.inputs, logits)
    try:
        _check_losses(model, batch, logits)
    except Exception:  # whatever it raises, or other numbers: once more with whole batches behind skipped blocks
        if model.modality != "vision":
            raise
        model.one_image, model.shortcuts, model.resumes = False, None, True
        _check_losses(model, batch, logits)


def _batch(model: LoadedModel) -> Batch:
    if model.modality == "vision":
        pixels = torch.stack([model.to_pixels(image) for image in noise_images(ROWS)])
        dtype = next(model.module.parameters()).dtype
        return Batch({model.input_name: pixels.to(model.device, dtype)}, torch.zeros(ROWS, dtype=torch.long))
    length = min(TOKENS, model.max_length or TOKENS)
    inputs = tiny_inputs(model.module, length, ROWS)
    if model.modality == "text-classification":
        for row in range(1, ROWS):  # all but the first are shorter
            end = max(1, length - 2 * row)
            inputs["input_ids"][row, end:] = padding_id(model)
            inputs["attention_mask"][row, end:] = 0
        return Batch(inputs, torch.arange(ROWS) % model.classes)
    targets = inputs["input_ids"].roll(-1, 1).clone()
    targets[:, ::3] = IGNORED
    targets[1, : length // 2] = IGNORED
    return Batch(inputs, targets)


def _whole(model: LoadedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    result = model.module(**inputs, **options(model))
    return (result if isinstance(result, Tensor) else result.logits).float()


def _check_shape(model: LoadedModel, batch: Batch, logits: Tensor) -> None:
    expected = batch.targets.shape
    if logits.shape[:-1] != expected:
        raise ModelError(
            f"{model.ref} gives scores of the shape {tuple(logits.shape)}; one per {'input' if len(expected) == 1 else 'position'} "
            f"and class, {tuple(expected)} and a number of classes, was expected."
        )
    if model.modality == "text-classification" and logits.shape[-1] != model.classes:
        raise ModelError(
            f"{model.ref} gives scores of {logits.shape[-1]} classes, and its configuration names {model.classes}."
        )


def _check_padding(model: LoadedModel, inputs: Mapping[str, Tensor], logits: Tensor) -> None:
    """A text's classes are the same alone and filled up beside longer ones."""
    for row, length in enumerate(inputs["attention_mask"].sum(1).tolist()):
        alone = _whole(model, {name: tensor[row : row + 1, :length] for name, tensor in inputs.items()})[0]
        if not torch.allclose(alone, logits[row], rtol=10 * _tolerance(model), atol=_tolerance(model)):
            raise ModelError(
                f"{model.ref} gives a text other classes when it is padded beside a longer one (a score moves by "
                f"{float((alone - logits[row]).abs().max()):.2g}): batches of texts would be scored wrongly."
            )


def _check_direction(model: LoadedModel, inputs: Mapping[str, Tensor], logits: Tensor) -> None:
    """A causal model sees no later token; a masked one sees both sides."""
    ids = inputs["input_ids"]
    middle = ids.shape[1] // 2
    other = ids.clone()
    other[:, middle] = ids.roll(1, 1)[:, middle] if (ids.roll(1, 1)[:, middle] != ids[:, middle]).all() else ids[:, -1]
    changed = _whole(model, {**inputs, "input_ids": other})
    moved = (changed - logits).abs().amax((0, 2))
    # a leak is told from rounding by how much the same change moves what may be moved
    rounding = 20 * torch.finfo(getattr(torch, model.dtype)).eps * float(logits.abs().max())
    limit = max(0.01 * float(moved[middle:].max()), rounding)
    before, after = moved[:middle], moved[middle + 1 :]
    if model.modality == "causal" and float(before.max()) > limit:
        raise ModelError(
            f"{model.ref} was saved as a causal language model, but a later token changes the prediction before it (a "
            f"score by {float(before.max()):.2g}): it sees what it would be asked to predict. Models for embeddings, and "
            f"encoders saved without is_decoder in their configuration, are like that; they cannot be measured as "
            f"causal language models."
        )
    if model.modality == "masked":
        blind = [side for side, part in (("later", before), ("earlier", after)) if float(part.max()) == 0]
        if blind:
            raise ModelError(
                f"{model.ref} was saved as a masked language model, but its predictions do not depend on "
                f"{' or '.join(blind)} tokens: it sees one side only, as a decoder does (is_decoder in its "
                f"configuration), and is not what a masked language model is measured as."
            )


def _check_losses(model: LoadedModel, batch: Batch, logits: Tensor) -> None:
    """The losses of some positions are the same whole, packed, and resumed at every block."""
    scored = batch.targets != IGNORED
    log_probs = logits.log_softmax(-1)
    wanted = batch.targets[scored][:, None].to(logits.device)
    right = -log_probs[scored].gather(-1, wanted).flatten().double().cpu().numpy()
    clean_pass = forward.record(model, batch)
    if len(clean_pass.outputs) != model.num_layers:
        raise ModelError(
            f"{model.ref} runs {len(clean_pass.outputs)} blocks in a pass and has {model.num_layers}; each must run once."
        )
    own = forward.z_values(model, batch, range(model.num_layers))
    _check_sites(model, batch, clean_pass, own)
    if not _agree(model, clean_pass, clean_pass.outputs[-1], right):
        raise ModelError(
            f"{model.ref} gives other numbers when what follows its last block sees the scored positions alone: "
            f"something behind its blocks mixes positions, so that it cannot be ablated here."
        )
    with_heads = [layer for layer, heads in enumerate(model.shape.heads) if heads]
    for layer in with_heads:
        try:
            output = clean_passes.ablated_output(model, clean_pass, {layer: _always(own[layer])})
            same = _agree(model, clean_pass, output, right)
        except Exception:
            if not model.resumes:
                raise
            same = False
        if not same and model.resumes:  # later blocks read what earlier ones left elsewhere: run them all each time
            model.resumes, model.shortcuts = False, [None] * model.num_layers
            output = clean_passes.ablated_output(model, clean_pass, {layer: _always(own[layer])})
            same = _agree(model, clean_pass, output, right)
        if not same:
            raise ModelError(
                f"{model.ref} gives other numbers when it is run from block {layer}; it cannot be ablated."
            )


def _check_sites(model: LoadedModel, batch: Batch, clean_pass: CleanPass, own: Mapping[int, Tensor]) -> None:
    for layer, heads in enumerate(model.shape.heads):
        if not heads:
            continue
        if layer not in own:
            raise ModelError(f"The output projection of layer {layer} of {model.ref} does not run in a pass.")
        z, width = own[layer], model.shape.width(layer)
        rows = batch.inputs["input_ids"].shape if "input_ids" in batch.inputs else ()
        if z.shape[-1] != width or (rows and z.shape[:-1] != rows):
            raise ModelError(
                f"The output projection of layer {layer} of {model.ref} reads {tuple(z.shape)}; batch, position and "
                f"{heads} heads of {model.shape.size(layer)} neurons were expected."
            )
        made, hidden = _output_width(model.projections[layer]), hidden_of(clean_pass.outputs[layer]).shape[-1]
        if made * model.streams != hidden and model.modality != "vision":
            raise ModelError(
                f"The linear map that reads the heads of layer {layer} of {model.ref} makes {made} values, and the "
                f"residual stream has {hidden}: it is not the attention's output projection."
            )


def _always(value: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda _z: value


def _output_width(projection: torch.nn.Module) -> int:
    linear: Any = projection
    return int(linear.out_features if hasattr(linear, "out_features") else linear.weight.shape[1])


def _agree(model: LoadedModel, clean_pass: CleanPass, output: object, right: np.ndarray) -> bool:
    clean, other = scoring.score_outputs(model, clean_pass, [output])
    tolerance = _tolerance(model)
    return all(np.allclose(scores.loss, right, rtol=tolerance, atol=tolerance) for scores in (clean, other))


def _tolerance(model: LoadedModel) -> float:
    return _TOLERANCE.get(model.dtype, _COARSE)


def _special_positions(model: LoadedModel, batch: Batch) -> int:
    """How many first positions hold the same whatever the image: class token, registers, distillation token."""
    name, block = model.input_name, model.blocks[0]
    first: list[Tensor] = []
    forward = block.forward

    def keep(*args: Any, **kwargs: Any) -> Any:
        first.append(hidden_of(args[0] if args else kwargs["hidden_states"]))
        return forward(*args, **kwargs)

    with forward_replaced(block, keep):
        model.module(**{name: batch.inputs[name]})
    hidden = first[0].float()
    if hidden.ndim != 3 or hidden.shape[0] != ROWS:
        return 0
    same = (hidden[1:] == hidden[:1]).all(-1).all(0)
    return int(same.long().cumprod(0).sum())
