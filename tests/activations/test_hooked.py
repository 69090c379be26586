"""Statistics of a module with hooks of a person's own: such as only look on change nothing, others are told apart."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ablation_core import ablate, compute_statistics, find_statistics, load_data, save_statistics
from ablation_core.data.dataset import Data
from ablation_core.errors import StatisticsError
from ablation_core.models.loaded import LoadedModel
from tests import tiny


@pytest.fixture
def model() -> LoadedModel:
    return tiny.build("opt")


@pytest.fixture
def data(model: LoadedModel) -> Data:
    return load_data(torch.arange(40).reshape(4, 10), model)


def doubled(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    return (output[0] * 2, *output[1:]) if isinstance(output, tuple) else output * 2


def test_a_hook_that_looks_on_changes_nothing(model: LoadedModel, data: Data, tmp_path: Path) -> None:
    plain, seen = compute_statistics(model, data), []
    model.blocks[0].register_forward_hook(lambda *_: seen.append(1))
    watched = compute_statistics(model, data)
    assert seen and watched.provenance == plain.provenance and np.array_equal(watched.mean, plain.mean)
    save_statistics(watched, tmp_path)


def test_one_that_changes_what_later_heads_compute_is_told_apart(
    model: LoadedModel, data: Data, tmp_path: Path
) -> None:
    plain = compute_statistics(model, data)
    handle = model.blocks[0].register_forward_hook(doubled)
    changed = compute_statistics(model, data)
    assert not np.allclose(changed.mean[1], plain.mean[1]) and np.array_equal(changed.mean[0], plain.mean[0])
    assert list(model.blocks[0]._forward_hooks.values()) == [doubled], "it is on again"
    ablate(model, data, "1.0", "mean", statistics=changed)
    with pytest.raises(StatisticsError, match="they are not saved"):
        save_statistics(changed, tmp_path)
    assert find_statistics(model, data.ref, tmp_path) is None
    handle.remove()
    with pytest.raises(StatisticsError, match=r"these are not on .* now"):
        ablate(model, data, "1.0", "mean", statistics=changed)
    ablate(model, data, "1.0", "mean", statistics=plain)


def test_a_hook_behind_all_heads_changes_no_statistics(model: LoadedModel, data: Data) -> None:
    model.blocks[-1].register_forward_hook(doubled)
    assert "hooks" not in compute_statistics(model, data).provenance
