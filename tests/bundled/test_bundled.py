"""What comes with the project: sizes, cards, figures, and the counts that the models are compared with."""

import itertools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ablation_core import ablate, bundled, load_data
from ablation_core.activations.files import find_statistics, load_statistics
from ablation_core.bundled import fashion_mnist
from ablation_core.models.loaded import LoadedModel
from ablation_core.training import corpus, recipes
from ablation_core.training.ngrams import Neighbours, Trigram
from ablation_core.training.train import rate
from tests.conftest import others_slow


@pytest.mark.parametrize("name", bundled.NAMES)
def test_each_model_is_small_has_a_card_and_ordinary_formats(name: str) -> None:
    folder = bundled.FOLDER / name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8_000_000
    assert {"model.safetensors", "config.json", "README.md", "training.json"} <= {p.name for p in folder.iterdir()}
    assert not [path for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pkl", ".py"}]


def test_the_models_have_a_map_worth_looking_at(bundled_model: LoadedModel) -> None:
    assert bundled_model.num_layers >= 4
    assert bundled_model.num_heads >= 6


@others_slow
def test_the_cards_figures_hold(bundled_model: LoadedModel) -> None:
    """On a part of the held-out data, within what a part may differ."""
    info = (bundled.FOLDER / bundled_model.ref / "README.md").read_text(encoding="utf-8")
    stated = float(re.search(r"top-1 ([\d.]+)%", info)[1]) / 100
    if bundled_model.modality == "causal":
        assert float(re.search(r"([\d.]+) more", info)[1]) >= 0.7
    elif bundled_model.modality == "masked":
        assert stated >= 0.25 and stated >= 0.05 + float(re.search(r"tokens: ([\d.]+)%", info)[1]) / 100
    else:
        assert stated >= 0.9
    ref = "fashion-mnist" if bundled_model.modality == "vision" else "python-docs"
    baseline = ablate(bundled_model, load_data(ref, bundled_model, predictions=2000), "", "zero").baseline
    assert baseline["top1"] == pytest.approx(stated, abs=0.05)


def test_statistics_come_with_each_model(bundled_model: LoadedModel) -> None:
    ref = "fashion-mnist" if bundled_model.modality == "vision" else "python-docs"
    entry = find_statistics(bundled_model, ref)
    assert entry is not None
    statistics = load_statistics(entry.path, bundled_model)
    assert statistics.provenance["tokens"] >= 10_000
    assert not statistics.not_finite.any()


def test_the_sample_of_images_is_what_it_says() -> None:
    images, labels = fashion_mnist.sample()
    assert images.shape == (3000, 28, 28) and labels.shape == (3000,)
    assert set(labels.tolist()) == set(range(10))
    assert (fashion_mnist.SAMPLE_FOLDER / "LICENSE").is_file()


def test_training_text_leaves_out_what_is_held_out(monkeypatch, tmp_path: Path) -> None:
    held_out = "one two three four five six seven eight nine ten eleven twelve"
    inside = f'"""Some words before {held_out} and some after it, long enough to count as text."""\n'
    outside = '"""An ordinary docstring, quite long enough to count as text, that shares no run with the other."""\n'
    for name, text in (("a.py", inside), ("b.py", outside), ("c.py", outside), ("d.py", "def broken(:")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(corpus, "_source_files", lambda: sorted(tmp_path.glob("*.py")))
    monkeypatch.setattr(corpus, "_descriptions", lambda: iter(()))
    documents = corpus.training_documents(held_out)
    assert len(documents) == 1 and documents[0].startswith("An ordinary docstring")


def test_the_learning_rate_warms_up_stays_and_falls() -> None:
    assert rate(0, 4000) == pytest.approx(0.01)
    assert rate(2999, 4000) == rate(500, 4000) == 1.0
    assert rate(3500, 4000) == pytest.approx(0.5)


def test_windows_cover_the_tokens_once_a_pass() -> None:
    tokens = np.arange(1000, dtype=np.uint16)
    rows = [recipes._windows(tokens, step, 3, 10, seed=1) for step in range(33)]
    starts = sorted(int(row[0]) for batch in rows for row in batch)
    assert len(set(starts)) == 99 and all(b - a == 10 for a, b in itertools.pairwise(starts))
    assert (recipes._windows(tokens, 5, 3, 10, seed=1) == rows[5]).all()


def test_the_trigram_model_is_a_distribution_and_counts_right() -> None:
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, 5, 60_000).astype(np.uint16)
    tokens[2::3] = (tokens[::3] + tokens[1::3]) % 5  # every third token follows from the two before it
    trigram = Trigram.trained(tokens, 5)
    grams = np.array([(a, b, c) for a in range(5) for b in range(5) for c in range(5)])
    probabilities = np.exp(-trigram.loss(grams)).reshape(25, 5)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    frequent = Counter(zip(tokens[:-2].tolist(), tokens[1:-1].tolist(), tokens[2:].tolist(), strict=True))
    for (a, b), row in zip(itertools.product(range(5), repeat=2), probabilities, strict=True):
        assert row.argmax() == max(range(5), key=lambda c: frequent[a, b, c])


def test_neighbours_guess_what_stood_between() -> None:
    tokens = np.array([1, 2, 3, 1, 2, 3, 1, 4, 3, 0, 2, 0] * 3, dtype=np.uint16)
    neighbours = Neighbours.trained(tokens, 5)
    assert neighbours.guess(np.array([1, 0]), np.array([3, 0])).tolist() == [2, 2]
    # 4 and 1 never stood two apart: 3 follows 4, and 1 follows 3
    assert neighbours.guess(np.array([4]), np.array([1])).tolist() == [3]


def test_what_is_known_of_the_models_without_loading_them_is_true(bundled_model: LoadedModel) -> None:
    assert bundled.CARDS[bundled_model.ref] == bundled_model.info
