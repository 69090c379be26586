"""A PEFT adapter's folder is opened on its base model, and measured with the adapter's weights."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from ablation_core import load_model
from ablation_core.errors import ModelError
from tests.models.every_family import build

peft = pytest.importorskip("peft")


def adapter(tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    """A folder of a LoRA adapter whose weights are not zero, and the module that it makes."""
    base, folder = tmp_path / "base", tmp_path / "adapter"
    build("causal", "llama", base)
    module = transformers.AutoModelForCausalLM.from_pretrained(base)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "o_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(module, settings)
    wrapped.save_pretrained(folder)
    return folder, wrapped.eval()


@torch.inference_mode()
def test_an_adapter_is_measured_on_its_model(tmp_path: Path) -> None:
    folder, wrapped = adapter(tmp_path)
    model = load_model(str(folder), device="cpu", dtype="float32")
    base = load_model(str(tmp_path / "base"), device="cpu", dtype="float32")
    ids = torch.arange(5, 15)[None]
    torch.testing.assert_close(model.module(input_ids=ids).logits, wrapped(input_ids=ids).logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(model.module(input_ids=ids).logits, base.module(input_ids=ids).logits, atol=1e-3)
    assert (model.ref, model.shape) == (str(folder), base.shape)
    assert model.fingerprint != base.fingerprint


@torch.inference_mode()
def test_an_adapter_of_embeddings_and_biases_is_measured_too(tmp_path: Path) -> None:
    base, folder = tmp_path / "base", tmp_path / "adapter"
    build("causal", "qwen2", base)  # has biases
    module = transformers.AutoModelForCausalLM.from_pretrained(base)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"], bias="all", init_lora_weights=False)
    wrapped = peft.get_peft_model(module, settings).eval()
    for name, weight in wrapped.named_parameters():
        if name.endswith("bias"):
            weight.add_(0.3)
    wrapped.save_pretrained(folder)
    model, ids = load_model(str(folder), device="cpu", dtype="float32"), torch.arange(5, 15)[None]
    torch.testing.assert_close(model.module(input_ids=ids).logits, wrapped(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


def test_learned_tokens_before_a_text_are_named_as_that(tmp_path: Path) -> None:
    base, folder = tmp_path / "base", tmp_path / "adapter"
    build("causal", "llama", base)
    settings = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), settings).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"puts learned tokens before each text \(prompt tuning\)"):
        load_model(str(folder))


def test_an_adapter_whose_model_is_not_here_names_it(tmp_path: Path) -> None:
    folder, _ = adapter(tmp_path)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "nowhere/at-all"}))
    with pytest.raises(ModelError, match=r"is an adapter of the model nowhere/at-all.*cannot be fetched"):
        load_model(str(folder))
