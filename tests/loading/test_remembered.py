"""What the checks found is remembered per model, and believed only under the same circumstances."""

import json
from pathlib import Path

import pytest
import transformers

from ablation_core import ablate, load_data, load_model
from ablation_core.errors import ModelError
from ablation_core.loading.door import remembered
from tests import tiny
from tests.loading.test_door import TEXT, saved

GPT2 = transformers.GPT2Config(**tiny.GPT | {"vocab_size": 4096})


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that are verified, as it happens."""
    seen: list[str] = []
    verify = remembered.verify
    monkeypatch.setattr(remembered, "verify", lambda model: (seen.append(model.ref), verify(model)))
    return seen


def test_a_model_is_checked_once_and_is_the_same_again(tmp_path: Path, checked: list[str]) -> None:
    folder, cache = saved(tmp_path / "gpt2", "GPT2LMHeadModel", GPT2), tmp_path / "cache"
    said: list[str] = []
    first = load_model(folder, cache_dir=cache, notify=said.append)
    again = load_model(folder, cache_dir=cache, notify=said.append)
    assert checked == [folder] and said == [f"Checking {folder}, once per model …"]
    assert len(list((cache / "door").glob("*.json"))) == 1
    assert (again.shape, again.max_length, again.fingerprint) == (first.shape, first.max_length, first.fingerprint)
    names = [[name for name, one in m.module.named_modules() if one in m.projections] for m in (first, again)]
    assert names[0] == names[1] and len(names[0]) == 3
    losses = [
        ablate(model, load_data("python-docs", model, predictions=40, seq_len=32), "1.2", "zero").to_dict()["results"]
        for model in (first, again)
    ]
    assert losses[0] == losses[1]


def test_what_a_model_switches_at_its_first_short_input_is_the_same_again(tmp_path: Path) -> None:
    """BigBird attends sparsely to long inputs, until a short one comes: at the door it does, and later none did."""
    sizes = {
        "vocab_size": 4096,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    config = transformers.BigBirdConfig(**sizes, max_position_embeddings=512, block_size=4, num_random_blocks=1)
    folder = saved(tmp_path / "bird", "BigBirdForMaskedLM", config)
    found = []
    for _ in range(2):
        model = load_model(folder, cache_dir=tmp_path / "cache")
        before, data = model.fingerprint, load_data("python-docs", model, predictions=40, seq_len=64)
        found.append((before, ablate(model, data, "1.0", "zero").to_dict()["results"]))
        ablate(model, load_data("python-docs", model, predictions=20, seq_len=16), "1.0", "zero")
        assert model.fingerprint == before
    assert found[0] == found[1]


@pytest.mark.parametrize("what", ["configuration", "weights", "version", "dtype", "damaged", "another shape"])
def test_it_is_checked_again_where_anything_differs(
    tmp_path: Path, checked: list[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    folder, cache, dtype = saved(tmp_path / "gpt2", "GPT2LMHeadModel", GPT2), tmp_path / "cache", "float32"
    load_model(folder, cache_dir=cache)
    (file,) = (cache / "door").glob("*.json")
    if what == "configuration":
        place = tmp_path / "gpt2" / "config.json"
        place.write_text(json.dumps(json.loads(place.read_text()) | {"scale_attn_weights": False}))
    elif what == "weights":
        module = transformers.AutoModelForCausalLM.from_pretrained(folder)
        module.transformer.h[0].attn.c_proj.bias.data += 1
        module.save_pretrained(folder)
    elif what == "version":
        monkeypatch.setattr(remembered, "CHECKS", remembered.CHECKS + 1)
    elif what == "dtype":
        dtype = "bfloat16"
    elif what == "damaged":
        file.write_text("{" * 100_000)
    else:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"heads": [5, 5, 5]}))
    assert load_model(folder, cache_dir=cache, dtype=dtype).shape.heads == (4, 4, 4)
    assert len(checked) == 2


def test_what_is_refused_is_tried_again_each_time(tmp_path: Path, checked: list[str]) -> None:
    folder = saved(tmp_path / "bert", "BertForMaskedLM", transformers.BertConfig(**TEXT, is_decoder=True))
    for _ in range(2):
        with pytest.raises(ModelError, match="sees one side only"):
            load_model(folder, cache_dir=tmp_path)
    assert len(checked) == 2


def test_layers_without_heads_are_remembered_with_their_reason(tmp_path: Path, checked: list[str]) -> None:
    from tests.models.every_family import build

    build("causal", "lfm2", tmp_path / "lfm2")
    first, again = (load_model(str(tmp_path / "lfm2"), cache_dir=tmp_path / "cache") for _ in range(2))
    assert len(checked) == 1
    assert again.shape == first.shape and 0 in again.shape.heads
    layer = again.shape.heads.index(0)
    assert again.without_heads(layer) == first.without_heads(layer) != ""
    assert (again.resumes, again.special_positions) == (first.resumes, first.special_positions)
