"""Which models can read data that was prepared for one: those whose tokenizer, or whose image transform, gives the same.

Ids of one tokenizer are other words in another, and no error would show it: the baseline would only be worse.
"""

from __future__ import annotations

import hashlib
from typing import Any

from PIL import Image

from ablation_core.errors import AblationError, DataError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.reading import told_of_texts
from ablation_core.models.tokenizer import padding_id

READ_BY = {  # what a model reads by, in a sentence
    "causal": "tokenizer",
    "masked": "tokenizer",
    "vision": "class names or image transform",
    "text-classification": "tokenizer or class names",
}


def reader_key(model: LoadedModel) -> str:
    """A digest of how a model reads: equal for models that share tokenizer and kind, or image transform and classes.

    The weights are not in it: data stays good for a model whose weights are edited.
    """
    digest = hashlib.sha256(model.modality.encode())
    for part in _images(model) if model.modality == "vision" else _text(model):
        digest.update(part + b"\0")
    return digest.hexdigest()[:16]


def check_made_for(model: LoadedModel, made_for: str, ref: str) -> None:
    """Refuse data (`Data.made_for`, `Data.ref`) that was prepared for a model that reads otherwise.

    Raises:
        DataError: it was.
    """
    if made_for and made_for != reader_key(model):
        what = READ_BY[model.modality]
        raise DataError(
            f"This data ({ref}) was prepared for another model, whose {what} is not that of {model.ref}: call "
            f"load_data with this model."
        )


def _text(model: LoadedModel) -> list[bytes]:
    classes = [repr((padding_id(model), model.labels)).encode()] if model.predicts_class else []
    if model.tokenizer is None:
        module: Any = model.module
        return [str(module.get_input_embeddings().num_embeddings).encode(), *classes]
    return [repr(told_of_texts(model.tokenizer)).encode(), *classes]


def _images(model: LoadedModel) -> list[bytes]:
    probe = Image.linear_gradient("L").convert("RGB")
    names = "\0".join(model.labels).encode()
    try:
        pixels, again = model.to_pixels(probe), model.to_pixels(probe)
    except AblationError:  # no image transform: pixels are given
        return [names]
    shape = repr(tuple(pixels.shape)).encode()
    # of a transform that draws at random no more can be said
    return [names, shape, *([pixels.float().cpu().numpy().tobytes()] if pixels.equal(again) else [])]
