"""Direct contributions add up to the logits, computed component by component by hand."""

import numpy as np
import pytest
import torch

from ablation_core import ablate, describe_head, load_data
from ablation_core.data.dataset import Batch
from ablation_core.errors import DataError, ModelError
from ablation_core.heads.direct import direct_effects, pass_with_z, target_gradient
from ablation_core.heads.tail import check_affine, residual_paths
from ablation_core.heads.writes import writes
from ablation_core.models.loaded import LoadedModel
from tests import tiny

REFUSED = ("gemma2", "gemma3_text", "olmo2", "bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert",
           "deberta-v2", "modernbert", "esm", "swin", "SwinTransformer")  # fmt: skip


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_family_has_direct_effects_or_a_sentence(family: str) -> None:
    """Where it has: taking a head's contribution away from the last block's output changes the target's logit by it,
    the norm's scale held (its gradient is that of a sum)."""
    model = tiny.build(family)
    batch = tiny.batch(model)
    if family in REFUSED:
        with pytest.raises(ModelError, match="not defined"):
            residual_paths(model, batch)
            check_affine(model, pass_with_z(model, batch)[0])
        return
    paths = residual_paths(model, batch)
    check_affine(model, pass_with_z(model, batch)[0])
    assert len(paths) == model.num_layers and all(path.any() for path in paths.values())


def test_components_of_gpt2_add_up_by_hand() -> None:
    """Embedding, heads, biases and MLPs through the final LayerNorm's own scale and the unembedding, in plain torch."""
    model = tiny.build("gpt2")
    batch = tiny.batch(model)
    transformer = model.module.transformer
    parts: dict[str, torch.Tensor] = {}
    hooks = [transformer.drop.register_forward_hook(lambda _m, _i, out: parts.__setitem__("embedding", out))]
    for layer, block in enumerate(transformer.h):
        hooks.append(
            block.attn.register_forward_hook(lambda _m, _i, out, n=layer: parts.__setitem__(f"attn{n}", out[0]))
        )
        hooks.append(block.mlp.register_forward_hook(lambda _m, _i, out, n=layer: parts.__setitem__(f"mlp{n}", out)))
    logits = model.module(**batch.inputs).logits
    for hook in hooks:
        hook.remove()
    stream = sum(parts.values())
    norm = transformer.ln_f
    sigma = (stream.var(-1, keepdim=True, unbiased=False) + norm.eps).sqrt()
    row, position = 1, 4  # a scored one
    target = batch.targets[row, position]
    direction = model.module.lm_head.weight[target]

    def contribution(part: torch.Tensor) -> float:
        centred = part - part.mean(-1, keepdim=True)
        return float((centred / sigma * norm.weight)[row, position] @ direction)

    constant = float(norm.bias @ direction)
    assert sum(map(contribution, parts.values())) + constant == pytest.approx(
        float(logits[row, position, target]), abs=1e-4
    )

    only = torch.full_like(batch.targets, -100)
    only[row, position] = target
    clean_pass, z = pass_with_z(model, Batch(batch.inputs, only))
    gradient, values = target_gradient(model, clean_pass)
    assert values == pytest.approx([float(logits[row, position, target])], abs=1e-4)
    heads = 0.0
    for layer in range(3):
        weight, bias = transformer.h[layer].attn.c_proj.weight, transformer.h[layer].attn.c_proj.bias
        for head in range(4):
            columns = slice(8 * head, 8 * head + 8)
            written = z[layer][..., columns] @ weight[columns]
            mine = float(gradient[row, position] @ written[row, position])
            assert mine == pytest.approx(contribution(written), abs=1e-4)
            heads += mine
        heads += contribution(bias.expand_as(stream))
    rest = contribution(parts["embedding"]) + sum(contribution(parts[f"mlp{n}"]) for n in range(3)) + constant
    assert heads + rest == pytest.approx(float(logits[row, position, target]), abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "vit"])
def test_heads_by_hand_with_grouped_queries_and_of_images(family: str) -> None:
    """Each head's share of the target's logit through the final norm's own scale, in plain torch; what is left is the rest.

    llama: RMSNorm, and heads that are not hidden / heads wide; vit: LayerNorm, read at CLS.
    """
    model = tiny.build(family)
    batch, vision, row = tiny.batch(model, rows=1), model.modality == "vision", 0
    position = 0 if vision else 4
    norm = model.module.vit.layernorm if vision else model.module.model.norm
    head = model.module.classifier if vision else model.module.lm_head
    seen: dict[str, torch.Tensor] = {}
    hook = norm.register_forward_pre_hook(lambda _m, inputs: seen.__setitem__("stream", inputs[0][row, position]))
    logits = model.module(**batch.inputs).logits
    hook.remove()
    target = batch.targets[row] if vision else batch.targets[row, position]
    stream = seen["stream"]

    def contribution(part: torch.Tensor) -> torch.Tensor:
        if vision:
            scale = (stream.var(unbiased=False) + norm.eps).sqrt()
            part = part - part.mean(-1, keepdim=True)
        else:
            scale = (stream.pow(2).mean() + norm.variance_epsilon).sqrt()
        return (part / scale * norm.weight) @ head.weight[target]

    constant = float(norm.bias @ head.weight[target] + head.bias[target]) if vision else 0.0
    whole = float(logits[row, target] if vision else logits[row, position, target])
    assert float(contribution(stream)) + constant == pytest.approx(whole, abs=1e-4), "the norm is understood"

    only = torch.full_like(batch.targets, -100)
    only[(row,) if vision else (row, position)] = target
    clean_pass, z = pass_with_z(model, Batch(batch.inputs, only))
    gradient, _ = target_gradient(model, clean_pass)
    for layer in range(model.num_layers):
        weight = model.projections[layer].weight
        for number in range(4):
            columns = slice(model.head_dim * number, model.head_dim * (number + 1))
            written = z[layer][row, position, columns] @ weight[:, columns].T
            mine = float(gradient[row, position] @ written)
            assert mine == pytest.approx(float(contribution(written)), abs=1e-4), (layer, number)


def test_heads_and_the_rest_are_the_mean_logit(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=200, seq_len=32)
    direct = direct_effects(opt_mini, data)
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in data:
            logits = opt_mini.module(**batch.inputs).logits
            scored = batch.targets != -100
            total += float(logits[scored].gather(1, batch.targets[scored][:, None]).sum())
            count += int(scored.sum())
    assert direct.logit == pytest.approx(total / count, abs=1e-4)
    assert float(direct.heads.sum()) + direct.rest == pytest.approx(total / count, abs=1e-4)
    interval = direct.interval((5, 1))
    assert interval.mean == pytest.approx(direct.heads[5, 1], abs=1e-6) and interval.low < interval.mean < interval.high


def test_what_a_neuron_writes_at_one_position_by_hand(opt_mini: LoadedModel) -> None:
    written = writes(opt_mini, "4.2:7", own="def f(x):\n  return f(", position=-2)
    ids = torch.tensor([opt_mini.tokenizer("def f(x):\n  return f(").input_ids])
    captured: dict[str, torch.Tensor] = {}
    decoder = opt_mini.module.model.decoder
    norm = decoder.final_layer_norm
    hooks = [
        norm.register_forward_pre_hook(lambda _m, inputs: captured.__setitem__("stream", inputs[0])),
        opt_mini.projections[4].register_forward_pre_hook(lambda _m, inputs: captured.__setitem__("z", inputs[0])),
    ]
    with torch.inference_mode():
        opt_mini.module(input_ids=ids)
    for hook in hooks:
        hook.remove()
    place = 2 * 32 + 7
    part = captured["z"][0, -2, place] * opt_mini.projections[4].weight[:, place]
    sigma = (captured["stream"][0, -2].var(unbiased=False) + norm.eps).sqrt()
    logits = ((part - part.mean()) / sigma * norm.weight) @ opt_mini.module.lm_head.weight.T
    expected = (logits - logits.mean()).numpy()
    np.testing.assert_allclose(written.logits, expected, atol=1e-4)
    assert written.promotes[0].number == expected.argmax() and written.suppresses[0].number == expected.argmin()


def test_classes_and_refusals(vit_mini: LoadedModel, opt_mini: LoadedModel) -> None:
    images = load_data("fashion-mnist", vit_mini, predictions=20)
    assert {one.text for one in writes(vit_mini, "5.2", images).promotes} == set(vit_mini.labels)
    with pytest.raises(DataError, match="either"):
        writes(opt_mini, "3.2")
    with pytest.raises(DataError, match="no position 99"):
        writes(opt_mini, "3.2", own="a b", position=99)
    with pytest.raises(DataError, match="position is a whole number"):
        writes(opt_mini, "3.2", own="a b", position="last")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="count must be"):
        writes(opt_mini, "3.2", own="a b", count=0)


def test_statistics_and_methods_of_a_description_are_written_as_elsewhere(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=40, seq_len=20)
    found = describe_head(opt_mini, data, "5.1", "mean", statistics="python-docs")
    alone = ablate(opt_mini, data, "5.1", "mean", statistics="python-docs")
    assert found.total_effect.results[0].change["loss"].mean == alone.results[0].change["loss"].mean
    assert found.to_dict()["statistics"] == alone.statistics
