"""The app with a text classifier: its data, its effect, its texts, and a text of one's own."""

from pathlib import Path

import pytest

from ablation_core.activations import files
from ablation_core.activations.collect import compute_statistics
from ablation_core.data.load import load_data
from ablation_core.loading.load import load_model
from tests.loading.test_text_classifiers import FAMILIES, TEXTS, saved, written
from tests.ui.test_pages import opened, text_of


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    """A model's folder, its data, and a cache folder with its statistics."""
    folder = tmp_path_factory.mktemp("classifier")
    ref = saved(folder / "model", *FAMILIES["gpt2"])
    data = written(folder / "reviews.csv", TEXTS * 5)
    model = load_model(ref)
    statistics = compute_statistics(model, load_data(data, model, split="statistics"))
    files.save_statistics(statistics, folder / "cache")
    return ref, data, folder / "cache"


def test_ablate_with_a_text_classifier(classifier: tuple[str, str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    ref, data, cache = classifier
    find = files.find_statistics
    monkeypatch.setattr(files, "find_statistics", lambda model, name, *_, **__: find(model, name, cache))
    at = opened("ablate", model=ref, labelled=data, predictions="500", select="1.2")
    assert not at.exception and not at.error
    assert "Text classifier" in text_of(at) and "30 texts" in text_of(at)
    assert set(at.dataframe[0].value["method"]) == {"baseline", "zero", "mean", "median", "peak", "resample-dataset"}
    assert not any("top-10" in name for name in at.dataframe[0].value)  # of three classes it says nothing
    texts = next(one.value for one in at.dataframe if "class before" in one.value)
    assert set(texts["text"].str.strip()) <= {text for text, _ in TEXTS}
    assert set(texts["class"]) <= {"bad", "good", "odd"}
    own = next(one.value for one in at.dataframe if "clean" in one.value)
    assert set(own.index) <= {"bad", "good", "odd"}


def test_without_data_it_says_what_is_needed(classifier: tuple[str, str, Path]) -> None:
    at = opened("ablate", model=classifier[0])
    assert not at.exception
    assert "measured on texts with a label" in text_of(at)
