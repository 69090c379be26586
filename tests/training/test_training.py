"""How the bundled models are trained and measured, on a few small steps: interrupted, resumed, saved, loaded, described."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from ablation_core import bundled, load_data, load_model
from ablation_core.bundled import fashion_mnist
from ablation_core.training import corpus, measure, recipes, train

RECIPES = {"opt-mini": recipes.OptMini, "roberta-mini": recipes.RobertaMini, "vit-mini": recipes.VitMini}


def documents(_held_out: str) -> list[str]:
    generator = np.random.default_rng(0)
    words = np.array(["return", "a", "list", "of", "keys", "and", "values", "sorted", "by", "name", "the", "first"])
    return [" ".join(generator.choice(words, 400)) for _ in range(6)]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Runs the training command on small batches of a small text, or of the sample images."""
    monkeypatch.setattr(corpus, "training_documents", documents)
    monkeypatch.setattr(fashion_mnist, "full_set", lambda part: tuple(array[:60] for array in fashion_mnist.sample()))
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 2)
    for recipe in RECIPES.values():
        monkeypatch.setattr(recipe, "batch", 3)
        if hasattr(recipe, "length"):
            monkeypatch.setattr(recipe, "length", 32)

    def run(name: str, folder: str, *options: str) -> None:
        work = ["--work", str(tmp_path / folder), "--output", str(tmp_path / folder)]
        monkeypatch.setattr("sys.argv", ["train", name, "--steps", "3", *work, *options])
        train.main()

    return run


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.slow
def test_an_interrupted_training_ends_with_the_same_weights(
    name: str, trained: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained(name, "whole")
    recipe, steps = RECIPES[name], []
    whole_loss = recipe.loss

    def loss(self: recipes.Recipe, step: int, seed: int) -> object:
        steps.append(step)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return whole_loss(self, step, seed)

    monkeypatch.setattr(recipe, "loss", loss)
    with pytest.raises(KeyboardInterrupt):
        trained(name, "again")
    assert not (tmp_path / "again" / name).exists()
    trained(name, "again")
    assert steps == [0, 1, 2, 2], "it went on from the last checkpoint"
    one, other = (load_file(tmp_path / folder / name / "model.safetensors") for folder in ("whole", "again"))
    assert one.keys() == other.keys()
    assert all((one[key] == other[key]).all() for key in one)
    made = json.loads((tmp_path / "again" / name / "training.json").read_text())
    assert (made["steps"], made["seed"]) == (3, 0)
    model = load_model(str(tmp_path / "again" / name))
    assert model.shape == load_model(name).shape
    assert model.fingerprint != load_model(name).fingerprint
    with pytest.raises(SystemExit, match="was begun with --seed 0; use that, or remove the file"):
        trained(name, "again", "--seed", "7")


@pytest.mark.parametrize("name", ["opt-mini", pytest.param("roberta-mini", marks=pytest.mark.slow)])
def test_counting_the_very_text_that_is_asked_about_is_nearly_always_right(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = load_model(name)
    data = load_data("python-docs", model, predictions=400)
    monkeypatch.setattr(measure, "EVERYTHING", 400)
    rows = []
    for batch in data:
        ids, targets = batch.inputs["input_ids"], batch.targets
        masked = model.modality == "masked"
        rows.append(ids.where(targets == -100, targets) if masked else ids)
    tokens = np.concatenate([part.numpy().ravel() for part in rows] * 20).astype(np.uint16)
    monkeypatch.setattr(measure, "text_tokens", lambda work, held_out: tokens)
    figures = measure.measure(name, tmp_path)
    assert (figures["data"], figures["predictions"], figures["training_tokens"]) == ("python-docs", 400, len(tokens))
    assert figures["loss"] > 0 and 0 < figures["top1"] < 1
    if name == "opt-mini":
        assert figures["trigram_loss"] < 1.5 < figures["loss"]
    else:
        assert figures["neighbours_top1"] > 0.9 > figures["top1"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_card_states_the_figures(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    shutil.copy(bundled.FOLDER / name / "training.json", tmp_path / name)
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    (tmp_path / "text.json").write_text(json.dumps({"python": "3.11", "packages": 12, "documents": 3456}))
    figures = {"predictions": 1234, "loss": 2.5, "top1": 0.625, "training_tokens": 7_000_000}
    measure.write_card(name, figures | {"trigram_loss": 3.75, "neighbours_top1": 0.3125}, tmp_path)
    info = (tmp_path / name / "README.md").read_text(encoding="utf-8")
    assert info.startswith(f"# {name}\n")
    words = {
        "opt-mini": "1,234 next tokens of `python-docs`: 2.500 nats per token, top-1 62.5%; an interpolated trigram model "
        "of the same training tokens: 3.750 nats, 1.250 more",
        "roberta-mini": "top-1 62.5%, 2.500 nats; the best guess from the counts of the two neighbouring tokens: 31.2%",
        "vit-mini": "1,234 test images of Fashion-MNIST: top-1 62.50%, 2.500 nats",
    }
    assert words[name] in info
    assert ("7,000,000 tokens of docstrings" in info) == (name != "vit-mini")
