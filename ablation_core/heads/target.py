"""Which head is asked about, and on what input: both as a person writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ablation_core.data.dataset import Batch
from ablation_core.data.user_input import text_inputs
from ablation_core.errors import DataError, SelectionError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import check_known, whole_text
from ablation_core.selection import ModelShape, Selection

OwnInput = str | Image.Image | Tensor | Batch


@dataclass(frozen=True)
class Target:
    """One head, or one of its neurons.

    >>> Target.parse("3.2:5", ModelShape(heads=(6, 6, 6, 6), head_dim=32))
    Target(layer=3, head=2, neuron=5)

    Attributes:
        neuron: None where the whole head is meant.
    """

    layer: int
    head: int
    neuron: int | None = None

    @classmethod
    def parse(cls, select: str | Sequence[int], shape: ModelShape) -> Target:
        """Read `3.2` or `3.2:5`, also as numbers: `(3, 2)` or `(3, 2, 5)`.

        Raises:
            SelectionError: it is not a head or a neuron of this model, or more than one.
        """
        chosen = Selection.read(select, shape).chosen  # type: ignore[arg-type]
        if len(chosen) != 1 or (len(neurons := chosen[0][1]) > 1 and len(neurons) < shape.size(chosen[0][0][0])):
            raise SelectionError(
                f"One head (3.2) or one neuron of it (3.2:5) is described at a time; {select!r} is something else."
            )
        layer, head = chosen[0][0]
        names_neuron = ":" in select if isinstance(select, str) else len(select) == 3
        return cls(layer, head, neurons[0] if len(neurons) == 1 and names_neuron else None)

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}" + ("" if self.neuron is None else f":{self.neuron}")

    def columns(self, size: int) -> slice:
        """Its place in the layer's z."""
        first = self.head * size
        return (
            slice(first, first + size) if self.neuron is None else slice(first + self.neuron, first + self.neuron + 1)
        )


def one_input(model: LoadedModel, own: OwnInput) -> Batch:
    """A text, an image, token ids (positions,) or (sequences, positions), or a batch, as the model takes it.

    Raises:
        DataError: it is empty, too long, or not what the model reads.
    """
    if isinstance(own, Batch):
        return own
    if model.modality == "vision":
        if not isinstance(own, Image.Image):
            raise DataError(f"{model.ref} reads images, not {type(own).__name__}; give a PIL image or a batch.")
        pixels = model.to_pixels(own)[None]
        return Batch({model.input_name: pixels}, torch.zeros(1, dtype=torch.long))
    if isinstance(own, str):
        if not own.strip():
            raise DataError("The text is empty; give a few words.")
        ids = torch.tensor([whole_text(model, own)], dtype=torch.long)
    elif isinstance(own, Tensor) and own.dtype == torch.long and own.ndim in (1, 2) and own.numel():
        ids = own.reshape(-1, own.shape[-1])
    else:
        raise DataError(f"{model.ref} reads text: give a string, token ids of type long, or a batch.")
    if model.max_length is not None and ids.shape[1] > model.max_length:
        raise DataError(f"That is {ids.shape[1]:,} tokens; {model.ref} reads at most {model.max_length:,}. Shorten it.")
    if int(ids.min()) < 0:
        raise DataError(f"Token ids are 0 or more; {int(ids.min())} is none.")
    check_known(model, int(ids.max()))
    if model.predicts_class:
        return Batch(text_inputs(ids), torch.zeros(len(ids), dtype=torch.long))
    return Batch(text_inputs(ids), torch.full_like(ids, -100))
