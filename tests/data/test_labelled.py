"""Labelled texts: columns, labels by name or number, and what of them is refused with a sentence."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pytest
import torch
import transformers

from ablation_core import ablate, bundled, load_data, load_model
from ablation_core.data.labelled.classes import ClassLabels, is_missing
from ablation_core.data.labelled.rows import choose_columns
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel
from tests import tiny

NAMES = ("bad", "good", "odd")
ROWS = [("Fine.", "good"), ("Dull.", "bad"), ("Strange, that.", "odd"), ("Very good indeed.", "good")]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        **tiny.TEXT | tiny.IDS | tiny.WIDE | {"vocab_size": 4096}, id2label=dict(enumerate(NAMES))
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(bundled.FOLDER / "roberta-mini")
    return load_model(transformers.BertForSequenceClassification(config), tokenizer=tokenizer)


def targets(data: Any) -> list[int]:
    return [int(target) for batch in data for target in batch.targets]


@pytest.mark.parametrize(
    ("model_names", "data_names", "label", "number"),
    [
        (NAMES, (), "good", 1),
        (NAMES, (), " Good ", 1),
        (NAMES, (), "2", 2),
        (NAMES, (), "2.0", 2),
        (NAMES, (), 0, 0),
        (NAMES, (), np.int64(1), 1),
        (NAMES, (), torch.tensor(1), 1),
        (NAMES, (), 1.0, 1),
        (NAMES, (), True, 1),
        (NAMES, (), "False", 0),  # as a table writes it
        (("yes", "true"), (), "True", 1),
        (("no", "yes"), (), True, 1),
        (("False", "True"), (), True, 1),
        (("True", "False"), (), True, 0),
        (("1", "2", "3"), (), "1", 0),  # a name goes before a number
        (NAMES, ("good", "odd", "bad"), 0, 1),  # the data set's own names decide
        (("LABEL_0", "LABEL_1"), ("neg", "pos"), 1, 1),
    ],
)
def test_a_label_is_a_name_or_a_number(model_names: Any, data_names: Any, label: Any, number: int) -> None:
    assert ClassLabels(model_names, data_names)(label) == number


@pytest.mark.parametrize(
    ("model_names", "data_names", "label", "words"),
    [
        (NAMES, (), "great", "no class 'great' .row 3.; its 3 classes are bad, good, odd"),
        (NAMES, (), 3, "no class 3 .row 3."),
        (NAMES, (), [0, 1], "is a list; a class is one name or one number"),
        (NAMES, (), {"a": 1}, "is a dict"),
        (("1", "2", "3"), (), 1, "may be the class called 1 .number 0. or class number 1"),
        (("a", "a"), (), "a", "2 classes called 'a'"),
        (("Up", "up"), (), "UP", "differ in case alone"),
        (NAMES, ("good", "neutral", "bad"), 0, "has the class 'neutral', which the model has not"),
        (NAMES, ("pos", "neg"), 0, "cannot be matched"),
    ],
)
def test_what_is_no_class_is_refused(model_names: Any, data_names: Any, label: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        ClassLabels(model_names, data_names)(label, "row 3")


def test_rows_without_a_label() -> None:
    assert all(is_missing(one) for one in (None, "", -1, float("nan"), " ", "-1", "-1.0"))
    assert not any(is_missing(one, ("-1", "0", "1")) for one in ("-1", " -1 ", -1)), "a class may be called so"
    assert not any(is_missing(one) for one in (0, "0", "a", np.int64(1), [0, 1], np.array([0, 1])))


@pytest.mark.parametrize(
    ("ref", "there", "chosen"),
    [
        ("csv:r.csv", ["id", "text", "label"], ("text", "label")),
        ("csv:r.csv", ["sentence", "category"], ("sentence", "category")),
        ("csv:r.csv#body", ["text", "body", "label"], ("body", "label")),
        ("csv:r.csv#body,stars", ["body", "stars"], ("body", "stars")),
        ("csv:r.csv#a,b", ["a,b", "label"], ("a,b", "label")),
    ],
)
def test_columns(ref: str, there: list[str], chosen: tuple[str, str]) -> None:
    named = ref.partition("#")[2] or "text"
    assert choose_columns(ref, named, there, "r.csv") == chosen


@pytest.mark.parametrize("ref", ["csv:r.csv#text", "csv:r.csv#body", "csv:r.csv#body,kind", "csv:r.csv"])
def test_columns_that_are_not_there(ref: str) -> None:
    with pytest.raises(DataError, match=r"it has body, stars\. Name both: csv:r\.csv#TEXT,LABEL"):
        choose_columns(ref, ref.partition("#")[2] or "text", ["body", "stars"], "r.csv")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "jsonl.gz"])
def test_files_of_records(model: LoadedModel, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"reviews.{kind}"
    frame = pandas.DataFrame([row for row in ROWS for _ in range(2)], columns=["text", "label"])
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        content = "\n".join(json.dumps(row) for row in frame.to_dict("records"))
        path.write_bytes(gzip.compress(content.encode()) if kind.endswith("gz") else content.encode())
    data = load_data(f"{kind.removesuffix('.gz')}:{path}", model, predictions=10, seed=0)
    order = np.random.default_rng(0).permutation(4)
    assert targets(data) == [NAMES.index(ROWS[number][1]) for number in order]
    other = load_data(f"{kind.removesuffix('.gz')}:{path}", model, predictions=10, seed=0, split="statistics")
    assert sorted(targets(other)) == sorted(targets(data))
    ids = data.rows([0]).inputs["input_ids"][0].tolist()
    wanted = model.tokenizer(ROWS[order[0]][0]).input_ids
    assert ids[: len(wanted)] == wanted
    assert set(ids[len(wanted) :]) <= {model.config.pad_token_id}


def test_what_is_left_out_cut_or_one_sided_is_said(model: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    long = "word " * 60
    path.write_text(f'text,label\n"{long}",good\n"{long}",good\n,bad\n,bad\nFine.,\nFine.,\nGood.,good\nGood.,good\n')
    data = load_data(f"csv:{path}", model, predictions=10, seq_len=20)
    said = " ".join(data.notes)
    assert "1 rows of" in said and "without a text" in said and "without a label" in said
    assert "1 of 2 texts are longer than the window" in said
    assert "All 2 texts are of the class good" in said
    assert data.rows([0, 1]).inputs["input_ids"].shape == (2, 20)
    after = model.tokenizer("x").input_ids[-1]
    assert after in data.rows([0]).inputs["input_ids"][0].tolist() + data.rows([1]).inputs["input_ids"][0].tolist()


def test_an_unknown_label_names_its_row(model: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("text,label\nFine.,good\nFine.,good\nWhat,superb\n")
    with pytest.raises(
        DataError, match=r"no class 'superb' \(row 2 of the evaluation part of .*r.csv\); its 3 classes"
    ):
        load_data(f"csv:{path}", model)


def test_a_data_set_that_names_its_numbers_otherwise(model: LoadedModel, tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["good", "odd", "bad"])}
    )
    rows = {"text": [row[0] for row in ROWS], "label": [["good", "odd", "bad"].index(row[1]) for row in ROWS]}
    saved = datasets.Dataset.from_dict(rows, features=features)
    wanted = [NAMES.index(row[1]) for row in ROWS]
    assert targets(load_data(saved, model)) == wanted
    datasets.Dataset.from_dict(
        {name: [v for v in values for _ in range(2)] for name, values in rows.items()}, features=features
    ).save_to_disk(tmp_path / "d")
    assert sorted(targets(load_data(f"hf:{tmp_path / 'd'}", model))) == sorted(wanted)


@pytest.mark.parametrize(
    "form",
    ["pairs", "frame", "loader", "tokenised", "columns"],
)
def test_labelled_texts_in_memory(model: LoadedModel, form: str) -> None:
    texts, labels = [row[0] for row in ROWS], [NAMES.index(row[1]) for row in ROWS]
    ids = [model.tokenizer(text).input_ids for text in texts]
    given: Any = {
        "pairs": ROWS,
        "frame": pandas.DataFrame(ROWS, columns=["text", "label"]),
        "loader": torch.utils.data.DataLoader(list(zip(texts, labels, strict=True)), batch_size=2),
        "tokenised": [{"input_ids": one, "label": label} for one, label in zip(ids, labels, strict=True)],
        "columns": {"text": texts, "label": labels},
    }[form]
    data = load_data(given, model)
    assert targets(data) == labels
    for number, one in enumerate(ids):
        assert data.rows([number]).inputs["input_ids"][0, : len(one)].tolist() == one
        assert int(data.rows([number]).inputs["attention_mask"].sum()) == len(one)


def test_texts_without_labels_are_refused(model: LoadedModel) -> None:
    with pytest.raises(DataError, match="needs texts with a label, and row 0 of the data given has none"):
        load_data(["A text."], model)
    with pytest.raises(DataError, match="is a text classifier; write pairs of your own"):
        load_data("task:ioi", model)
    causal = load_model("opt-mini")
    with pytest.raises(DataError, match="is no text classifier"):
        load_data(ROWS, causal)


def test_special_tokens_that_a_text_spells_are_letters(model: LoadedModel) -> None:
    data = load_data([("A </s> b.", "good"), ("<s>A b.", "bad")], model)
    ids = [row[mask.bool()].tolist() for row, mask in zip(*next(iter(data)).inputs.values(), strict=True)]
    begin, end = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    assert [(row.count(begin), row.count(end), row[0], row[-1]) for row in ids] == [(1, 1, begin, end)] * 2
    assert "read as the letters" in " ".join(data.notes)


def test_data_of_other_classes_is_not_taken_for_this_model_s(model: LoadedModel) -> None:
    """The same tokenizer, and its classes in another order."""
    config = transformers.BertConfig(**model.config.to_dict() | {"id2label": dict(enumerate(reversed(NAMES)))})
    other = load_model(transformers.BertForSequenceClassification(config), tokenizer=model.tokenizer)
    assert other.labels == NAMES[::-1]
    with pytest.raises(DataError, match="whose tokenizer or class names is not that of"):
        ablate(other, load_data(ROWS, model), "0.0", "zero")


@pytest.mark.parametrize("number", [-1, 10**6])
def test_ids_that_are_no_tokens(model: LoadedModel, number: int) -> None:
    with pytest.raises(DataError, match="Row 1 holds the token"):
        load_data([{"input_ids": [5, 6, 7], "label": 0}, {"input_ids": [5, number, 7], "label": 1}], model)


def test_texts_in_memory_that_hold_nothing_are_left_out_as_those_of_a_file_are(model: LoadedModel) -> None:
    rows = [{"text": one, "label": label} for one, label in (("A book.", 0), (None, 1), (" ", 2), ("Another.", 1))]
    data = load_data(rows, model)
    assert targets(data) == [0, 1]
    assert "2 texts with nothing in them were left out." in data.notes
    assert data.fingerprint == load_data([("A book.", 0), ("Another.", 1)], model).fingerprint
    with pytest.raises(DataError, match="hold nothing"):
        load_data([("", 0)], model)
    with pytest.raises(DataError, match="Row 1 of the data given has an int for a text"):
        load_data([{"text": "A book.", "label": 0}, {"text": 5, "label": 1}], model)
