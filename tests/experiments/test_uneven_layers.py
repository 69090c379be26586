"""Models whose layers differ: some without heads, some with heads of another size, through everything that is measured."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ablation_core import ablate, compute_statistics, describe_head, direct_effects, examples, load_data, load_model
from ablation_core.experiments.estimate import estimate
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import finished
from ablation_core.runs.pruning import pruned
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from ablation_core.selection import ModelShape, Selection, SelectionError
from tests.models.every_family import Sizes, build, zeroed_gap

UNEVEN = ModelShape(heads=(2, 0, 3), head_dim=4, sizes=(4, 0, 2))


@pytest.fixture(scope="module", params=["lfm2", "gemma4_text"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder: Path = tmp_path_factory.mktemp(request.param)
    build("causal", request.param, folder, Sizes(layers=4, heads=3, key_value_heads=3, head_dim=8))
    return load_model(str(folder), device="cpu", dtype="float32")


def test_a_selection_counts_each_layer_s_own_neurons() -> None:
    assert (UNEVEN.neurons, len(Selection.parse("*.*", UNEVEN)), len(Selection.parse("1.* 2.*", UNEVEN))) == (14, 14, 6)
    assert str(Selection.parse("2.0:0-1 2.1 2.2 0.1:0", UNEVEN)) == "0.1:0 2.*"
    assert Selection.parse("2.1", UNEVEN).mask(2).tolist() == [False, False, True, True, False, False]
    assert Selection.of_masks([Selection.parse("*.*", UNEVEN).mask(layer) for layer in range(3)], UNEVEN).heads == (
        (0, 0), (0, 1), (2, 0), (2, 1), (2, 2),
    )  # fmt: skip
    assert len(pruned(UNEVEN, 50, 0)) == 4 + 3
    with pytest.raises(SelectionError, match=r"Layer 1 has no attention heads.*layers 0, 2 have"):
        Selection.parse("1.0", UNEVEN)
    with pytest.raises(SelectionError, match="neurons go from 0 to 1"):
        Selection.parse("2.0:2", UNEVEN)


def test_heads_are_ablated_and_counted_layer_by_layer(model: LoadedModel, tmp_path: Path) -> None:
    assert zeroed_gap(model) < 1e-4
    data = load_data("python-docs", model, predictions=40, seq_len=20, batch_size=2)
    statistics = compute_statistics(model, data)
    exists = np.zeros(statistics.mean.shape, dtype=bool)
    for layer, heads in enumerate(model.shape.heads):
        exists[layer, :heads, : model.shape.size(layer)] = True
    assert (np.isfinite(statistics.mean) == exists).all()
    _, last = max((heads, layer) for layer, heads in enumerate(model.shape.heads))
    with torch.inference_mode():
        z: list[torch.Tensor] = []
        handle = model.projections[last].register_forward_pre_hook(lambda _m, inputs: z.append(inputs[0][:, 1:]))
        for batch in data:
            model.module(**batch.inputs)
        handle.remove()
    mean = torch.cat([one.flatten(0, 1) for one in z]).mean(0).reshape(model.shape.heads[last], -1)
    np.testing.assert_allclose(
        statistics.mean[last, : model.shape.heads[last], : model.shape.size(last)], mean, rtol=1e-4, atol=1e-5
    )
    every = [f"{layer}.{head}" for layer, count in enumerate(model.shape.heads) for head in range(count)]
    swept = finished(sweep_steps(model, data, SweepSpec((METHODS["mean"],), random_sets=2), statistics, tmp_path))
    assert set(every) <= {str(name) for name in swept.rows}
    alone = ablate(model, data, every[-1], "mean", statistics=statistics).to_dict()["results"][0]["change"]["loss"][
        "mean"
    ]
    estimated = estimate(model, data, "mean", statistics=statistics).to_dict()["results"][0]["heads"]
    assert [row["head"] for row in estimated] == every
    assert np.isfinite(alone)


def test_a_head_is_described_with_its_own_layer_s_neurons(model: LoadedModel) -> None:
    data = load_data("python-docs", model, predictions=40, seq_len=20, batch_size=50)
    (batch,) = data
    widest = [layer for layer, heads in enumerate(model.shape.heads) if heads]
    for layer in (widest[0], widest[-1]):
        z: list[torch.Tensor] = []
        handle = model.projections[layer].register_forward_pre_hook(lambda _m, inputs, to=z: to.append(inputs[0]))
        with torch.inference_mode():
            hidden = model.module(**batch.inputs, output_hidden_states=True).hidden_states
        handle.remove()
        size, head = model.shape.size(layer), model.shape.heads[layer] - 1
        columns = slice(head * size, (head + 1) * size)
        written = z[0][..., columns] @ model.projections[layer].get_parameter("weight")[:, columns].T
        for example in examples(model, data, f"{layer}.{head}", count=3):
            assert example.value == pytest.approx(float(written[example.sequence, example.position].norm()), rel=1e-4)
        for example in examples(model, data, f"{layer}.{head}:{size - 1}", count=3):
            value = z[0][example.sequence, example.position, columns][-1]
            assert example.value == pytest.approx(float(value), abs=1e-5)
        found = describe_head(model, data, f"{layer}.{head}", "zero")
        if not model.family.startswith("lfm2"):  # a norm behind the attention
            assert found.direct_effect is None and "not defined" in found.notes[0]
            continue
        # hidden[-1] is behind the final norm; its scale follows from the last block's output
        last: list[torch.Tensor] = []
        handle = model.blocks[-1].register_forward_hook(lambda _m, _i, out, to=last: to.append(out))
        with torch.inference_mode():
            model.module(**batch.inputs)
        handle.remove()
        normed = written * (hidden[-1] / last[0])
        scored = batch.targets != -100
        logits = (normed @ model.module.lm_head.weight.T)[scored].gather(1, batch.targets[scored][:, None])
        expected = float(logits.mean())
        assert found.direct_effect is not None and found.direct_effect.mean == pytest.approx(expected, abs=1e-4)
        assert direct_effects(model, data).interval((layer, head)).mean == pytest.approx(expected, abs=1e-4)
