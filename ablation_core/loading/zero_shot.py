"""Models that compare images with texts, as classifiers of images: the class texts are embedded once and stay fixed.

    load_model("openai/clip-vit-base-patch32#cat,dog")                     # This is a photo of cat.
    load_model("FOLDER#a drawing of a {}:cat,dog")                         # a template of one's own

As transformers' zero-shot pipeline has it: an image's scores are the cosines of its embedding with the texts', times the
model's own scale, and classes compete by softmax. Heads of the image tower are ablated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ablation_core.errors import ModelError
from ablation_core.models.tokenizer import tokenizer_faults

TEMPLATE = "This is a photo of {}."
_LONGEST = 64  # SigLIP was trained with texts filled up to this length


@dataclass(frozen=True)
class ClassTexts:
    """What images are compared with.

    >>> ClassTexts.parse("a drawing of a {}:cat,dog").texts
    ('a drawing of a cat', 'a drawing of a dog')
    """

    names: tuple[str, ...]
    template: str = TEMPLATE

    @classmethod
    def parse(cls, text: str) -> ClassTexts:
        """Read `cat,dog` or `a drawing of a {}:cat,dog`.

        Raises:
            ModelError: it names fewer than two classes, or one twice.
        """
        head, colon, rest = text.partition(":")
        template, listed = (head, rest) if colon and "{}" in head else (TEMPLATE, text)
        return cls.of([name.strip() for name in listed.split(",") if name.strip()], template)

    @classmethod
    def of(cls, names: Sequence[str], template: str = TEMPLATE) -> ClassTexts:
        """The same from a list of names."""
        if len(names) < 2 or len(set(names)) < len(names):
            raise ModelError(
                f"At least two different class texts are needed, as in FOLDER#cat,dog; found {', '.join(names) or 'none'}."
            )
        return cls(tuple(map(str, names)), template)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(self.template.replace("{}", name) for name in self.names)


class ZeroShotClassifier(nn.Module):
    """The image tower of a model, and the embeddings of the class texts.

    Args:
        whole: the model with both towers.
        embedded: float (classes, width), of length 1.
    """

    class_texts: Tensor

    def __init__(self, whole: Any, embedded: Tensor, names: Sequence[str]) -> None:
        super().__init__()
        self.config = whole.config
        self.config.id2label = dict(enumerate(names))
        self.vision_model = whole.vision_model
        self.visual_projection = getattr(whole, "visual_projection", nn.Identity())
        self.logit_scale = whole.logit_scale
        self.logit_bias = getattr(whole, "logit_bias", None)
        self.class_texts: Tensor
        self.register_buffer("class_texts", embedded)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Scores, (images, classes), of pixels (images, channels, height, width)."""
        pooled = self.vision_model(pixel_values=pixel_values, return_dict=True).pooler_output
        embedded = nn.functional.normalize(self.visual_projection(pooled), dim=-1)
        texts: Tensor = self.class_texts
        scores = embedded @ texts.t().to(embedded) * self.logit_scale.exp()
        return scores if self.logit_bias is None else scores + self.logit_bias


def is_zero_shot(class_names: Sequence[str]) -> bool:
    """Whether a model was saved with both towers, and no head."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES as NAMES

    known = {name for names in NAMES.values() for name in ((names,) if isinstance(names, str) else names)}
    return bool(class_names) and all(name in known for name in class_names)


def check_class_texts(ref: str, zero_shot: bool, classes: ClassTexts | None) -> None:
    """Refuse class texts for a model that reads none, and a model that needs some without them.

    Raises:
        ModelError: one of the two.
    """
    if zero_shot and classes is None:
        raise ModelError(
            f"{ref} compares images with texts and has no classes of its own: name some behind it, as in {ref}#cat,dog. The "
            f"heads of its image tower can be ablated then."
        )
    if classes is not None and not zero_shot:
        raise ModelError(
            f"{ref} has classes or tokens of its own; class texts (behind #) are for models that compare images with texts, "
            f"such as CLIP."
        )


@torch.no_grad()
def zero_shot(ref: str, whole: Any, tokenizer: Any, classes: ClassTexts) -> ZeroShotClassifier:
    """A classifier of images by class texts.

    Raises:
        ModelError: the model is not built of two towers as CLIP is.
    """
    if not (hasattr(whole, "vision_model") and hasattr(whole, "logit_scale") and hasattr(whole, "get_text_features")):
        raise ModelError(
            f"{ref} ({type(whole).__name__}) compares images with texts otherwise than CLIP and SigLIP do; it cannot be "
            f"measured by class texts."
        )
    siglip = "siglip" in whole.config.model_type
    longest = getattr(whole.config.text_config, "max_position_embeddings", _LONGEST)
    longest = min(longest, _LONGEST) if siglip else longest
    with tokenizer_faults(ref):
        given = tokenizer(
            list(classes.texts),
            return_tensors="pt",
            padding="max_length" if siglip else True,
            truncation=True,
            max_length=longest,
        )
    device = next(whole.parameters()).device
    found = whole.get_text_features(**{name: value.to(device) for name, value in given.items()})
    pooled = found if isinstance(found, Tensor) else found.pooler_output
    return ZeroShotClassifier(whole, nn.functional.normalize(pooled, dim=-1), classes.names).eval()
