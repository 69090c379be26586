"""Examples have the values they claim: recomputed from the model."""

import numpy as np
import pytest
import torch

from ablation_core import head_scores, load_data
from ablation_core.data.dataset import Data
from ablation_core.engine.forward import z_values
from ablation_core.errors import DataError
from ablation_core.heads import examples as module
from ablation_core.heads.examples import LayerValues, examples
from ablation_core.heads.target import Target
from ablation_core.models.loaded import LoadedModel


@pytest.fixture(scope="module")
def data(opt_mini: LoadedModel) -> Data:
    return load_data("python-docs", opt_mini, predictions=900, seq_len=64)


@pytest.fixture(scope="module")
def z(opt_mini: LoadedModel, data: Data) -> np.ndarray:
    """(sequences, positions, heads, head_dim) of layer 3."""
    parts = [z_values(opt_mini, batch, [3])[3] for batch in data]
    return torch.cat(parts).unflatten(-1, (6, 32)).numpy()


def test_the_highest_and_lowest_of_a_neuron(opt_mini: LoadedModel, data: Data, z: np.ndarray) -> None:
    values = z[:, 1:, 2, 5]  # without BOS
    for where, expected in (("top", np.sort(values.ravel())[::-1]), ("bottom", np.sort(values.ravel()))):
        found = examples(opt_mini, data, "3.2:5", where, 6)
        np.testing.assert_allclose([one.value for one in found], expected[:6], rtol=1e-5)
        for one in found:
            assert z[one.sequence, one.position, 2, 5] == pytest.approx(one.value, rel=1e-5)


@pytest.mark.parametrize("where", [3, "decile 10", (-2.5, -2.0)])
def test_drawn_ones_lie_where_they_should(opt_mini: LoadedModel, data: Data, z: np.ndarray, where: object) -> None:
    values = z[:, 1:, 2, 5].ravel()
    low, high = (
        {3: (0.2, 0.3), "decile 10": (0.9, 1)}.get(where, (None, None)) if not isinstance(where, tuple) else where
    )
    if not isinstance(where, tuple):
        low, high = np.quantile(values, [low, high])
    found = examples(opt_mini, data, "3.2:5", where, 20)
    assert len(found) == 20 and len({(one.sequence, one.position) for one in found}) == 20
    for one in found:
        assert low - 1e-5 <= one.value <= high + 1e-5
        assert z[one.sequence, one.position, 2, 5] == pytest.approx(one.value, rel=1e-5)
    assert found == examples(opt_mini, data, "3.2:5", where, 20)
    assert found != examples(opt_mini, data, "3.2:5", where, 20, seed=1)


def test_a_heads_value_is_the_norm_of_what_it_writes(opt_mini: LoadedModel, data: Data, z: np.ndarray) -> None:
    weight = opt_mini.projections[3].weight[:, 64:96].numpy()
    for one in examples(opt_mini, data, "3.2", "top", 4):
        assert np.linalg.norm(weight @ z[one.sequence, one.position, 2]) == pytest.approx(one.value, rel=1e-4)


def test_the_text_around_an_example_is_the_datas(opt_mini: LoadedModel, data: Data) -> None:
    for one in examples(opt_mini, data, "3.2:5", "top", 3):
        ids = data.rows([one.sequence]).inputs["input_ids"][0]
        whole = opt_mini.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        assert one.before.removeprefix("</s>") + one.token + one.after in whole


def test_long_data_is_sampled_and_its_extremes_stay_exact(
    opt_mini: LoadedModel, data: Data, z: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 4 * 198 * 100)  # 100 positions of the layer
    layer = LayerValues.collect(opt_mini, data, 3)
    assert layer.values.shape == (100, 6 * 33) and layer.positions == z[:, 1:, 0, 0].size
    for neuron in (0, 31):
        values = z[:, 1:, 4, neuron].ravel()
        top, bottom = (layer.examples(Target(3, 4, neuron), end, 5) for end in ("top", "bottom"))
        np.testing.assert_allclose([one.value for one in top], np.sort(values)[::-1][:5], rtol=1e-5)
        np.testing.assert_allclose([one.value for one in bottom], np.sort(values)[:5], rtol=1e-5)
    for one in layer.examples(Target(3, 4, 0), 5, 5):
        assert z[one.sequence, one.position, 4, 0] == pytest.approx(one.value, rel=1e-5)


def test_patches_lie_in_the_image(vit_mini: LoadedModel) -> None:
    images = load_data("fashion-mnist", vit_mini, predictions=20)
    for one in examples(vit_mini, images, "2.1:3", "top", 5):
        own = z_values(vit_mini, images.rows([one.sequence]), [2])[2][0, :, 16 + 3]
        assert own[one.position].item() == pytest.approx(one.value, rel=1e-4)
        assert one.patch == divmod(one.position - 1, 7)


@pytest.mark.parametrize("where", ["middle", 0, 11, True, (2.0, 1.0), ("a", "b")])
def test_no_such_place(opt_mini: LoadedModel, data: Data, where: object) -> None:
    with pytest.raises(DataError, match="decile"):
        examples(opt_mini, data, "3.2:5", where)


@pytest.mark.parametrize("count", [0, -3, 2.5])
def test_no_such_number_of_examples(opt_mini: LoadedModel, data: Data, count: int) -> None:
    with pytest.raises(DataError, match="count must be a whole number of at least 1"):
        examples(opt_mini, data, "3.2:5", count=count)


def test_a_prompt_with_two_rows_is_one_sequence(opt_mini: LoadedModel) -> None:
    prompts = load_data("task:greater-than", opt_mini, predictions=9, batch_size=4)
    assert not prompts.one_answer, "some answers have several tokens: each prompt has a row per answer"
    for one in examples(opt_mini, prompts, "3.2:5", "bottom", 40):
        row = prompts.rows([one.sequence])
        own = z_values(opt_mini, row, [3])[3][0, one.position, 2 * 32 + 5]
        assert own.item() == pytest.approx(one.value, rel=1e-4, abs=1e-6)
        assert opt_mini.tokenizer.decode(row.inputs["input_ids"][0, one.position]) == one.token
    scores = head_scores(opt_mini, prompts)
    assert len(scores.per_sequence["self"]) == 9
