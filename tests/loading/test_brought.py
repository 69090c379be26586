"""Folders and modules as people bring them: each opened as what it is, or refused with what was found."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from ablation_core import ablate, attention_pattern, bundled, load_data, load_model
from ablation_core.errors import DataError, ModelError
from tests import tiny
from tests.loading.test_door import TEXT, saved

peft = pytest.importorskip("peft")
LLAMA = tiny.LLAMA | {"vocab_size": 4096}
GPT2 = tiny.GPT | {"vocab_size": 4096}


def plain_loss(module: torch.nn.Module, data: Any) -> float:
    """The mean loss of whole passes."""
    losses = []
    for batch in data:
        with torch.no_grad():
            logits = module(**batch.inputs, return_dict=True).logits.double()
        scored = batch.targets != -100
        losses += torch.nn.functional.cross_entropy(logits[scored], batch.targets[scored], reduction="none").tolist()
    return float(np.mean(losses))


def snapshot(repo: Path, files: Path) -> Path:
    """A folder's files as the hub's cache lays them out; returns the snapshot."""
    place, blobs = repo / "snapshots" / "0a1b", repo / "blobs"
    place.mkdir(parents=True)
    blobs.mkdir()
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0a1b")
    for file in files.iterdir():
        shutil.copy(file, blobs / file.name)
        (place / file.name).symlink_to(Path("../../blobs") / file.name)
    return place


def test_the_hub_s_cache_is_opened_from_wherever_it_is_named(tmp_path: Path) -> None:
    repo = tmp_path / "models--owner--name"
    place = snapshot(repo, bundled.FOLDER / "opt-mini")
    (tmp_path / "mine").symlink_to(place)
    wanted = load_model("opt-mini").fingerprint
    for folder in (place, repo, tmp_path / "mine"):
        assert load_model(str(folder)).fingerprint == wanted


def test_an_adapter_in_the_hub_s_cache(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", "LlamaForCausalLM", transformers.LlamaConfig(**LLAMA))
    wrapped = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(base),
        peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    wrapped.save_pretrained(tmp_path / "adapter")
    place = snapshot(tmp_path / "repo", tmp_path / "adapter")
    assert load_model(str(place)).fingerprint == load_model(str(tmp_path / "adapter")).fingerprint


def test_attention_by_a_package_that_is_not_here_is_computed_without(tmp_path: Path) -> None:
    folder = saved(tmp_path, "LlamaForCausalLM", transformers.LlamaConfig(**LLAMA))
    module = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"_attn_implementation": "flash_attention_2"}))
    model = load_model(folder)
    data = load_data("python-docs", model, predictions=40, seq_len=32)
    assert ablate(model, data, "1.2", "zero").baseline["loss"] == pytest.approx(plain_loss(module, data), abs=1e-5)


@pytest.mark.parametrize(
    ("flag", "where"),
    [
        ("torchscript", "folder"),
        ("return_dict", "folder"),
        ("output_hidden_states", "folder"),
        ("return_dict", "memory"),
        ("output_attentions", "memory"),
    ],
)
def test_flags_change_no_number(tmp_path: Path, flag: str, where: str) -> None:
    folder = saved(tmp_path, "GPT2LMHeadModel", transformers.GPT2Config(**GPT2))
    module = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    settings = json.loads((tmp_path / "config.json").read_text())
    value = flag != "return_dict"
    (tmp_path / "config.json").write_text(json.dumps(settings | {flag: value}))
    if where == "memory":
        mine = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
        model = load_model(mine, tokenizer=transformers.AutoTokenizer.from_pretrained(folder))
        assert mine.config.to_dict()[flag] == value  # it is the person's
    else:
        model = load_model(folder)
    data = load_data("python-docs", model, predictions=60, seq_len=32)
    got = ablate(model, data, "1.2", "zero")
    assert got.baseline["loss"] == pytest.approx(plain_loss(module, data), abs=1e-5)


def test_a_folder_of_sentence_transformers_names_where_its_model_is(tmp_path: Path) -> None:
    saved(tmp_path / "0_Transformer", "BertModel", transformers.BertConfig(**TEXT))
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(ModelError, match=r"no config\.json.*There is one in its folder 0_Transformer"):
        load_model(str(tmp_path))
    with pytest.raises(ModelError, match=r"without a head|lacks weights"):
        load_model(str(tmp_path / "0_Transformer"))


@torch.inference_mode()
def test_an_adapter_that_brings_a_classifier_s_head_makes_a_classifier(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", "LlamaForCausalLM", transformers.LlamaConfig(**LLAMA))
    module = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    settings = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(module, settings).eval()
    wrapped.save_pretrained(tmp_path / "adapter")
    model = load_model(str(tmp_path / "adapter"))
    assert (model.modality, model.labels) == ("text-classification", ("LABEL_0", "LABEL_1", "LABEL_2"))
    ids = torch.arange(5, 15)[None]
    torch.testing.assert_close(model.module(input_ids=ids).logits, wrapped(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_an_adapter_that_brings_an_unembedding_of_its_own(tmp_path: Path) -> None:
    """The base ties it to its embeddings; the adapter's is another one."""
    base = saved(tmp_path / "base", "GPT2LMHeadModel", transformers.GPT2Config(**GPT2))
    module = transformers.AutoModelForCausalLM.from_pretrained(base)
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM", r=2, target_modules=["c_attn"], modules_to_save=["lm_head"], init_lora_weights=False
    )
    wrapped = peft.get_peft_model(module, settings).eval()
    for name, weight in wrapped.named_parameters():
        if "modules_to_save" in name:
            weight.add_(0.3 * torch.randn_like(weight))
    wrapped.save_pretrained(tmp_path / "adapter")
    model = load_model(str(tmp_path / "adapter"))
    ids = torch.arange(5, 15)[None]
    torch.testing.assert_close(model.module(input_ids=ids).logits, wrapped(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


def test_an_adapter_for_another_task_is_refused(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", "BertForMaskedLM", transformers.BertConfig(**TEXT))
    module = transformers.AutoModelForTokenClassification.from_pretrained(base, num_labels=3)
    settings = peft.LoraConfig(task_type="TOKEN_CLS", r=2, target_modules=["query"])
    peft.get_peft_model(module, settings).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match="made for the task TOKEN_CLS"):
        load_model(str(tmp_path / "adapter"))


def test_timm_s_default_save_is_one_file_of_torch(tmp_path: Path) -> None:
    module = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=4, num_classes=3
    ).eval()
    arguments = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4}
    timm.models.save_for_hf(module, str(tmp_path / "timm"), model_args=arguments)
    assert {path.name for path in (tmp_path / "timm").iterdir()} == {"config.json", "pytorch_model.bin"}
    model = load_model(str(tmp_path / "timm"))
    assert model.shape.heads == (4, 4)
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model.module(pixels), module(pixels))


class _Bomb:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("/tmp/ran-from-a-pickle"),))


def test_a_pickle_in_timm_s_file_is_not_executed(tmp_path: Path) -> None:
    module = timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=32, depth=1, num_heads=4)
    timm.models.save_for_hf(module, str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(ModelError):
        load_model(str(tmp_path))
    assert not Path("/tmp/ran-from-a-pickle").exists()


def test_a_processor_that_gives_one_shape_is_taken_at_its_word(tmp_path: Path) -> None:
    """DINOv2 is configured for larger images than its processor makes, and interpolates its positions."""
    folder = tmp_path / "dinov2"
    config = transformers.Dinov2Config(**tiny.IMAGE | {"image_size": 28, "patch_size": 7}, mlp_ratio=2)
    saved(folder, "Dinov2ForImageClassification", config, "")
    size = {"size": {"shortest_edge": 18}, "crop_size": {"height": 14, "width": 14}}
    transformers.BitImageProcessor(**size, do_center_crop=True).save_pretrained(folder)
    model = load_model(str(folder))
    for label in range(2):
        (tmp_path / "images" / str(label)).mkdir(parents=True)
        for number in range(4):
            Image.effect_noise((40, 25 + 5 * number), 80).convert("RGB").save(
                tmp_path / "images" / str(label) / f"{number}.png"
            )
    data = load_data(f"images:{tmp_path / 'images'}", model, predictions=4)
    batch = next(iter(data))
    assert batch.inputs["pixel_values"].shape[-2:] == (14, 14)
    module = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    got = ablate(model, data, "0.0", "zero").baseline["loss"]
    assert got == pytest.approx(plain_loss(module, data), abs=1e-5)


def test_two_classes_of_one_name_are_named_by_number(tmp_path: Path) -> None:
    names = {0: "crane", 1: "crane", 2: "gull"}
    folder = tmp_path / "vit"
    saved(
        folder,
        "ViTForImageClassification",
        transformers.ViTConfig(**tiny.IMAGE | {"num_labels": 3}, id2label=names),
        "",
    )
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    model = load_model(str(folder))
    for name in ("crane", "gull"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2):
            Image.effect_noise((16, 16), 80).convert("P").save(tmp_path / "images" / name / f"{number}.png")
    with pytest.raises(DataError, match="2 classes called 'crane'"):
        load_data(f"images:{tmp_path / 'images'}", model, predictions=4)
    (tmp_path / "images" / "crane").rename(tmp_path / "images" / "1")
    data = load_data(f"images:{tmp_path / 'images'}", model, predictions=4)
    assert sorted(int(t) for batch in data for t in batch.targets) == [1, 2]


def test_a_text_that_brings_its_bos_has_one(tmp_path: Path) -> None:
    model = load_model("opt-mini")
    begin = model.tokenizer.bos_token
    assert begin
    twice = attention_pattern(model, f"{begin}def area(width):", "1.2")
    assert twice.shape == attention_pattern(model, "def area(width):", "1.2").shape
    pairs = tmp_path / "pairs.jsonl"
    lines = [{"prompt": f"{begin}The {word}", "right": " is", "wrong": " are"} for word in ("one", "two")]
    pairs.write_text("\n".join(map(json.dumps, lines)))
    ids = next(iter(load_data(f"pairs:{pairs}", model, predictions=2))).inputs["input_ids"][0].tolist()
    assert ids.count(model.tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("extra", ["v_head.summary.weight", "reward_head.weight", "my_value_head.0.weight"])
def test_weights_of_another_head_are_named(tmp_path: Path, extra: str) -> None:
    folder = saved(tmp_path, "GPT2LMHeadModel", transformers.GPT2Config(**GPT2))
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {extra: torch.zeros(1, 32)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"another task.*{extra}"):
        load_model(folder)


@pytest.mark.parametrize(
    ("class_name", "config", "words"),
    [
        ("BertLMHeadModel", transformers.BertConfig(**TEXT), "later token changes"),
        ("ElectraForPreTraining", transformers.ElectraConfig(**TEXT), "lacks weights that a masked"),
        ("BertForQuestionAnswering", transformers.BertConfig(**TEXT), "saved as BertForQuestionAnswering"),
        ("BertForNextSentencePrediction", transformers.BertConfig(**TEXT), "saved as BertForNextSentencePrediction"),
    ],
)
def test_other_heads_are_named(tmp_path: Path, class_name: str, config: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(saved(tmp_path, class_name, config))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model."])
def test_weights_that_were_saved_inside_a_wrapper_are_named(tmp_path: Path, prefix: str) -> None:
    folder = saved(tmp_path / "wrapped", "GPT2LMHeadModel", transformers.GPT2Config(**GPT2))
    file = Path(folder) / "model.safetensors"
    weights = {prefix + name: weight for name, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"all begin with '{prefix}'.*inside a wrapper"):
        load_model(folder)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_labels": 1}, "gives 1 number per input"),
        ({"num_labels": 3, "problem_type": "regression"}, "gives 3 numbers per input"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, "several classes at once"),
    ],
)
def test_image_heads_that_do_not_choose_one_class_are_refused(tmp_path: Path, settings: dict, words: str) -> None:
    config = transformers.ViTConfig(**tiny.IMAGE | settings)
    module = transformers.ViTForImageClassification(config)
    with pytest.raises(ModelError, match=words):
        load_model(module)
    module.save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=words):
        load_model(str(tmp_path))
