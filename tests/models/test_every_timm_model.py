"""timm's models that hold attention in other ways than a plain transformer: every attention's heads are there, or a sentence says why not."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from ablation_core import compute_statistics, estimate, load_data, load_model
from ablation_core.data.dataset import Data
from ablation_core.models.loaded import LoadedModel
from tests.models.every_timm_model import try_model

NAFLEX = {"depth": 2, "embed_dim": 48, "num_heads": 4}
# By hand, from what each was made with.
WORK: list[tuple[str, dict[str, Any], str]] = [
    ("test_maxvit", {}, "1 × 2, 2 × 2, 3 × 2, 4 × 2"),  # two attentions per block, by windows and across them
    ("naflexvit_base_patch16_parfac_gap", NAFLEX, "4 × 2"),  # its patches are read by no convolution
    ("twins_svt_small", {"embed_dims": (16, 32, 64, 128), "num_heads": (1, 2, 4, 8), "depths": (2, 2, 2, 2), "img_size": 64},
     "1 × 2, 2 × 2, 4 × 2, 8 × 2"),  # windows beside the heads
    ("hiera_tiny_224", {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 2, 1)}, "1 × 1, 2 × 1, 4 × 2, 8 × 1"),
    ("davit_tiny", {"embed_dims": (16, 32, 64, 128), "num_heads": (1, 2, 4, 8), "depths": (1, 1, 1, 1)},
     "1 × 2, 2 × 2, 4 × 2, 8 × 2"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "heads"), WORK, ids=[name for name, _, _ in WORK])
def test_every_attention_of_every_block_has_its_heads(
    tmp_path: Path, name: str, arguments: dict[str, Any], heads: str
) -> None:
    found = try_model(name, tmp_path, **arguments)
    assert found.state == "works" and found.said.endswith(f"heads × layers: {heads}"), found


@pytest.mark.parametrize(("name", "arguments"), [(name, arguments) for name, arguments, _ in WORK])
def test_statistics_and_estimates_of_heads_that_lie_in_grids_and_windows(name: str, arguments: dict[str, Any]) -> None:
    """Means by hooks of the test's own, wherever positions lie in z; the estimate of a small step by that step."""
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=5, **arguments).eval()
    for weight in module.parameters():
        weight.data.add_(0.02 * torch.randn_like(weight))
    model = load_model(module)
    drawn = np.random.default_rng(0).integers(0, 255, (12, 40, 40, 3), dtype=np.uint8)
    images = [(Image.fromarray(one), number % 5) for number, one in enumerate(drawn)]
    part = load_data(images, model, split="statistics")
    statistics = compute_statistics(model, part)
    seen: dict[int, list[torch.Tensor]] = {layer: [] for layer in range(model.num_layers)}
    hooks = [
        projection.register_forward_pre_hook(lambda _, inputs, layer=layer: seen[layer].append(inputs[0]))
        for layer, projection in enumerate(model.projections)
    ]
    batch = part.rows(range(part.sequences))
    with torch.inference_mode():
        model.module(batch.inputs[model.input_name])
    for hook in hooks:
        hook.remove()
    for layer, (z,) in seen.items():
        heads, size = model.shape.heads[layer], model.shape.size(layer)
        counted = z[:, model.excluded_positions :] if model.excluded_positions else z
        mean = counted.flatten(0, -2).double().mean(0).reshape(heads, size)
        np.testing.assert_allclose(statistics.mean[layer, :heads, :size], mean, rtol=1e-4, atol=1e-5)
    data = load_data(images, model)
    estimated = estimate(model, data, "mean", statistics=statistics).methods[0]
    slopes = (
        estimated["loss"].heads - estimated["kl"].heads
    )  # to second order, a loss changes by its slope and by the KL
    for layer, head in ((0, model.shape.heads[0] - 1), (model.num_layers - 1, 0)):
        slope = slope_by_hand(model, data, layer, head, torch.from_numpy(statistics.mean[layer, head]))
        assert slopes[layer, head] == pytest.approx(slope, rel=0.01, abs=2e-7)


def slope_by_hand(
    model: LoadedModel, data: Data, layer: int, head: int, mean: torch.Tensor, step: float = 0.01
) -> float:
    """How the loss begins to change when a head's values move towards their mean: a difference across a small step, in float64."""
    names = {id(part): name for name, part in model.module.named_modules()}
    module = copy.deepcopy(model.module).double()
    size = model.shape.size(layer)
    columns = slice(head * size, (head + 1) * size)
    batch = data.rows(range(data.sequences))

    def loss(share: float) -> float:
        def moved(_module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            z = inputs[0].clone()
            z[..., columns] += share * (mean[:size] - z[..., columns])
            return (z, *inputs[1:])

        handle = module.get_submodule(names[id(model.projections[layer])]).register_forward_pre_hook(moved)
        with torch.inference_mode():
            logits = module(batch.inputs[model.input_name].double())
        handle.remove()
        return float(torch.nn.functional.cross_entropy(logits, batch.targets))

    return (loss(step) - loss(-step)) / (2 * step)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("maxvit_tiny_pm_256", {"embed_dim": (32, 32, 32, 32), "depths": (1, 1, 1, 1)}, "attention in several places"),
        pytest.param("nest_tiny", {}, "not independent slices", marks=pytest.mark.slow),
        ("test_coatnet", {}, "no linear map that reads them"),
    ],
)
def test_what_cannot_be_ablated_by_heads_says_why(
    tmp_path: Path, name: str, arguments: dict[str, Any], words: str
) -> None:
    found = try_model(name, tmp_path, **arguments)
    assert found.state == "refused" and words in found.said, found
