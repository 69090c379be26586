"""Blocks that hand on several residual streams, (streams, batch, position, width), as Gemma 3n's do."""

import numpy as np
import pytest
import torch

from ablation_core import ablate, compute_statistics, describe_head, direct_effects, estimate, load_data, load_model
from ablation_core.data.dataset import IGNORED, Data
from ablation_core.errors import ModelError
from ablation_core.models.loaded import LoadedModel
from tests.models.every_family import Sizes, build

SIZES = Sizes(heads=6, key_value_heads=3, head_dim=10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("gemma3n")
    build("causal", "gemma3n_text", folder, SIZES)
    first = load_model(str(folder), device="cpu", dtype="float32", cache_dir=folder / "cache")
    again = load_model(str(folder), device="cpu", dtype="float32", cache_dir=folder / "cache")  # as it is remembered
    assert first.streams == again.streams == 4
    return again


@pytest.fixture(scope="module")
def data(model: LoadedModel) -> Data:
    return load_data("python-docs", model, predictions=60, seq_len=16, batch_size=2)


@torch.inference_mode()
def mean_loss(model: LoadedModel, data: Data) -> float:
    """By transformers alone."""
    losses: list[torch.Tensor] = []
    for batch in data:
        logits = model.module(**batch.inputs).logits.double()
        scored = batch.targets != IGNORED
        losses.append(torch.nn.functional.cross_entropy(logits[scored], batch.targets[scored], reduction="none"))
    return float(torch.cat(losses).mean())


@pytest.mark.parametrize("head", ["0.1", "1.5", "2.0", "3.3"])  # 2 and 3 read the keys and values of 0 and 1
def test_a_head_ablated_is_its_columns_zeroed(model: LoadedModel, data: Data, head: str) -> None:
    found = ablate(model, data, head, "zero")
    assert found.baseline.loss == pytest.approx(mean_loss(model, data), abs=1e-5)
    layer, number = map(int, head.split("."))
    weight = model.projections[layer].weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[:, number * 10 : number * 10 + 10] = 0
        expected = mean_loss(model, data)
        weight.copy_(kept)
    assert found.results[0].performance.loss == pytest.approx(expected, abs=1e-5)
    assert abs(expected - found.baseline.loss) > 1e-4  # something was ablated


def test_statistics_and_the_estimate_see_each_position_once(model: LoadedModel, data: Data) -> None:
    statistics = compute_statistics(model, data)
    tokens = sum(int(batch.inputs["attention_mask"][:, 1:].sum()) for batch in data)
    assert statistics.count[0, 0, 0] == tokens
    found = estimate(model, data, "mean", statistics=statistics)
    assert np.isfinite(found.methods[0].loss.heads).all()


def test_what_a_head_writes_to_the_logits_directly_is_refused(model: LoadedModel, data: Data) -> None:
    with pytest.raises(ModelError, match="direct contribution"):
        direct_effects(model, data)
    described = describe_head(model, data, "1.2").to_dict()
    assert described["total_effect"] is not None and described["direct_effect"] is None
