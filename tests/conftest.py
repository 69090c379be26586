"""Fixtures that several test modules share."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the outside for anything

import pytest
import torch

from ablation_core import load_model
from ablation_core.models import LoadedModel

# content of a text file, and a word of the sentence that it gets everywhere
UNUSABLE_TEXT = [
    (b"", "empty"),
    (b" \n\t \n", "empty"),
    (b"\x89PNG\x00\x01\x02", "binary"),
    (b"caf\xe9 " * 100, "not UTF-8"),
    (b"too short", "shorter than one window"),
]


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
