"""What comes with the project is found by a model that is as it comes, wherever it lies, and by no other."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers as tf

from ablation_core import bundled, find_statistics, load_model
from ablation_core.loading.packaged import PACKAGED
from ablation_core.loading.published import is_published
from ablation_core.methods.kept import KeptFile
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.settings import settings_of
from ablation_core.storage import PUBLISHED

DATA = {"opt-mini": "python-docs", "roberta-mini": "python-docs", "vit-mini": "fashion-mnist"}


def in_memory(name: str) -> Any:
    folder = bundled.FOLDER / name
    if name == "vit-mini":
        return timm.create_model(f"local-dir:{folder}", pretrained=True)
    auto = tf.AutoModelForCausalLM if name == "opt-mini" else tf.AutoModelForMaskedLM
    return auto.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("way", ["copied", "saved again", "in memory"])
def test_a_copy_of_a_bundled_model_is_that_model(bundled_model: LoadedModel, tmp_path: Path, way: str) -> None:
    name, place = bundled_model.ref, tmp_path / "mine"
    if way == "copied":
        shutil.copytree(bundled.FOLDER / name, place)
    elif way == "saved again" and name != "vit-mini":
        in_memory(name).save_pretrained(place)
        tf.AutoTokenizer.from_pretrained(bundled.FOLDER / name).save_pretrained(place)
    elif way == "saved again":
        made = in_memory(name)
        arguments = json.loads((bundled.FOLDER / name / "config.json").read_text())["model_args"]
        timm.models.save_for_hf(made, place, model_args=arguments)
    model = load_model(in_memory(name) if way == "in memory" else str(place), dtype="float32")
    assert model.fingerprint == bundled.CARDS[name].fingerprint == bundled_model.fingerprint
    entry = find_statistics(model, DATA[name], tmp_path)
    assert entry is not None and entry.path.is_relative_to(PUBLISHED)


@pytest.mark.parametrize(
    ("name", "changes"),
    [("opt-mini", {"activation_function": "gelu"}), ("roberta-mini", {"layer_norm_eps": 0.01})],
)
def test_with_another_configuration_it_is_not(tmp_path: Path, name: str, changes: dict[str, Any]) -> None:
    place = tmp_path / "mine"
    shutil.copytree(bundled.FOLDER / name, place)
    settings = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(settings | changes))
    model = load_model(str(place), dtype="float32")
    assert model.fingerprint.startswith(f"{bundled.CARDS[name].fingerprint}-")
    assert find_statistics(model, "python-docs", tmp_path) is None


def test_replacements_that_come_with_the_project_have_the_names_that_are_looked_for(
    opt_mini: LoadedModel, tmp_path: Path
) -> None:
    """The files' names hold what decides them, and are those of earlier versions."""
    folder = PUBLISHED / "published-replacements"
    assert {path.name for path in folder.iterdir()} == {card.fingerprint for card in bundled.CARDS.values()}
    shutil.copytree(bundled.FOLDER / "opt-mini", tmp_path / "mine")
    copied = load_model(str(tmp_path / "mine"), dtype="float32")
    assert KeptFile.of(copied, "text", 1).name == KeptFile.of(opt_mini, "text", 1).name


def fetched(**changes: Any) -> dict[str, Any]:
    """The settings of the fetched model, by the config.json that transformers 5.24.0 wrote, without its weights."""
    written = {
        "_model_name_or_path": "Smollm2 135M 8k Lc100K Mix1 Ep2", "architectures": ["LlamaForCausalLM"], "attention_bias": False,
        "attention_dropout": 0.0, "bos_token_id": 1, "dtype": "float32", "eos_token_id": 2, "head_dim": 64, "hidden_act": "silu",
        "hidden_size": 576, "initializer_range": 0.02, "intermediate_size": 1536, "max_position_embeddings": 8192,
        "mlp_bias": False, "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
        "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 9.999999747378752e-06,
        "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"}, "tie_word_embeddings": True,
        "transformers_version": "5.24.0", "unk_token_id": 0, "use_cache": True, "vocab_size": 49152,
    }  # fmt: skip
    config = tf.AutoConfig.for_model(**written | changes)
    with torch.device("meta"):
        settings = settings_of(tf.AutoModelForCausalLM.from_config(config))
    return settings | {"tokens": PACKAGED["smollm2-135m"].tokens, "special tokens": [0, 1, 2, None]}


def test_the_fetched_model_is_known_whoever_wrote_its_configuration() -> None:
    assert set(PACKAGED) == {"smollm2-135m"}
    assert is_published(fetched())
    assert is_published(fetched(pad_token_id=None, unk_token_id=3, transformers_version="5.0.0", head_dim=None))
    rotated = {"rope_theta": 10000.0, "rope_type": "default"}
    for changes in (
        {"hidden_act": "relu"}, {"rope_parameters": rotated}, {"rms_norm_eps": 1e-6}, {"attention_bias": True},
    ):  # fmt: skip
        assert not is_published(fetched(**changes)), changes
    assert is_published(fetched() | {"special tokens": [0, 1, 2, 3, None]}), "releases take other ones over"
    assert not is_published(fetched() | {"tokens": "0df134ae7f88"})


@pytest.mark.parametrize("changes", [{"mean": [0.9]}, {"std": [0.1]}, {"crop_pct": 0.5}])
def test_a_timm_folder_that_prepares_images_otherwise_is_another(tmp_path: Path, changes: dict[str, Any]) -> None:
    """What is put in a neuron's place comes from images that were prepared alike."""
    place = tmp_path / "mine"
    shutil.copytree(bundled.FOLDER / "vit-mini", place)
    settings = json.loads((place / "config.json").read_text())
    settings["pretrained_cfg"] |= changes
    (place / "config.json").write_text(json.dumps(settings))
    model = load_model(str(place))
    assert model.fingerprint.startswith(f"{bundled.CARDS['vit-mini'].fingerprint}-")
    assert find_statistics(model, "fashion-mnist", tmp_path) is None


@pytest.mark.parametrize(
    "changes", [{"image_mean": [0.9, 0.5, 0.5]}, {"image_std": [0.1] * 3}, {"do_normalize": False}]
)
def test_a_transformers_folder_that_prepares_images_otherwise_is_another(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = tf.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8,
        num_labels=3,
    )  # fmt: skip
    places = [tmp_path / name for name in ("one", "same", "other")]
    tf.ViTForImageClassification(config).save_pretrained(places[0])
    tf.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(places[0])
    for place in places[1:]:
        shutil.copytree(places[0], place)
    file = places[2] / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    one, same, other = (load_model(str(place)).fingerprint for place in places)
    assert one == same != other and one.partition("-")[0] == other.partition("-")[0]
