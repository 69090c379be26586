"""Models that are in memory already: the same numbers as from a folder, and nothing of them is changed."""

import copy

import numpy as np
import pytest
import timm
import torch
import transformers as tf
from torch import nn
from torch.nn.utils import prune

from ablation_core import ablate, compute_statistics, describe_head, direct_effects, estimate, load_data, load_model
from ablation_core.bundled import FOLDER
from ablation_core.data.dataset import Batch
from ablation_core.engine import clean_passes, forward, scoring
from ablation_core.errors import AblationError, DataError, ModelError, StatisticsError
from ablation_core.selection import Selection

TEXT = {
    "vocab_size": 4096, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return tf.AutoTokenizer.from_pretrained(FOLDER / "opt-mini")


def tiny_llama() -> tf.LlamaForCausalLM:
    torch.manual_seed(0)
    return tf.LlamaForCausalLM(tf.LlamaConfig(**TEXT, num_key_value_heads=2, attention_dropout=0.5))


def hand_loss(module: torch.nn.Module, ids: torch.Tensor) -> float:
    with torch.no_grad():
        logits = module(input_ids=ids).logits[:, :-1].double()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item()


def test_a_module_gives_its_own_loss_and_is_left_as_it_was(tokenizer) -> None:
    module = tiny_llama().train()
    module.config.output_attentions = False
    module.config.use_cache = True
    seen = []
    handle = module.model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    module.model.layers[1].mlp.requires_grad_(False)
    before = {
        "flags": copy.deepcopy(module.config.to_dict()),
        "modes": [part.training for part in module.modules()],
        "grads": [weight.requires_grad for weight in module.parameters()],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()],
        "places": [weight.data_ptr() for weight in module.parameters()],
    }
    model = load_model(module, tokenizer=tokenizer)
    ids = torch.randint(5, 4096, (12, 20), generator=torch.Generator().manual_seed(1))
    data = load_data(ids, model)
    result = ablate(model, data, "1.2", "zero")
    assert [weight.data_ptr() for weight in model.module.parameters()] == before["places"]
    after = {
        "flags": module.config.to_dict(),
        "modes": [part.training for part in module.modules()],
        "grads": [weight.requires_grad for weight in module.parameters()],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()],
        "places": [weight.data_ptr() for weight in module.parameters()],
    }
    assert after == before
    assert all(weight.grad is None for weight in module.parameters())
    handle.remove()
    assert data.predictions == 12 * 19
    assert result.baseline.loss == pytest.approx(hand_loss(module.eval(), ids), abs=1e-5)
    weight = module.model.layers[1].self_attn.o_proj.weight
    with torch.no_grad():
        weight[:, 16:24] = 0
    assert result.results[0].performance.loss == pytest.approx(hand_loss(module, ids), abs=1e-5)


def test_a_lora_adapter_counts(tokenizer) -> None:
    peft = pytest.importorskip("peft")
    base = tiny_llama().eval()
    ids = torch.randint(5, 4096, (6, 20), generator=torch.Generator().manual_seed(1))
    plain = hand_loss(base, ids)
    wrapped = peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj", "o_proj"], init_lora_weights=False))
    model = load_model(wrapped, tokenizer=tokenizer)
    got = ablate(model, load_data(ids, model), "0.0", "zero").baseline.loss
    assert got == pytest.approx(hand_loss(wrapped.eval(), ids), abs=1e-5)
    assert abs(got - plain) > 1e-4
    with torch.no_grad():  # head 1 of layer 2 writes nothing, neither through the base nor through the adapter
        projection = wrapped.base_model.model.model.layers[2].self_attn.o_proj
        result = ablate(model, load_data(ids, model), "2.1", "zero").results[0].performance.loss
        projection.base_layer.weight[:, 8:16] = 0
        projection.lora_A["default"].weight[:, 8:16] = 0
    assert result == pytest.approx(hand_loss(wrapped, ids), abs=1e-5)


def test_a_compiled_model_and_a_timm_model() -> None:
    module = tiny_llama()
    model = load_model(torch.compile(module))
    ids = torch.randint(5, 4096, (4, 20), generator=torch.Generator().manual_seed(1))
    got = ablate(model, load_data(ids, model), "0.0", "zero").baseline.loss
    assert got == pytest.approx(hand_loss(module.eval(), ids), abs=1e-5)
    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=5
    )
    images = torch.randn(8, 3, 32, 32)
    labels = torch.arange(8) % 5
    model = load_model(vit, labels=["a", "b", "c", "d", "e"])
    data = load_data(list(zip(images, labels.tolist(), strict=True)), model)
    got = ablate(model, data, "0.0", "zero").baseline.loss
    with torch.no_grad():
        wanted = torch.nn.functional.cross_entropy(vit.eval()(images).double(), labels).item()
    assert got == pytest.approx(wanted, abs=1e-5)


def test_edited_weights_are_seen_however_they_were_edited(tokenizer) -> None:
    module = tiny_llama().eval()
    model = load_model(module, tokenizer=tokenizer)
    ids = torch.randint(5, 4096, (6, 20), generator=torch.Generator().manual_seed(1))
    data = load_data(ids, model)
    statistics = compute_statistics(model, data)
    prints = [model.fingerprint]
    weight = module.model.layers[0].self_attn.o_proj.weight
    weight.data[3, 5] += 0.01
    prints.append(model.fingerprint)
    weight.data[:, [0, 9]] = weight.data[:, [9, 0]]  # the sums of rows stay what they were
    prints.append(model.fingerprint)
    module.model.layers[0].self_attn.o_proj.weight = torch.nn.Parameter(weight.detach() * 2)
    prints.append(model.fingerprint)
    assert len(set(prints)) == 4
    with pytest.raises(StatisticsError, match="another model"):
        ablate(model, data, "0.0", "mean", statistics=statistics)
    assert ablate(model, data, "0.0", "zero").baseline.loss == pytest.approx(hand_loss(module, ids), abs=1e-5)


def test_what_cannot_be_taken_gets_a_sentence(tokenizer) -> None:
    for given, words in (
        (torch.nn.Linear(2, 2), "neither a transformers nor a timm"),
        ({"a": 1}, "a reference or a torch module"),
        (tf.LlamaModel(tf.LlamaConfig(**TEXT)), "no head"),
    ):
        with pytest.raises(ModelError, match=words):
            load_model(given)
    model = load_model(tiny_llama())
    with pytest.raises(AblationError, match="without a tokenizer"):
        load_data(["A text."], model)
    with pytest.raises(ModelError, match="move it"):
        load_model(tiny_llama(), device="meta")
    other = load_model("opt-mini")
    data = load_data("python-docs", other, predictions=60, seq_len=32)
    with pytest.raises(DataError, match="another model"):
        ablate(model, data, "0.0", "zero")


def test_no_gradient_is_left_in_a_persons_module(tokenizer) -> None:
    module = tiny_llama().eval()
    model = load_model(module, tokenizer=tokenizer)
    data = load_data(torch.randint(5, 4096, (4, 12), generator=torch.Generator().manual_seed(1)), model)
    statistics = compute_statistics(model, data)
    estimate(model, data, ["zero", "mean"], statistics=statistics)
    direct_effects(model, data)
    describe_head(model, data, "1.1")
    assert [name for name, weight in module.named_parameters() if weight.grad is not None] == []


def test_weights_made_in_inference_mode_are_ablated_and_have_no_gradients(tokenizer) -> None:
    with torch.inference_mode():
        module = tiny_llama().eval()
        reference = load_model("opt-mini")
    ids = torch.randint(5, 4096, (4, 12), generator=torch.Generator().manual_seed(1))
    model = load_model(module, tokenizer=tokenizer)
    data = load_data(ids, model)
    assert ablate(model, data, "1.2", "zero").baseline.loss == pytest.approx(hand_loss(module, ids), abs=1e-5)
    with pytest.raises(ModelError, match=r"made under torch\.inference_mode"):
        estimate(model, data, "zero")
    assert not any(weight.is_inference() for weight in reference.module.parameters())


def test_float64_as_the_default_type_changes_nothing(tokenizer) -> None:
    module = tiny_llama().eval()
    ids = torch.randint(5, 4096, (4, 12), generator=torch.Generator().manual_seed(1))
    torch.set_default_dtype(torch.float64)
    try:
        model = load_model(module, tokenizer=tokenizer)
        assert ablate(model, load_data(ids, model), "1.2", "zero").baseline.loss == pytest.approx(
            hand_loss(module, ids), abs=1e-5
        )
    finally:
        torch.set_default_dtype(torch.float32)


class ChatModel(tf.LlamaForCausalLM):
    """A person's own class, whose name says nothing."""


def test_a_class_of_ones_own_and_a_block_that_is_compiled(tokenizer) -> None:
    plain = tiny_llama().eval()
    module = ChatModel(plain.config).eval()
    module.load_state_dict(plain.state_dict())
    module.model.layers[0] = torch.compile(module.model.layers[0], backend="eager")
    before = list(module.modules())
    ids = torch.randint(5, 4096, (4, 12), generator=torch.Generator().manual_seed(1))
    model = load_model(module, tokenizer=tokenizer)
    result = ablate(model, load_data(ids, model), "0.3", "zero")
    assert [id(one) for one in module.modules()] == [id(one) for one in before]
    with torch.no_grad():
        plain.model.layers[0].self_attn.o_proj.weight[:, 24:] = 0
    assert result.results[0].performance.loss == pytest.approx(hand_loss(plain, ids), abs=1e-5)


def test_heads_of_several_tasks_and_of_none_are_told_apart(tokenizer) -> None:
    for module, words in (
        (tf.BertForPreTraining(tf.BertConfig(**TEXT)), "as BertForMaskedLM loads it"),
        (tf.GPT2DoubleHeadsModel(tf.GPT2Config(n_embd=32, n_layer=1, n_head=2)), "neither a causal or masked"),
        (tf.BertModel(tf.BertConfig(**TEXT)), "has no head that predicts"),
    ):
        with pytest.raises(ModelError, match=words):
            load_model(module, tokenizer=tokenizer)


def test_feeding_forward_in_chunks_is_left_out(tokenizer) -> None:
    """Its chunk is as long as every text must be a multiple of."""
    torch.manual_seed(0)
    module = tf.BertLMHeadModel(tf.BertConfig(**TEXT, is_decoder=True, chunk_size_feed_forward=6)).eval()
    ids = torch.randint(5, 4096, (4, 12), generator=torch.Generator().manual_seed(1))
    model = load_model(module, tokenizer=tokenizer)
    assert ablate(model, load_data(ids, model), "0.0", "zero").baseline.loss == pytest.approx(
        hand_loss(module, ids), abs=1e-5
    )
    assert module.bert.encoder.layer[0].chunk_size_feed_forward == 6


@pytest.mark.parametrize("classes", [0, 1])
def test_timm_models_without_classes_are_refused(classes: int) -> None:
    module = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=32, depth=1, num_heads=2, num_classes=classes
    )
    with pytest.raises(ModelError, match="two classes or more"):
        load_model(module)


@pytest.mark.parametrize("what", ["pruned", "older weight norm", "weight norm", "orthogonal"])
def test_weights_that_are_made_of_others_at_each_pass(what: str) -> None:
    """Pruning and norms of torch: a head's columns are those of the weight that the pass uses."""
    torch.manual_seed(0)
    config = tf.LlamaConfig(
        vocab_size=4096, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    module = tf.LlamaForCausalLM(config).eval()
    for layer in module.model.layers:
        linear = layer.self_attn.o_proj
        nn.init.normal_(linear.weight, std=0.15)
        if what == "pruned":
            prune.l1_unstructured(linear, "weight", amount=0.5)
        elif what == "older weight norm":
            nn.utils.weight_norm(linear)
        elif what == "weight norm":
            nn.utils.parametrizations.weight_norm(linear)
        else:
            nn.utils.parametrizations.orthogonal(linear)
    model = load_model(module)
    ids = torch.arange(5, 17)[None]
    batch = Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids.roll(-1, 1))
    clean_pass = forward.record(model, batch)
    zeros = np.zeros((2, 4, 12), np.float32)
    replaced = clean_passes.constant_replacements(Selection.parse("1.2", model.shape), zeros, model)
    output = clean_passes.ablated_output(model, clean_pass, replaced)
    ablated = scoring.score_outputs(model, clean_pass, [output])[1].loss

    def zeroed(_module: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        z = inputs[0].clone()
        z[..., 24:36] = 0
        return z

    handle = module.model.layers[1].self_attn.o_proj.register_forward_pre_hook(zeroed)
    with torch.no_grad():
        logits = module(ids).logits[0].double()
    handle.remove()
    expected = nn.functional.cross_entropy(logits, batch.targets[0], reduction="none")
    assert np.allclose(ablated, expected.numpy(), atol=1e-5)
