"""The small trained models that come with the project."""

from pathlib import Path

from ablation_core.models.info import ModelInfo
from ablation_core.selection import ModelShape

FOLDER = Path(__file__).parent
NAMES = ("opt-mini", "roberta-mini", "vit-mini")
STATISTICS = (  # the statistics files that come with the project, in the cache folder
    "opt-mini/python-code-02297c26.safetensors",
    "opt-mini/python-docs-acd88b39.safetensors",
    "roberta-mini/python-code-83fff0fb.safetensors",
    "roberta-mini/python-docs-cc4e43c7.safetensors",
    "smollm2-135m/python-docs-b7663234.safetensors",  # of a model that is fetched: see `loading/packaged.py`
    "vit-mini/fashion-mnist-be67effb.safetensors",
    "vit-mini/fashion-mnist-full-4bf7bc39.safetensors",
)

CARDS = {  # what loading these models would tell; a test loads them and compares
    "opt-mini": ModelInfo("opt-mini", "opt", "causal", ModelShape((6,) * 6, 32), "b8aacccc9bca2f8d"),
    "roberta-mini": ModelInfo("roberta-mini", "roberta", "masked", ModelShape((6,) * 6, 32), "f8f397c2d7f6bd3d"),
    "vit-mini": ModelInfo("vit-mini", "VisionTransformer", "vision", ModelShape((6,) * 6, 16), "2dd333dc6c1be19e"),
}
_DESCRIPTIONS = {
    "opt-mini": "causal language model (OPT), 6 layers of 6 heads, trained on Python documentation strings",
    "roberta-mini": "masked language model (RoBERTa), 6 layers of 6 heads, trained on Python documentation strings",
    "vit-mini": "vision transformer (timm), 6 layers of 6 heads, trained on Fashion-MNIST",
}


def describe(name: str) -> str:
    """A bundled model in a line."""
    return _DESCRIPTIONS[name]
