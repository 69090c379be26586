"""Checkpoints that do not fit together: each is refused with what is wrong with it, not with what that leads to."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from ablation_core import load_model
from ablation_core.errors import ModelError
from tests.models.every_family import build

OUT = "model.layers.1.self_attn.o_proj.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "qwen2"
    build("causal", "qwen2", folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def change_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(
            {name: one.contiguous() for name, one in weights.items()}, folder / "model.safetensors", {"format": "pt"}
        )

    return changed


def configure(**settings: object) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        old = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(old | settings))

    return changed


def cut(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "is not a whole safetensors file: it has"),
        (change_weights(lambda w: w.update({OUT: w[OUT] * float("nan")})), f"The weight {OUT} .* not finite"),
        (change_weights(lambda w: w.update({OUT: w[OUT].to(torch.int8)})), "stores weights as whole numbers"),
        (change_weights(lambda w: w.update({OUT: w[OUT][:, 1:]})), "other shapes than its config.json says"),
        (configure(model_type="llama"), "weights of its blocks that its configuration has no place for .*bias"),
        (configure(hidden_act="foo"), "KeyError: 'foo'"),
        (configure(use_cache="yes"), "expected bool, got str"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=words):
        load_model(str(folder))


def test_one_class_in_place_of_a_list_is_understood(folder: Path) -> None:
    configure(architectures="Qwen2ForCausalLM")(folder)
    assert load_model(str(folder)).modality == "causal"


def test_experts_of_odd_sizes_are_run(tmp_path: Path) -> None:
    settings = {"hidden_size": 30, "intermediate_size": 22, "num_hidden_layers": 2, "num_attention_heads": 3}
    config = transformers.MixtralConfig(
        vocab_size=4096, num_key_value_heads=1, head_dim=10, num_local_experts=3, num_experts_per_tok=2, **settings
    )
    build("causal", "llama", tmp_path)  # for its tokenizer
    (tmp_path / "model.safetensors").unlink()
    torch.manual_seed(0)
    module = transformers.AutoModelForCausalLM.from_config(config).eval()
    module.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), device="cpu", dtype="float32")
    assert model.shape.heads == (3, 3)
    module.set_experts_implementation("eager")
    ids = torch.arange(5, 15)[None]
    with torch.inference_mode():
        torch.testing.assert_close(model.module(input_ids=ids).logits, module(input_ids=ids).logits)


def test_a_model_that_reads_certain_lengths_only_is_named_as_that(tmp_path: Path) -> None:
    build("masked", "roberta", tmp_path)  # for its tokenizer
    (tmp_path / "model.safetensors").unlink()
    config = transformers.NystromformerConfig(
        vocab_size=4096, hidden_size=20, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, segment_means_seq_len=16, num_landmarks=4,
    )  # fmt: skip
    transformers.NystromformerForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"a text of 10 tokens .* but on one of 16: .* certain lengths"):
        load_model(str(tmp_path))
