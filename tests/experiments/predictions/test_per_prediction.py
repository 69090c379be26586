"""Where an ablation hurts, against plain forwards."""

import numpy as np
import pytest
import torch

from ablation_core import load_data
from ablation_core.data.references import DEFAULT_DATA
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.predictions.per_prediction import (
    PredictionEffects,
    characters,
    class_name,
    effect_per_prediction,
    joined,
    predict,
    token_texts,
    window_texts,
)
from ablation_core.experiments.spec import AblationSpec
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Selection
from tests.experiments.test_user_input import plain_logits

SELECT = "0.1 2.*"


def zero_run(model: LoadedModel) -> AblationRun:
    data = load_data(DEFAULT_DATA[model.modality], model, predictions=60, seq_len=24, batch_size=2)
    spec = AblationSpec(Selection.parse(SELECT, model.shape), (METHODS["zero"],))
    return AblationRun(model, data, spec, clean_cache=CleanPassCache(model, data)).finish()


def test_each_change_belongs_to_its_prediction(bundled_model: LoadedModel) -> None:
    model, run = bundled_model, zero_run(bundled_model)
    harm = effect_per_prediction(run)["zero"]
    zeros = {layer: torch.zeros(1, run.model.shape.heads[layer] * model.head_dim) for layer in (0, 2)}
    for index in range(0, len(harm.change), 7):
        batch = run.data.rows([int(harm.sequence[index])])
        place = int(harm.position[index])
        losses = []
        for values in (None, zeros):
            logits = plain_logits(model, batch.inputs, SELECT, values)[0]
            if model.modality == "causal":
                assert harm.target[index] == batch.inputs["input_ids"][0, place]
                logits = logits[place - 1]
            elif model.modality == "masked":
                logits = logits[place]
            losses.append(-float(logits.log_softmax(-1)[int(harm.target[index])]))
        assert harm.before[index] == pytest.approx(losses[0], abs=1e-4)
        assert harm.change[index] == pytest.approx(losses[1] - losses[0], abs=2e-4)


def test_predictions_before_and_after_are_those_of_a_plain_forward(bundled_model: LoadedModel) -> None:
    model, run = bundled_model, zero_run(bundled_model)
    predicted = predict(run, METHODS["zero"], [1])
    batch = run.data.rows([1])
    zeros = {layer: torch.zeros(1, run.model.shape.heads[layer] * model.head_dim) for layer in (0, 2)}
    scored = batch.targets != -100
    for values, ids, shares, right in (
        (None, predicted.before, predicted.before_share, predicted.target_before),
        (zeros, predicted.after, predicted.after_share, predicted.target_after),
    ):
        expected = plain_logits(model, batch.inputs, SELECT, values)[scored].softmax(-1).numpy()
        order = np.sort(expected, axis=1)[:, ::-1][:, : shares.shape[1]]
        np.testing.assert_allclose(shares, order, atol=1e-5)
        np.testing.assert_allclose(np.take_along_axis(expected, ids, 1), shares, atol=1e-5)
        np.testing.assert_allclose(right, expected[np.arange(len(expected)), batch.targets[scored]], atol=1e-5)


def test_single_predictions_can_be_asked_for(opt_mini: LoadedModel) -> None:
    run = zero_run(opt_mini)
    harm, method = effect_per_prediction(run)["zero"], METHODS["zero"]
    worst = harm.worst_first()[:5]
    predicted = predict(run, method, harm.sequence[worst], harm.position[worst])
    np.testing.assert_allclose(-np.log(predicted.target_before), harm.before[worst], atol=1e-4)
    np.testing.assert_allclose(-np.log(predicted.target_after), harm.after[worst], atol=1e-4)


def harm_of(change: list[float], sequence: list[int]) -> PredictionEffects:
    zeros = np.zeros(len(change))
    return PredictionEffects(np.array(sequence), zeros.astype(int), zeros.astype(int), zeros, np.array(change))


def test_the_worst_come_first_and_what_is_no_number_before_all() -> None:
    harm = harm_of([0.1, np.nan, -3, 2, 2], [0, 0, 1, 1, 2])
    assert harm.worst_first().tolist() == [1, 3, 4, 0, 2]
    numbers, means = harm_of([1, 3, -1, 5], [4, 4, 2, 9]).by_sequence()
    assert numbers.tolist() == [9, 4, 2] and means.tolist() == [5, 2, -1]
    assert harm.of_sequence(1).tolist() == [2, 3]


def test_the_tokens_texts_join_to_the_windows_text(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=300)
    for number in range(data.sequences):
        ids, texts = window_texts(opt_mini, data, number)
        assert len(texts) == len(ids)
        assert "".join(texts) == opt_mini.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert token_texts(opt_mini, []) == []


def test_a_character_of_several_tokens_shows_once_and_their_bytes_before_it(opt_mini: LoadedModel) -> None:
    ids = opt_mini.tokenizer("na\u00efve \u201cab", add_special_tokens=False).input_ids
    assert opt_mini.tokenizer.convert_ids_to_tokens(ids) == ["na", "Ã", "¯", "ve", "ĠâĢ", "ľ", "ab"]
    assert token_texts(opt_mini, ids) == ["na", "⟨C3⟩", "ï", "ve", " ⟨E2 80⟩", "“", "ab"]
    assert token_texts(opt_mini, ids[5:]) == ["⟨9C⟩", "ab"], "cut off amid the character"
    assert class_name(opt_mini, ids[1]) == "“⟨C3⟩”"
    assert [list(one) for one in characters(token_texts(opt_mini, ids))] == [[0], [1, 2], [3], [4, 5], [6]]
    assert joined(token_texts(opt_mini, ids)) == "naïve “ab" and joined(["⟨9C⟩", "ab"]) == "⟨9C⟩ab"
    assert joined(["é", "⟨E2⟩", "⟨80⟩"]) == "é⟨E2⟩⟨80⟩", "no token completes it"


def test_a_class_has_a_name(vit_mini: LoadedModel, opt_mini: LoadedModel) -> None:
    assert class_name(vit_mini, 0) == vit_mini.labels[0]
    token = opt_mini.tokenizer(" return", add_special_tokens=False).input_ids[0]
    assert class_name(opt_mini, token).strip("“”") in opt_mini.tokenizer.decode([token])
