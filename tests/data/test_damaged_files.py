"""Files as they come out of other programs: other separators and encodings, rows that do not fit, empty ones; read, or told."""

import json
from pathlib import Path

import pytest

from ablation_core import load_data
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel

TEXT = "The dog and the river are old. "
PAIR = {"prompt": "The dog and the", "right": " cat", "wrong": " man"}


def written(path: Path, content: str, encoding: str = "utf-8") -> str:
    path.write_bytes(content.encode(encoding))
    return str(path)


@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
def test_a_table_by_any_separator(opt_mini: LoadedModel, tmp_path: Path, separator: str) -> None:
    rows = [["id", "text"], *([str(n), f'"{TEXT}, said ""she""\nand {n}"'] for n in range(6))]
    ref = "csv:" + written(tmp_path / "t.csv", "\n".join(separator.join(row) for row in rows))
    kept = [f'{TEXT}, said "she"\nand {n}' for n in (0, 2, 4)]
    options = {"predictions": 500, "seq_len": 32, "documents": True}
    assert load_data(ref, opt_mini, **options).fingerprint == load_data(kept, opt_mini, **options).fingerprint


@pytest.mark.parametrize("at", [1, 5])
def test_a_text_with_a_separator_that_is_not_quoted_is_not_cut(opt_mini: LoadedModel, tmp_path: Path, at: int) -> None:
    rows = ["id,text", *(f"{n},{TEXT}{', and so on' * (n == at)}" for n in range(1, 9))]
    ref = "csv:" + written(tmp_path / "t.csv", "\n".join(rows))
    with pytest.raises(DataError, match=r"more fields than its first line names|Expected 2 fields in line 6, saw 3"):
        load_data(ref, opt_mini, predictions=500, seq_len=8, documents=True)


@pytest.mark.parametrize(
    ("kind", "content", "encoding", "words"),
    [
        ("csv", f"id,text\n1,{TEXT}\n2,{TEXT}\n", "utf-16", "is UTF-16 text; save it as UTF-8"),
        ("text", TEXT * 9, "utf-16", "is UTF-16 text; save it as UTF-8"),
        ("jsonl", json.dumps({"text": TEXT}), "utf-16", "is UTF-16 text; save it as UTF-8"),
        ("pairs", json.dumps(PAIR), "utf-16", "is UTF-16 text; save it as UTF-8"),
        ("csv", f"id,text\n1,naïve {TEXT}\n2,b\n", "latin-1", r"is not UTF-8 text \(byte 12 cannot be read\)"),
        ("csv", f"text,text\n{TEXT},b\n{TEXT},b\n", "utf-8", "has 2 columns called 'text'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(
    opt_mini: LoadedModel, tmp_path: Path, kind: str, content: str, encoding: str, words: str
) -> None:
    path = written(tmp_path / "file", content, encoding)
    with pytest.raises(DataError, match=words):
        load_data(f"{kind}:{path}", opt_mini, predictions=20, seq_len=8)


def test_an_empty_file_among_others_is_left_out(opt_mini: LoadedModel, tmp_path: Path) -> None:
    for number in range(4):
        written(tmp_path / f"{number}.txt", TEXT if number != 2 else "")
    data = load_data(f"folder:{tmp_path}", opt_mini, predictions=500, seq_len=32, documents=True)
    assert data.fingerprint == load_data([TEXT] * 2, opt_mini, 500, 32, documents=True).fingerprint
    assert any("1 rows of" in note and "were left out" in note for note in data.notes)


def test_pairs_whose_groups_are_numbered(opt_mini: LoadedModel, tmp_path: Path) -> None:
    rows = [PAIR | {"group": 7}, PAIR | {"group": 8}, PAIR | {"group": 7}]
    path = written(tmp_path / "p.jsonl", "\n".join(map(json.dumps, rows)))
    assert load_data(f"pairs:{path}", opt_mini).groups.tolist() == [0, 0]
    with pytest.raises(DataError, match="No file is named"):
        load_data("pairs:", opt_mini)


def test_a_hash_may_be_part_of_a_column_or_of_both(opt_mini: LoadedModel, tmp_path: Path) -> None:
    place = tmp_path / "odd#name.csv"
    written(place, "id,a#b\n" + "".join(f"{n},{TEXT}{n}\n" for n in range(4)))
    options = {"predictions": 500, "seq_len": 32, "documents": True}
    wanted = load_data([f"{TEXT}{n}" for n in (0, 2)], opt_mini, **options).fingerprint
    assert load_data(f"csv:{place}#a#b", opt_mini, **options).fingerprint == wanted
    with pytest.raises(DataError, match="no column 'c#d'"):
        load_data(f"csv:{place}#c#d", opt_mini, **options)


@pytest.mark.parametrize(
    "content",
    [json.dumps({"text": TEXT}) + ",\n", '{"text": "a\x0cb"}\n', '{\n "data": [\n', '{"text": ' + "[" * 50_000],
)
def test_broken_json_lines_are_not_said_to_be_text(opt_mini: LoadedModel, tmp_path: Path, content: str) -> None:
    """Whoever wrote text: then would be refused again, or would have the brackets scored."""
    for name in ("t.jsonl", "t"):
        with pytest.raises(DataError, match="not JSON") as caught:
            load_data("jsonl:" + written(tmp_path / name, content), opt_mini)
        assert "text:" not in str(caught.value)


def test_two_parquet_columns_of_one_name_and_a_packed_file(opt_mini: LoadedModel, tmp_path: Path) -> None:
    import gzip

    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    place = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array([TEXT])] * 2, names=["text", "text"]), place)
    with pytest.raises(DataError, match="2 columns called 'text'; rename"):
        load_data(f"parquet:{place}", opt_mini)
    packed = tmp_path / "t.parquet.gz"
    packed.write_bytes(gzip.compress(place.read_bytes()))
    with pytest.raises(DataError, match="packed by gzip; unpack it"):
        load_data(f"parquet:{packed}", opt_mini)


def test_a_table_whose_first_line_is_empty(opt_mini: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"The first line of .* is empty; it has to name the columns"):
        load_data("csv:" + written(tmp_path / "t.csv", f"\nid,text\n1,{TEXT}\n"), opt_mini)


def test_hidden_files_of_a_folder_are_passed_over(opt_mini: LoadedModel, tmp_path: Path) -> None:
    """Programs keep copies there, which would be in the other part than what they are copies of."""
    for number in range(4):
        written(tmp_path / f"{number}.txt", f"{TEXT}{number}")
    hidden = tmp_path / ".copies"
    hidden.mkdir()
    written(hidden / "0.txt", f"{TEXT}0")
    written(tmp_path / "._0.txt", "\xe9", "latin-1")
    options = {"predictions": 500, "seq_len": 32, "documents": True}
    for split, there in (("evaluation", (0, 2)), ("statistics", (1, 3))):
        wanted = load_data([f"{TEXT}{n}" for n in there], opt_mini, **options).fingerprint
        assert load_data(f"folder:{tmp_path}", opt_mini, split=split, **options).fingerprint == wanted


def test_pairs_may_be_packed(opt_mini: LoadedModel, tmp_path: Path) -> None:
    import gzip

    lines = "".join(json.dumps(PAIR | {"prompt": f"{PAIR['prompt']} {n}"}) + "\n" for n in range(4))
    plain, packed = written(tmp_path / "p.jsonl", lines), tmp_path / "p.jsonl.gz"
    packed.write_bytes(gzip.compress(lines.encode()))
    one, other = load_data(f"pairs:{plain}", opt_mini), load_data(f"pairs:{packed}", opt_mini)
    assert one.fingerprint == other.fingerprint and one.source == other.source
    packed.write_bytes(gzip.compress(lines.encode())[:-12])
    with pytest.raises(DataError, match="cannot be read: Compressed file ended"):
        load_data(f"pairs:{packed}", opt_mini)
