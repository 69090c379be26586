"""Text classifiers against plain forwards of the same models, one text at a time, so that nothing is padded there."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from ablation_core import (
    ablate,
    bundled,
    compute_statistics,
    curve,
    estimate,
    load_data,
    load_model,
    sweep,
    writes,
)
from ablation_core.data import user_input
from ablation_core.errors import DataError, ModelError
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.predictions.per_prediction import class_name, effect_per_prediction, predict
from ablation_core.experiments.spec import AblationSpec
from ablation_core.experiments.user_input import UserInputRun
from ablation_core.methods.registry import METHODS, usable_methods
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Selection
from tests import tiny

NAMES = {0: "bad", 1: "good", 2: "odd"}
TEXT = tiny.TEXT | tiny.IDS | tiny.WIDE | {"vocab_size": 4096, "id2label": NAMES}
GPT2 = tiny.GPT | {"vocab_size": 4096, "id2label": NAMES}
LLAMA = tiny.LLAMA | {"vocab_size": 4096, "id2label": NAMES}
TEXTS = [
    ("A fine book.", "good"),
    ("I could not put it down, and read it again the next day.", "good"),
    ("Nothing happens for three hundred pages, then it ends.", "bad"),
    ("Odd.", "odd"),
    ("The author has read too much, and understood too little of what was read.", "bad"),
    ("A short text about nothing in particular, neither here nor there.", "odd"),
]
FAMILIES = {
    "bert": ("BertForSequenceClassification", transformers.BertConfig(**TEXT)),
    "roberta": ("RobertaForSequenceClassification", transformers.RobertaConfig(**TEXT)),
    "distilbert": ("DistilBertForSequenceClassification", transformers.DistilBertConfig(**tiny.TRANSFORMERS["distilbert"][1] | {"vocab_size": 4096, "id2label": NAMES})),
    "deberta": ("DebertaForSequenceClassification", transformers.DebertaConfig(**TEXT, relative_attention=True, pos_att_type=["p2c", "c2p"], max_relative_positions=16)),
    "deberta-v2": ("DebertaV2ForSequenceClassification", transformers.DebertaV2Config(**tiny.TRANSFORMERS["deberta-v2"][1] | {"vocab_size": 4096, "id2label": NAMES})),
    "electra": ("ElectraForSequenceClassification", transformers.ElectraConfig(**TEXT, embedding_size=24)),
    "modernbert": ("ModernBertForSequenceClassification", transformers.ModernBertConfig(**tiny.TRANSFORMERS["modernbert"][1] | {"vocab_size": 4096, "id2label": NAMES, "classifier_pooling": "mean"})),
    "gpt2": ("GPT2ForSequenceClassification", transformers.GPT2Config(**GPT2)),
    "llama": ("LlamaForSequenceClassification", transformers.LlamaConfig(**LLAMA, head_dim=12)),
    "qwen3": ("Qwen3ForSequenceClassification", transformers.Qwen3Config(**LLAMA | {"pad_token_id": None}, head_dim=12)),
}  # fmt: skip


def saved(folder: Path, class_name: str, config: transformers.PretrainedConfig, tokenizer: str = "opt-mini") -> str:
    torch.manual_seed(0)
    module = getattr(transformers, class_name)(config)
    for weight in module.parameters():
        weight.data.add_(0.2 * torch.randn_like(weight))
    module.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(bundled.FOLDER / tokenizer).save_pretrained(folder)
    return str(folder)


def written(path: Path, rows: list[tuple[str, str]] = TEXTS, columns: tuple[str, str] = ("text", "label")) -> str:
    """A CSV in which the evaluation part, every other row, holds these rows."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerows([row, row])
    return f"csv:{path}"


def plain_losses(folder: str, layer_columns: tuple[str, slice] | None, transposed: bool = False) -> np.ndarray:
    """Each text's loss by transformers alone: unpadded, with some columns of one output projection zeroed."""
    module = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if layer_columns is not None:
        weight = module.get_submodule(layer_columns[0]).weight.data
        (weight if transposed else weight.T)[layer_columns[1]] = 0
    losses = []
    for text, label in TEXTS:
        with torch.no_grad():
            logits = module(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits[0].double()
        losses.append(-float(logits.log_softmax(0)[list(NAMES.values()).index(label)]))
    return np.array(losses)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, LoadedModel, str]:
    """A folder, its model, and its data."""
    folder = tmp_path_factory.mktemp("gpt2")
    return saved(folder, *FAMILIES["gpt2"]), load_model(str(folder)), written(folder / "reviews.csv")


USUAL = ("bert", "deberta-v2", "modernbert", "gpt2", "llama")  # of each sort one


@pytest.mark.parametrize(
    "family", [name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_a_classifier_is_measured_as_plain_forwards_are(tmp_path: Path, family: str) -> None:
    folder = saved(tmp_path / "model", *FAMILIES[family])
    model = load_model(folder)
    assert (model.modality, model.labels, model.num_layers, model.num_heads) == (
        "text-classification",
        ("bad", "good", "odd"),
        3,
        4,
    )
    data = load_data(written(tmp_path / "reviews.csv"), model, predictions=6, batch_size=4)
    assert (data.sequences, data.predictions, len(next(iter(data)).targets)) == (6, 6, 4)
    got = ablate(model, data, "1.2", "zero").to_dict()
    place = next(name for name, module in model.module.named_modules() if module is model.projections[1])
    size = model.head_dim
    transposed = type(model.projections[1]).__name__ == "Conv1D"
    assert got["baseline"]["loss"] == pytest.approx(plain_losses(folder, None).mean(), abs=2e-5)
    wanted = plain_losses(folder, (place, slice(2 * size, 3 * size)), transposed).mean()
    assert got["results"][0]["loss"] == pytest.approx(wanted, abs=2e-5)
    assert abs(got["results"][0]["change"]["loss"]["mean"]) > 1e-6
    assert got["results"][0]["kl"] > 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizer_s_padding_side_changes_nothing(gpt2: tuple[str, LoadedModel, str], side: str) -> None:
    """A decoder reads the last token that is no padding."""
    folder, _, ref = gpt2
    module = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side=side)
    model = load_model(module, tokenizer=tokenizer)
    got = ablate(model, load_data(ref, model, predictions=6), "0.0", "zero").baseline["loss"]
    assert got == pytest.approx(plain_losses(folder, None).mean(), abs=2e-5)


def test_a_decoder_without_a_padding_token_gets_one_that_ends_no_text(tmp_path: Path) -> None:
    folder = saved(tmp_path, "GPT2ForSequenceClassification", transformers.GPT2Config(**GPT2 | {"pad_token_id": None}))
    model = load_model(folder)
    assert model.config.pad_token_id == model.tokenizer.pad_token_id
    module = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    with pytest.raises(ModelError, match="which token fills up rows"):
        load_model(module)
    assert module.config.pad_token_id is None  # it is the person's


@pytest.mark.parametrize(
    ("class_name", "settings", "words"),
    [
        (
            "BertForSequenceClassification",
            {"num_labels": 1, "id2label": {0: "score"}},
            "1 number per input.*regression",
        ),
        ("BertForSequenceClassification", {"problem_type": "regression"}, "3 numbers per input"),
        ("BertForSequenceClassification", {"problem_type": "multi_label_classification"}, "several classes at once"),
        ("BertForTokenClassification", {}, "saved as BertForTokenClassification"),
    ],
)
def test_other_heads_are_refused(tmp_path: Path, class_name: str, settings: dict, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(saved(tmp_path, class_name, transformers.BertConfig(**TEXT | settings)))


def test_everything_else_works_as_for_images(gpt2: tuple[str, LoadedModel, str], tmp_path: Path) -> None:
    _, model, ref = gpt2
    data = load_data(ref, model, predictions=6)
    statistics = compute_statistics(model, load_data(ref, model, predictions=6, split="statistics"))
    lengths = [len(model.tokenizer(text).input_ids) for text, _ in TEXTS]
    assert statistics.provenance["tokens"] == sum(lengths) - 6  # no padding, and no first position
    names = [name for name in usable_methods(data, model.modality) if not METHODS[name].learned]
    assert {"resample-dataset", "resample-tokens", "mean-positional"} <= set(names)
    assert not {"resample-generated", "counterfactual"} & set(names)
    result = ablate(model, data, "1.2 2.0:3", names, statistics=statistics)
    assert all(np.isfinite(row.performance["loss"]) for row in result.results)
    assert result.provenance["windows"] == "texts"
    whole = ablate(model, data, "1.2", "mean", statistics=statistics).to_dict()["results"][0]
    heads = sweep(model, data, "mean", statistics=statistics, cache=tmp_path, random_sets=2).to_dict()["heads"]
    one = next(row for row in heads if row["head"] == "1.2")["results"][0]
    assert one["loss"] == pytest.approx(whole["loss"], abs=1e-9)
    estimated = estimate(model, data, "mean", statistics=statistics).to_dict()["results"][0]["heads"]
    assert len(estimated) == 12 and all(np.isfinite(row["loss"]["estimate"]) for row in estimated)
    pruned = curve(model, data, "zero", percents=[0, 100], seeds=[0], cache=tmp_path)
    assert pruned.to_dict()["baseline"]["loss"] == pytest.approx(result.baseline["loss"], abs=1e-9)
    promoted = writes(model, "2.1", data).promotes
    assert {one.text for one in promoted} == {"bad", "good", "odd"}


def test_at_positions_padding_is_not_counted(gpt2: tuple[str, LoadedModel, str]) -> None:
    """`last` is each text's own last token, the only one that a decoder's head reads."""
    _, model, ref = gpt2
    data = load_data(ref, model, predictions=6)
    last = ablate(model, data, "2.*", "zero", positions="last").to_dict()["results"][0]["loss"]
    everywhere = ablate(model, data, "2.*", "zero").to_dict()["results"][0]["loss"]
    assert last == pytest.approx(everywhere, abs=1e-5)  # in the last layer no other position is read any more


def test_effects_by_text_and_classes_by_name(gpt2: tuple[str, LoadedModel, str]) -> None:
    _, model, ref = gpt2
    data = load_data(ref, model, predictions=6)
    spec = AblationSpec(Selection.parse("1.*", model.shape), (METHODS["zero"],))
    run = AblationRun(model, data, spec).finish()
    effects = effect_per_prediction(run)["zero"]
    assert effects.sequence.tolist() == list(range(6))
    wanted = [NAMES[number] for number in effects.target]
    shown = [
        model.tokenizer.decode(data.rows([n]).inputs["input_ids"][0], skip_special_tokens=True).strip()
        for n in range(6)
    ]
    assert [dict(TEXTS)[text] for text in shown] == wanted
    found = predict(run, METHODS["zero"], [0, 3])
    assert found.before.shape == (2, 3)
    assert class_name(model, int(found.before[0, 0])) in NAMES.values()
    assert np.exp(-effects.before[[0, 3]]) == pytest.approx(found.target_before, abs=1e-5)


def test_an_own_text_has_its_class_before_and_after(gpt2: tuple[str, LoadedModel, str]) -> None:
    folder, model, ref = gpt2
    own = user_input.text(model, TEXTS[0][0], ref)
    methods = (METHODS["zero"], METHODS["resample-dataset"])
    spec = AblationSpec(Selection.parse("1.2", model.shape), methods)
    answer = UserInputRun(model, own, spec).answer()
    module = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = module(**model.tokenizer(TEXTS[0][0], return_tensors="pt", return_token_type_ids=False)).logits
    assert answer.before[0] == pytest.approx(wanted[0].softmax(0).numpy(), abs=1e-5)
    assert abs(answer.after["zero"] - answer.before).max() > 1e-5
    assert answer.after["resample-dataset"].sum() == pytest.approx(1, abs=1e-5)
    with pytest.raises(DataError, match="Nothing is written"):
        user_input.text(model, "  ", ref)


def test_the_command_line_names_the_columns(gpt2: tuple[str, LoadedModel, str], tmp_path: Path, capsys) -> None:
    from ablation_core.__main__ import main

    folder, _, _ = gpt2
    ref = written(tmp_path / "r.csv", columns=("body", "stars"))
    shared = ["--method", "zero", "--json", "--predictions", "6", "--cache-dir", str(tmp_path)]
    assert main(["ablate", folder, "--select", "1.2", "--data", f"{ref}#body,stars", *shared]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["baseline"]["loss"] == pytest.approx(plain_losses(folder, None).mean(), abs=2e-5)
    assert (got["model"]["modality"], got["data"]["predictions"]) == ("text-classification", 6)
    for data, words in (
        ([], "no labelled texts come with the project"),
        (["--data", ref], "Name both: csv:"),
        (["--data", "python-docs"], "needs texts with a label"),
    ):
        assert main(["ablate", folder, "--select", "1.2", *data, *shared]) == 1
        assert words in capsys.readouterr().err
