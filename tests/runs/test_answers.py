"""The published answers of the first page: what the models say when they are asked, and found only where they fit."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ablation_core import bundled, find_statistics, load_statistics
from ablation_core.activations.statistics import Statistics
from ablation_core.data.references import DEFAULT_DATA
from ablation_core.experiments.predictions.per_prediction import class_name
from ablation_core.models.info import predicts_class
from ablation_core.models.loaded import LoadedModel
from ablation_core.runs.answers import KIND, KnownAnswers, find_answers, image_input
from ablation_core.runs.ledger import run_path
from ablation_core.storage import PUBLISHED
from ablation_core.ui.glance.examples import PROMPTS
from docs.first_answers import BINS, measured
from tests.conftest import others_slow


def published(name: str) -> tuple[Statistics, KnownAnswers]:
    """A bundled model's statistics, and its answers as the first page asks for them."""
    info = bundled.CARDS[name]
    ref = DEFAULT_DATA[info.modality]
    entry = find_statistics(info, ref)
    assert entry is not None
    statistics = load_statistics(entry.path, info)
    predictions = 1000 if predicts_class(info.modality) else 2000
    return statistics, find_answers(info, ref, statistics.digest, BINS, predictions, PUBLISHED)


def by_hand(model: LoadedModel, inputs: dict[str, torch.Tensor], layer: int, columns: slice, value: np.ndarray) -> list:
    """Probabilities of the five likeliest answers with constants in the head's columns, by one plain forward."""

    def put(module: torch.nn.Module, given: tuple) -> tuple:
        z = given[0].clone()
        z[..., columns] = torch.as_tensor(value, dtype=z.dtype)
        return z, *given[1:]

    hook = model.projections[layer].register_forward_pre_hook(put)
    try:
        with torch.no_grad():
            output = model.module(**inputs) if model.modality != "vision" else model.module(*inputs.values())
    finally:
        hook.remove()
    logits = getattr(output, "logits", output)[0]
    if model.modality == "causal":
        logits = logits[-1]
    elif model.modality == "masked":
        logits = logits[int((inputs["input_ids"][0] == model.tokenizer.mask_token_id).nonzero()[0])]
    likeliest = logits.double().softmax(-1).topk(5)
    return [(class_name(model, int(one)), float(share)) for share, one in zip(*likeliest, strict=True)]


@others_slow
def test_every_tenth_published_answer_is_a_plain_forwards(bundled_model: LoadedModel) -> None:
    model = bundled_model
    statistics, known = published(model.ref)
    if model.modality == "vision":
        image = known.images[0]
        inputs = {"x": model.to_pixels(Image.open(io.BytesIO(image.png)))[None]}
        asked = image_input(image.number)
    else:
        asked = PROMPTS[model.modality][0]
        text = asked.replace("___", str(model.tokenizer.mask_token))
        inputs = dict(model.tokenizer(text, return_tensors="pt"))
    assert {head for head, _ in known.answers} == {f"{layer}.{head}" for layer in range(6) for head in range(6)}
    size = model.shape.head_dim
    for layer, head in ((0, 0), (2, 3), (3, 5), (5, 1)):
        found = known.answer(f"{layer}.{head}", asked)
        assert found is not None and list(found.after) == ["zero", "mean", "median", "peak", "resample-dataset"]
        for method, value in (("zero", np.zeros(size)), ("mean", statistics.mean[layer, head])):
            plain = by_hand(model, inputs, layer, slice(head * size, (head + 1) * size), value)
            assert [text for text, _ in found.after[method]] == [text for text, _ in plain]
            assert [share for _, share in found.after[method]] == pytest.approx([s for _, s in plain], abs=1e-5)
        clean = by_hand(model, inputs, layer, slice(0, 0), np.zeros(0))
        assert dict(found.before) == pytest.approx(dict(clean), abs=1e-5)


def test_every_method_of_the_head_that_is_shown_first_is_what_the_page_would_compute(opt_mini: LoadedModel) -> None:
    from ablation_core.data import user_input

    statistics, known = published("opt-mini")
    asked = PROMPTS["causal"][0]
    found = known.answer("2.3", asked)
    again = measured(opt_mini, user_input.prompt(opt_mini, asked, "python-docs"), (2, 3), statistics)
    assert found is not None and found.after.keys() == again.after.keys()
    for method, guesses in again.after.items():
        assert dict(found.after[method]) == pytest.approx(dict(guesses), abs=1e-5)


def test_answers_of_other_settings_are_not_taken(tmp_path: Path) -> None:
    info = bundled.CARDS["opt-mini"]
    statistics, known = published("opt-mini")
    assert len(known.answers) == 36 and not known.images
    for changed in ({"bins": 50}, {"digest": "another"}, {"predictions": 500}, {"data_ref": "python-code"}):
        asked = {"data_ref": "python-docs", "digest": statistics.digest, "bins": BINS, "predictions": 2000} | changed
        assert not find_answers(info, **asked, folder=PUBLISHED).answers, changed
    another = bundled.CARDS["roberta-mini"]
    assert not find_answers(another, "python-docs", statistics.digest, BINS, 2000, PUBLISHED).answers
    assert not find_answers(info, "python-docs", statistics.digest, BINS, 2000, tmp_path).answers


def test_a_damaged_answer_is_left_out(tmp_path: Path) -> None:
    statistics, _ = published("opt-mini")
    (path,) = (
        path
        for path in (PUBLISHED / "runs").glob(f"{KIND}-*.jsonl")
        if json.loads(path.read_text().split("\n")[0])["run"]["model"]["ref"] == "opt-mini"
    )
    lines = path.read_text(encoding="utf-8").split("\n")
    assert run_path(PUBLISHED, KIND, json.loads(lines[0])["run"]) == path
    lines[1] = lines[1].replace('"zero"', '"none"')  # no longer what its digest is of
    lines[2] = json.dumps({"piece": "x", "record": {"head": "0.1", "input": 3}})
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / path.name).write_text("\n".join(lines), encoding="utf-8")
    found = find_answers(bundled.CARDS["opt-mini"], "python-docs", statistics.digest, BINS, 2000, tmp_path)
    assert len(found.answers) == 34 and found.answer("2.3", PROMPTS["causal"][0]) is not None
