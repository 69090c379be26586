"""Data in memory in forms that people bring and nobody expects: taken where it is clear, else one sentence."""

import bz2
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from ablation_core import load_data, load_model
from ablation_core.errors import AblationError
from ablation_core.models.loaded import LoadedModel

TEXTS = ["The list is sorted in place.", "A string of letters is returned.", "Nothing is given back to the caller."]
IDS = torch.arange(5, 35).reshape(3, 10)


@pytest.fixture(scope="module")
def vit() -> LoadedModel:
    return load_model("vit-mini")


def same(one: Any, other: Any) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a.targets, b.targets) and _equal(a.inputs, b.inputs) for a, b in pairs)


def _equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "given", [np.array(TEXTS), np.array(TEXTS, dtype=object), pd.Series(TEXTS), [np.str_(one) for one in TEXTS]]
)
def test_texts_in_any_array_are_the_texts(opt_mini: LoadedModel, given: Any) -> None:
    assert same(load_data(given, opt_mini), load_data(TEXTS, opt_mini))


@pytest.mark.parametrize("gap", [None, float("nan"), "", "  "])
def test_gaps_are_left_out_and_counted(opt_mini: LoadedModel, gap: Any) -> None:
    for given in ([gap, *TEXTS], [*TEXTS, gap], pd.Series([*TEXTS, gap])):
        data = load_data(given, opt_mini)
        assert same(data, load_data(TEXTS, opt_mini)) and "1 texts with nothing in them" in " ".join(data.notes)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([{"input_ids": [5, 6, 7, 8], "attention_mask": [1, 2, 1, 1]}], "1 for a token and 0 for padding"),
        ([{"input_ids": [5, 6, 7, 8], "attention_mask": [0.0, 0.0, 0.0, -1e9]}], "1 for a token and 0 for padding"),
        (DataLoader(TensorDataset(IDS, IDS, IDS)), "3 parts without names"),
        (DataLoader(TensorDataset(IDS, IDS.flip(1))), "neither a class per row, nor an attention mask"),
        ([{"inputs_embeds": torch.zeros(4, 8)}], "have the columns inputs_embeds"),
        (pd.DataFrame({"id": [1, 2], "body": TEXTS[:2]}), "as in data['body']"),
        ([(np.zeros((2, 4, 4, 3), np.uint8), 1)], "Row 0 of the data given is a tuple"),
    ],
)
def test_what_would_be_lost_is_refused(opt_mini: LoadedModel, given: Any, words: str) -> None:
    with pytest.raises(AblationError) as refused:
        load_data(given, opt_mini)
    assert words in str(refused.value)


def test_a_second_part_of_a_batch_is_the_mask_or_the_next_tokens(opt_mini: LoadedModel) -> None:
    mask = torch.ones_like(IDS)
    mask[1, 7:] = 0
    masked = load_data(DataLoader(TensorDataset(IDS, mask), batch_size=3), opt_mini)
    assert same(masked, load_data([{"input_ids": IDS.tolist(), "attention_mask": mask.tolist()}][0], opt_mini))
    follow = torch.cat([IDS[:, 1:], torch.full((3, 1), 9)], 1)
    assert same(load_data(DataLoader(TensorDataset(IDS, follow), batch_size=3), opt_mini), load_data(IDS, opt_mini))


def test_images_as_paths_bytes_and_with_transparency(vit: LoadedModel, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    want = load_data([(image, 3), (image, 4)], vit)
    written = io.BytesIO()
    image.save(written, "PNG")
    for one in (str(tmp_path / "a.png"), tmp_path / "a.png", written.getvalue(), pixels):
        assert same(load_data([(one, 3), (one, 4)], vit), want)
    assert same(
        load_data([{"image": {"bytes": written.getvalue(), "path": None}, "label": n} for n in (3, 4)], vit), want
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([("/nowhere.png", 1)], "There is no image file /nowhere.png"),
        ([(1, Image.new("L", (28, 28)))], "give the image first"),
        ([(np.zeros((0, 28), np.uint8), 1)], "has no pixels"),
        ([(np.zeros((28, 28, 5), np.uint8), 1)], "Images are given as"),
        ([(np.full((28, 28), 200.0, np.float32), 1)], "they are not prepared"),
        ([(b"no image", 1)], "An image given as bytes is not an image"),
        ([(np.array([["a", "b"]]), 1)], "An array of <U1 was given in an image's place"),
    ],
)
def test_images_that_cannot_be_read_are_one_sentence(vit: LoadedModel, given: Any, words: str) -> None:
    with pytest.raises(AblationError) as refused:
        load_data(given, vit)
    assert words in str(refused.value)


def test_pixels_from_0_to_1_are_said(vit: LoadedModel) -> None:
    pixels = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert any("not normalised" in note for note in load_data(list(zip(pixels, range(4), strict=True)), vit).notes)
    assert not load_data(list(zip(2 * pixels - 0.8, range(4), strict=True)), vit).notes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("Bag", "Coat")):
        (tmp_path / name).mkdir()
        for one in range(4):
            Image.new("L", (28, 28), 40 * one + number).save(tmp_path / name / f"{one}.png")
    return tmp_path


def test_what_a_folder_holds_beside_images_is_said_and_hidden_files_are_not_tried(
    vit: LoadedModel, folder: Path
) -> None:
    (folder / "Bag" / "._0.png").write_bytes(b"\0\5\x16\7")  # as another system leaves them
    (folder / ".cache").mkdir()
    plain = load_data(f"images:{folder}", vit)
    assert plain.sequences == 4 and not plain.notes and len([batch.targets for batch in plain]) == 1
    (folder / "Coat" / "more").mkdir()
    (folder / "Coat" / "a.heic").write_bytes(b"x")
    (said,) = load_data(f"images:{folder}", vit).notes
    assert "1 folder" in said and "1 .heic" in said


def test_classes_one_folder_deeper_are_found_and_named(vit: LoadedModel, folder: Path) -> None:
    for name in ("Bag", "Coat"):
        (folder / "train").mkdir(exist_ok=True)
        (folder / name).rename(folder / "train" / name)
    with pytest.raises(AblationError, match=r"write images:.*/train"):
        load_data(f"images:{folder}", vit)


def test_pixels_of_no_known_range_are_refused_and_a_dark_image_stays_dark(vit: LoadedModel, folder: Path) -> None:
    dark = np.full((28, 28), 200, np.uint16)
    Image.fromarray(dark).save(folder / "Bag" / "0.png")
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(folder / "Bag" / "2.png")
    (batch,) = load_data(f"images:{folder}", vit)
    bags = batch.inputs[vit.input_name][batch.targets == vit.labels.index("Bag")]
    assert torch.equal(*(one.round(decimals=1) for one in bags))  # 200 of 65,535 is nearly black
    (folder / "Bag" / "0.png").unlink()
    Image.fromarray(np.linspace(-3, 3, 784, dtype=np.float32).reshape(28, 28)).save(folder / "Bag" / "0.tif")
    with pytest.raises(AblationError, match="pixels from -3 to 3, and nothing says which is black"):
        list(load_data(f"images:{folder}", vit))


@pytest.mark.parametrize("rest", ['{"id": 5}', '{"text": NaN}', '{"text": null}'])
def test_rows_without_a_text_are_left_out_and_counted(opt_mini: LoadedModel, tmp_path: Path, rest: str) -> None:
    rows = [json.dumps({"text": text}) for text in TEXTS * 2]
    (tmp_path / "gaps.jsonl").write_text("\n".join([rows[0], rows[1], rest, rest, *rows[2:]]))
    data = load_data(f"jsonl:{tmp_path / 'gaps.jsonl'}", opt_mini, documents=True)
    assert same(data, load_data((TEXTS * 2)[::2], opt_mini, documents=True)) and "2 rows" in " ".join(data.notes)
    (tmp_path / "other.jsonl").write_text(rest.replace("text", "id"))
    with pytest.raises(AblationError, match="has no column 'text'; it has id"):
        load_data(f"jsonl:{tmp_path / 'other.jsonl'}", opt_mini)


def test_a_file_packed_otherwise_is_named_as_that(opt_mini: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.bz2").write_bytes(bz2.compress(b'{"text": "a"}'))
    with pytest.raises(AblationError, match="is packed by bzip2"):
        load_data(f"jsonl:{tmp_path / 'a.jsonl.bz2'}", opt_mini)


def test_the_home_folder_is_found_behind_a_colon(
    opt_mini: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("The list is sorted in place.\n" * 200)
    data = load_data("text:~/a.txt", opt_mini, predictions=20, seq_len=20)
    assert same(data, load_data(f"text:{tmp_path}/a.txt", opt_mini, predictions=20, seq_len=20))
    assert data.ref == f"text:{tmp_path}/a.txt"


def left_as_they_are(rows: list, size: int) -> DataLoader:
    return DataLoader(rows, batch_size=size, collate_fn=list)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_loader_that_leaves_rows_as_they_are_gives_these_rows(
    opt_mini: LoadedModel, vit: LoadedModel, size: int
) -> None:
    rows = {
        "lists of ids": IDS.tolist(),
        "tensors of ids": list(IDS),
        "dictionaries": [{"input_ids": row} for row in IDS],
    }
    wanted = load_data(IDS, opt_mini)
    for what, given in rows.items():
        assert same(load_data(left_as_they_are(given, size), opt_mini), wanted), what
    images = [(Image.new("L", (28, 28), 40 * number), number) for number in range(3)]
    arrays = [{"image": np.asarray(image), "label": label} for image, label in images]
    assert same(load_data(left_as_they_are(images, size), vit), load_data(images, vit))
    assert same(load_data(left_as_they_are(arrays, size), vit), load_data(images, vit))
    assert load_data(left_as_they_are(images, size), vit).rows(range(3)).targets.tolist() == [0, 1, 2]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_columns_of_ids_are_not_taken_for_rows(opt_mini: LoadedModel, size: int) -> None:
    """torch's own collation makes of rows that are lists one tensor per position: it holds that place of every row."""
    with pytest.raises(AblationError, match=r"parts without names|expected"):
        load_data(DataLoader(IDS.tolist(), batch_size=size), opt_mini)


@pytest.mark.parametrize(
    "given",
    [
        {"input_ids": IDS + 0.5},
        {"input_ids": IDS * float("nan")},
        {"input_ids": IDS, "labels": IDS + 0.5},
        {"input_ids": IDS, "attention_mask": torch.full(IDS.shape, 0.5)},
        {"input_ids": IDS > 9},
        {"input_ids": IDS[None]},
        [[True, False, True]],
        IDS.float().tolist(),
    ],
)
def test_fractions_and_flags_are_no_ids(opt_mini: LoadedModel, given: Any) -> None:
    """They were cut to whole numbers, and the model then read other tokens than were given."""
    with pytest.raises(AblationError, match="whole numbers"):
        load_data(given, opt_mini)


def test_whole_numbers_in_other_types_are_ids(opt_mini: LoadedModel) -> None:
    flags = torch.ones_like(IDS, dtype=torch.bool)
    assert same(load_data({"input_ids": IDS.float(), "attention_mask": flags}, opt_mini), load_data(IDS, opt_mini))


def test_a_column_of_a_data_set(opt_mini: LoadedModel) -> None:
    datasets = pytest.importorskip("datasets")
    held = datasets.Dataset.from_dict({"body": TEXTS})
    assert same(load_data(held["body"], opt_mini), load_data(TEXTS, opt_mini))


def test_an_image_in_memory_that_is_closed_or_damaged_is_told(vit: LoadedModel, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.png", tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)).save(whole)
    cut.write_bytes(whole.read_bytes()[:400])
    closed = Image.open(whole)
    closed.close()
    for image in (closed, Image.open(cut)):
        with pytest.raises(AblationError, match="cannot be read as an image"):
            load_data([(image, 0)], vit)


@pytest.mark.parametrize(
    ("number", "words"), [(4096, "the token 4,096, but opt-mini knows 4,096"), (-1, "the token -1")]
)
def test_ids_that_are_no_tokens_are_told_by_their_row(opt_mini: LoadedModel, number: int, words: str) -> None:
    ids = IDS.clone()
    ids[1, 3] = number
    with pytest.raises(AblationError, match=f"Row 1 holds {words}"):
        load_data(ids, opt_mini)
