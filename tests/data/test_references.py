"""Data references of records and documents, each against what is in the file."""

import gzip
import json
from pathlib import Path

import pandas
import pytest
import torch

from ablation_core import ablate, compute_statistics, load_data
from ablation_core.data.dataset import IGNORED
from ablation_core.data.files import digests
from ablation_core.data.references import read_documents, source_digest
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel

TEXTS = [f"Document {number} says that {number} and {number + 1} follow each other.\n" * 3 for number in range(40)]


def write(folder: Path, kind: str, packed: bool = False) -> str:
    rows = [{"id": number, "body": text, "none": None} for number, text in enumerate(TEXTS)]
    frame = pandas.DataFrame(rows)
    place = folder / f"notes.{kind}{'.gz' if packed else ''}"
    if kind == "parquet":
        frame.to_parquet(place)
    elif kind == "folder":
        place.mkdir()
        for number, text in enumerate(TEXTS):
            (place / f"{number:03d}.txt").write_text(text)
        return f"folder:{place}"
    else:
        content = {
            "jsonl": "\n".join(map(json.dumps, rows)),
            "csv": frame.to_csv(index=False),
            "tsv": frame.to_csv(index=False, sep="\t"),
        }[kind].encode()
        place.write_bytes(gzip.compress(content) if packed else content)
    return f"{'csv' if kind == 'tsv' else kind}:{place}#body"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet", "folder"])
def test_every_other_document_is_evaluated_and_the_rest_is_for_statistics(
    tmp_path: Path, kind: str, packed: bool
) -> None:
    if packed and kind in ("parquet", "folder"):
        pytest.skip("compressed inside, or file by file")
    ref = write(tmp_path, kind, packed)
    assert list(read_documents(ref, "evaluation", [])) == TEXTS[::2]
    assert list(read_documents(ref, "statistics", [])) == TEXTS[1::2]


def test_packed_windows_are_the_documents_a_blank_line_apart(tmp_path: Path, opt_mini: LoadedModel) -> None:
    data = load_data(write(tmp_path, "jsonl"), opt_mini, predictions=200, seq_len=32)
    text = "".join(text.rstrip("\n") + "\n\n" for text in TEXTS[::2])
    got = [token for batch in data for row in batch.inputs["input_ids"].tolist() for token in row[1:]]
    assert len(got) > 200 and text.startswith(opt_mini.tokenizer.decode(got))
    assert data.documents is False
    assert ablate(opt_mini, data, "0.0", "zero").to_dict()["provenance"]["windows"] == "packed"


def test_documents_have_windows_of_their_own_and_the_losses_of_each_alone(
    tmp_path: Path, opt_mini: LoadedModel
) -> None:
    texts = [
        "A short one.",
        "A rather longer document, which needs two windows of twenty tokens each, as it goes on and on.",
        "Third.",
    ]
    place = tmp_path / "t.jsonl"
    place.write_text("".join(json.dumps({"text": text}) + "\n" for one in texts for text in (one, "statistics")))
    data = load_data(f"jsonl:{place}", opt_mini, seq_len=20, documents=True)
    tokenizer, bos = opt_mini.tokenizer, opt_mini.tokenizer.bos_token_id
    windows = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        windows += [[bos, *ids[start : start + 19]] for start in range(0, len(ids), 19)]
    (batch,) = list(data)
    for row, window in enumerate(windows):
        size = len(window)
        assert batch.inputs["input_ids"][row, :size].tolist() == window
        assert batch.inputs["attention_mask"][row].tolist() == [1] * size + [0] * (data.length - size)
        assert batch.targets[row].tolist() == window[1:] + [IGNORED] * (data.length - size + 1)
    total = count = 0.0
    for window in windows:  # each by itself, without padding
        with torch.no_grad():
            logits = opt_mini.module(input_ids=torch.tensor([window])).logits[0, :-1].double()
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(window[1:]), reduction="sum").item()
        count += len(window) - 1
    result = ablate(opt_mini, data, "1.0", "resample-dataset")
    assert result.baseline.loss == pytest.approx(total / count, abs=1e-5)
    assert result.to_dict()["provenance"]["windows"] == "documents"
    assert result.to_dict()["data"]["documents"] is True
    statistics = compute_statistics(opt_mini, load_data(f"jsonl:{place}", opt_mini, seq_len=20, documents=True))
    assert statistics.provenance["tokens"] == int(count)  # neither padding nor the first position


def test_masked_documents_are_padded_behind_their_end_and_give_the_loss_of_each_alone() -> None:
    from ablation_core import load_model

    model = load_model("roberta-mini")
    data = load_data(
        ["One short text here.", "A somewhat longer text, of more tokens than that."], model, documents=True
    )
    (batch,) = list(data)
    total = count = 0.0
    for ids, mask, targets in zip(*batch.inputs.values(), batch.targets, strict=True):
        size = int(mask.sum())
        assert ids[0] == model.tokenizer.cls_token_id and ids[size - 1] == model.tokenizer.sep_token_id
        scored = targets[:size] != IGNORED
        with torch.no_grad():
            logits = model.module(input_ids=ids[None, :size]).logits[0][scored].double()
        total += torch.nn.functional.cross_entropy(logits, targets[:size][scored], reduction="sum").item()
        count += int(scored.sum())
    assert ablate(model, data, "0.0", "zero").baseline.loss == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", '{"text": "one", "id": 1}\n{"text": "two", "id": 2}\n', ("JSON Lines", "jsonl:", "#text")),
        ("a.jsonl", '{"body": "one"}\n', ("JSON Lines", "jsonl:", "#body")),
        ("a.txt", "id,text\n1,hello\n2,there\n", ("CSV", "csv:", "#text")),
        ("a.txt", "id\ttitle\n1\thello\n2\tthere\n", ("tab-separated", "csv:", "id, title")),
        ("a.csv", "a thing;another thing\n1;2\n", ("CSV", "csv:")),
        ("a.txt", '"name","note"\n"x","a, b"\n', ("CSV", "name, note")),
        ("a.txt", '[{"text": "one"}, {"text": "two"}]', ("one JSON document",)),
        ("a.txt", '{\n  "text": "one"\n}', ("one JSON document",)),
        ("a.txt", b"PK\x03\x04rest", ("zip",)),
        ("a.txt", b"%PDF-1.7 rest", ("PDF",)),
        ("a.txt", b"PAR1rest", ("Parquet", "parquet:")),
        ("a.txt", b"{\\rtf1 rest", ("RTF",)),
    ],
)
def test_records_are_not_scored_as_text(
    tmp_path: Path, opt_mini: LoadedModel, name: str, content: str | bytes, words: tuple[str, ...]
) -> None:
    place = tmp_path / name
    place.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as said:
        load_data(f"text:{place}", opt_mini, predictions=5, seq_len=4)
    for word in words:
        assert word in str(said.value)


@pytest.mark.parametrize(
    "text",
    [
        "Roses are red, violets are blue\nSugar is sweet, and so are you\n",
        "def f(a, b):\n    return {'a': a, 'b': b}\n\nx = f(1, 2)\n",
        "{ a brace begins this text }\nand nothing in it is JSON\n",
        "one\ttab\nand then prose without any\n",
        "Yes, no\nNo, yes\nYes, no\n",
        "[1] A footnote begins this one.\n[2] And the next.\n",
    ],
)
def test_prose_and_code_are_text(tmp_path: Path, opt_mini: LoadedModel, text: str) -> None:
    place = tmp_path / "a.txt"
    place.write_text(text * 20)
    assert load_data(f"text:{place}", opt_mini, predictions=5, seq_len=8).predictions == 5


def test_line_ends_are_read_as_line_feeds_and_that_is_said(tmp_path: Path, opt_mini: LoadedModel) -> None:
    lines = "A line to read.\nAnd another one.\n" * 40
    plain, dos = tmp_path / "plain.txt", tmp_path / "dos.txt"
    plain.write_bytes(lines.encode())
    dos.write_bytes(lines.replace("\n", "\r\n").encode())
    one, other = (load_data(f"text:{place}", opt_mini, predictions=100, seq_len=16) for place in (plain, dos))
    assert one.fingerprint == other.fingerprint
    assert not one.notes and "CR LF" in other.notes[0]
    assert "CR LF" in ablate(opt_mini, other, "0.0", "zero").to_dict()["provenance"]["notes"][0]
    place = tmp_path / "dos.jsonl"
    place.write_text("".join(json.dumps({"text": lines.replace("\n", "\r\n")}) + "\n" for _ in range(2)))
    records = load_data(f"jsonl:{place}", opt_mini, predictions=100, seq_len=16)
    assert records.fingerprint == one.fingerprint or "\r" not in opt_mini.tokenizer.decode(
        next(iter(records)).inputs["input_ids"][0]
    )
    assert any("CR LF" in note for note in records.notes)


def test_a_large_file_is_read_as_far_as_it_is_needed(tmp_path: Path, opt_mini: LoadedModel) -> None:
    place = tmp_path / "large.jsonl"
    line = json.dumps({"text": "Some words to predict, over and over. " * 30}) + "\n"
    with open(place, "w") as file:
        file.write(line * 2000)
        file.write("this is no JSON, and nobody comes here\n")
    assert load_data(f"jsonl:{place}", opt_mini, predictions=500, seq_len=32).predictions == 500
    with pytest.raises(DataError, match="Line 2001"):
        list(read_documents(f"jsonl:{place}", "evaluation", []))


def test_the_digest_of_a_large_file_reads_its_ends_and_notices_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(digests, "_END_BYTES", 100)
    place = tmp_path / "a.jsonl"
    place.write_bytes(b"x" * 5000)
    first = source_digest(f"jsonl:{place}")
    assert source_digest(f"jsonl:{place}") == first != ""
    place.write_bytes(b"x" * 4999 + b"y")
    assert source_digest(f"jsonl:{place}") != first


@pytest.mark.parametrize(
    ("make", "ref", "words"),
    [
        (lambda p: p.write_text('{"text": 3}\n'), "jsonl:{}", "int values"),
        (lambda p: p.write_text('{"text": "a"}\n'), "jsonl:{}#other", "it has text"),
        (lambda p: p.write_text('{"text": "a"\n'), "jsonl:{}", "Line 1"),
        (lambda p: p.write_text('["a", "b"]\n'), "jsonl:{}", "one JSON list"),
        (lambda p: p.write_text("a,b\n1,2\n"), "csv:{}", "it has a, b"),
        (lambda p: p.write_text(""), "csv:{}", "empty"),
        (lambda p: p.write_text("no parquet"), "parquet:{}", "looks like plain text"),
        (lambda p: p.write_bytes(b"PAR1, and cut off"), "parquet:{}", "damaged"),
        (lambda p: p.mkdir(), "folder:{}", "no .txt file"),
        (lambda p: p.mkdir(), "text:{}", "is a folder"),
        (lambda p: p.mkdir(), "jsonl:{}", "is a folder"),
        (lambda p: None, "jsonl:{}", "no file"),
        (lambda p: None, "folder:{}", "no folder"),
        (lambda p: p.write_bytes(b"\x1f\x8bdamaged"), "jsonl:{}", "cannot be read"),
        (lambda p: p.write_text('{"text": "a"}\n'), "{}", "write text:"),
        (lambda p: p.mkdir(), "{}", "write folder:"),
    ],
)
def test_what_cannot_be_read_gets_a_sentence(tmp_path: Path, opt_mini: LoadedModel, make, ref: str, words: str) -> None:
    place = tmp_path / "thing"
    make(place)
    with pytest.raises(DataError, match=words):
        load_data(ref.format(place), opt_mini, predictions=5, seq_len=8)


def test_a_hash_may_be_part_of_a_path(tmp_path: Path) -> None:
    place = tmp_path / "a#b.jsonl"
    place.write_text('{"text": "one"}\n{"text": "two"}\n')
    assert list(read_documents(f"jsonl:{place}", "evaluation", [])) == ["one"]
    assert list(read_documents(f"jsonl:{place}#text", "statistics", [])) == ["two"]


def test_a_data_set_saved_to_disk_is_read_through_datasets(tmp_path: Path, opt_mini: LoadedModel) -> None:
    import datasets

    datasets.Dataset.from_dict({"body": TEXTS}).save_to_disk(tmp_path / "one")
    assert list(read_documents(f"hf:{tmp_path / 'one'}#body", "evaluation", [])) == TEXTS[::2]
    parts = {"train": TEXTS[:10], "test": TEXTS[10:]}
    datasets.DatasetDict(
        {name: datasets.Dataset.from_dict({"text": part}) for name, part in parts.items()}
    ).save_to_disk(tmp_path / "two")
    assert list(read_documents(f"hf:{tmp_path / 'two'}", "evaluation", [])) == TEXTS[10:]
    assert list(read_documents(f"hf:{tmp_path / 'two'}", "statistics", [])) == TEXTS[:10]
    assert load_data(f"hf:{tmp_path / 'two'}", opt_mini, predictions=50, seq_len=16).predictions == 50
    with pytest.raises(DataError, match="no column 'text'; it has body"):
        load_data(f"hf:{tmp_path / 'one'}", opt_mini)
    with pytest.raises(DataError, match="switched off"):
        load_data("hf:nobody/nothing-of-this-name", opt_mini)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("named", ["jsonl", "csv", "parquet", "folder"])
def test_a_file_under_another_kinds_name_is_told_what_it_is(
    opt_mini: LoadedModel, tmp_path: Path, kind: str, named: str
) -> None:
    path = write(tmp_path, kind).split(":", 1)[1].removesuffix("#body")
    if kind == named:
        assert load_data(f"{named}:{path}#body", opt_mini, predictions=20, seq_len=16).predictions == 20
        return
    with pytest.raises(DataError, match=f"write {kind}:"):
        load_data(f"{named}:{path}", opt_mini, predictions=20, seq_len=16)


@pytest.mark.parametrize("named", ["jsonl", "csv", "parquet", "folder", "text"])
def test_a_reference_that_names_no_file(opt_mini: LoadedModel, named: str) -> None:
    with pytest.raises(DataError, match=r"No (file|folder) is named"):
        load_data(f"{named}:", opt_mini)


@pytest.mark.parametrize(
    ("content", "said"), [("One line.\r", "(CR)"), ("One.\r\nTwo.\r", "(CR LF and CR)"), ("<html><p>One.\n", "HTML")]
)
def test_what_is_said_of_a_text(opt_mini: LoadedModel, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "a.txt").write_bytes((content * 200).encode())
    data = load_data(f"text:{tmp_path}/a.txt", opt_mini, predictions=10, seq_len=16)
    assert said in " ".join(data.notes)


def test_a_text_file_is_one_document_however_long(tmp_path: Path, opt_mini: LoadedModel) -> None:
    """It is read in pieces, whose ends are no ends of windows."""
    (tmp_path / "long.txt").write_text("".join(f"Line {n} of a long text, which goes on.\n" for n in range(2400)))
    options = {"predictions": 10**6, "seq_len": 32}
    alone = load_data(f"text:{tmp_path / 'long.txt'}", opt_mini, documents=True, **options)
    packed = load_data(f"text:{tmp_path / 'long.txt'}", opt_mini, **options)
    text = (tmp_path / "long.txt").read_text()
    half = text[: text.rfind("\n", 0, len(text) // 2 + 1) + 1]
    assert len(half) > 40_000
    ids = opt_mini.tokenizer(half, add_special_tokens=False).input_ids
    begin = opt_mini.tokenizer.bos_token_id
    rows = [[begin, *ids[at : at + 31]] for at in range(0, len(ids), 31)]
    held = alone.rows(range(alone.sequences))
    found = [
        row[flags.bool()].tolist()
        for row, flags in zip(held.inputs["input_ids"], held.inputs["attention_mask"], strict=True)
    ]
    assert found == rows
    assert packed.rows(range(packed.sequences)).inputs["input_ids"].tolist() == [row for row in rows if len(row) == 32]


def test_without_a_training_part_the_test_part_is_evaluated_whichever_comes_first(
    tmp_path: Path, opt_mini: LoadedModel
) -> None:
    datasets = pytest.importorskip("datasets")
    texts = [f"Text {n} of the part that is tested." for n in range(4)]
    parts = {"unsupervised": ["Text of no use here."] * 4, "test": texts}
    held = {name: datasets.Dataset.from_dict({"text": rows}) for name, rows in parts.items()}
    datasets.DatasetDict(held).save_to_disk(tmp_path / "held#1")
    options = {"predictions": 500, "seq_len": 32, "documents": True}
    for split, there in (("evaluation", texts[::2]), ("statistics", texts[1::2])):
        found = load_data(f"hf:{tmp_path / 'held#1'}#text", opt_mini, split=split, **options)
        assert found.fingerprint == load_data(there, opt_mini, **options).fingerprint
