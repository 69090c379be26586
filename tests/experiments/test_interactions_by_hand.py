"""Interactions of models built by hand: two heads that hold the same, two that only count together, two with parts of their own.

A vision transformer of one block without norms, attending uniformly. The patch writes two features of the image into the
residual stream; head 0.0 copies one, head 0.1 the other, and the block's ReLUs combine both copies into the logits.
"""

import timm
import torch
from torch import nn

from ablation_core import interact, load_data
from ablation_core.experiments.interaction_result import InteractionResult
from ablation_core.models.architectures import ARCHITECTURES
from ablation_core.models.loaded import LoadedModel, wrap

WIDTH, FIRST, SECOND, ONE_COPY, OTHER_COPY, LOGIT = 8, 0, 1, 2, 3, 4
Kink = tuple[float, float, float]  # weight, slope and offset: weight * relu(slope * (a + b) + offset)


@torch.no_grad()
def built(kinks: list[Kink]) -> LoadedModel:
    """The model whose first logit is 3 * Σ of the kinks of both heads' copies, and its second that with a minus."""
    module = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=2, patch_size=2, in_chans=1, embed_dim=WIDTH, depth=1,
        num_heads=2, num_classes=2, norm_layer=nn.Identity, act_layer=nn.ReLU,
    )  # fmt: skip
    for weight in module.parameters():
        weight.zero_()
    block, half = module.blocks[0], WIDTH // 2
    module.patch_embed.proj.weight[FIRST, 0, 0, 0] = 1
    module.patch_embed.proj.weight[SECOND, 0, 0, 1] = 1
    block.attn.qkv.weight[2 * WIDTH, FIRST] = 2  # head 0's first value; uniform attention halves it
    block.attn.qkv.weight[2 * WIDTH + half, SECOND] = 2
    block.attn.proj.weight[ONE_COPY, 0] = 1
    block.attn.proj.weight[OTHER_COPY, half] = 1
    for unit, (weight, slope, offset) in enumerate(kinks):
        block.mlp.fc1.weight[unit, [ONE_COPY, OTHER_COPY]] = slope
        block.mlp.fc1.bias[unit] = offset
        block.mlp.fc2.weight[LOGIT, unit] = weight
    module.head.weight[0, LOGIT], module.head.weight[1, LOGIT] = 3, -3
    model = wrap("by-hand", module.eval().requires_grad_(False), ARCHITECTURES["VisionTransformer"])
    model.labels = ("up", "down")
    return model


def found(kinks: list[Kink], features: list[tuple[float, float]]) -> InteractionResult:
    """Both heads, set to zero, on images with these features; the class is the sign of their sum."""
    model = built(kinks)
    images = [
        (torch.tensor([[[one, other], [0.0, 0.0]]]), "up" if one + other > 0 else "down") for one, other in features
    ]
    data = load_data(images, model, predictions=len(images))
    return interact(model, data, "0.0 0.1", "zero")


SAME = [(1.0, 1.0), (-1.0, -1.0)] * 10
CLIPPED = [(1.0, 1.0, 1.0), (-1.0, 1.0, -1.0), (-1.0, 0.0, 1.0)]  # the sum, cut to −1 … 1
BEYOND = [(1.0, 1.0, -1.0), (-1.0, -1.0, -1.0)]  # what the sum has beyond −1 … 1
LOST = float(torch.tensor(2.0).log() - torch.tensor(-6.0).exp().log1p())  # from logits ±3 to 0 and 0


def test_two_heads_that_hold_the_same_are_redundant() -> None:
    """Either is enough: without one nothing changes, without both everything is lost."""
    result = found(CLIPPED, SAME)
    (pair,) = result.pairs
    assert [abs(change.mean) < 1e-6 for change in result.singles.values()] == [True, True]
    assert abs(pair.interaction.mean - LOST) < 1e-5 and pair.verdict == "redundant"


def test_two_heads_that_only_count_together_are_synergistic() -> None:
    """Without one already everything is lost, and the second loses nothing more."""
    result = found(BEYOND, SAME)
    (pair,) = result.pairs
    assert [abs(change.mean - LOST) < 1e-5 for change in result.singles.values()] == [True, True]
    assert abs(pair.interaction.mean + LOST) < 1e-5 and pair.verdict == "synergistic"


def test_two_heads_with_parts_of_their_own_are_independent() -> None:
    """Half of the images show one feature, half the other."""
    result = found(CLIPPED, [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)] * 5)
    (pair,) = result.pairs
    assert [abs(change.mean - LOST / 2) < 1e-5 for change in result.singles.values()] == [True, True]
    assert abs(pair.interaction.mean) < 1e-5 and pair.verdict == "independent"
