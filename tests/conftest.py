"""Fixtures that several test modules share."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the outside for anything

import pytest
import torch

from ablation_core import load_model
from ablation_core.models import LoadedModel


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session", params=["opt-mini", "roberta-mini", "vit-mini"])
def bundled_model(request: pytest.FixtureRequest) -> LoadedModel:
    return load_model(request.param)


@pytest.fixture(scope="session")
def opt_mini() -> LoadedModel:
    return load_model("opt-mini")


@pytest.fixture(scope="session")
def vit_mini() -> LoadedModel:
    return load_model("vit-mini")
