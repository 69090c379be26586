"""Data: windows, targets, masks, splits, and a sentence for everything that cannot be used."""

import pydoc_data.topics
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ablation_core import load_data, load_model
from ablation_core.data.dataset import IGNORED
from ablation_core.data.images import eight_bit, find_images
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel
from tests.conftest import UNUSABLE_TEXT


@pytest.fixture(scope="module")
def roberta_mini() -> LoadedModel:
    return load_model("roberta-mini")


def rows_of(data) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(data)
    return torch.cat([b.inputs["input_ids"] for b in batches]), torch.cat([b.targets for b in batches])


def write(path: Path, text: str = "A line of words to read and to predict.\n" * 400) -> str:
    path.write_text(text, encoding="utf-8")
    return f"text:{path}"


def test_causal_windows_are_the_text_with_bos_and_the_next_token_as_target(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=300, seq_len=32, batch_size=4)
    ids, targets = rows_of(data)
    topics = pydoc_data.topics.topics
    text = "\n".join(topics[name] for name in sorted(topics))
    assert (ids[:, 0] == opt_mini.tokenizer.bos_token_id).all()
    body = ids[:, 1:].flatten().tolist()
    assert text.startswith(opt_mini.tokenizer.decode(body[:-3], clean_up_tokenization_spaces=False))
    scored = targets != IGNORED
    assert torch.equal(targets[scored], ids.roll(-1, 1)[scored])
    assert not scored[:, -1].any()
    assert scored.sum() == data.predictions == 300
    assert data.sequences == len(ids) == 10  # 31 predictions a window


def test_data_is_the_same_at_each_iteration_and_whatever_the_batch_size(bundled_model: LoadedModel) -> None:
    ref = "fashion-mnist" if bundled_model.modality == "vision" else "python-docs"
    one = load_data(ref, bundled_model, predictions=70, seq_len=32, batch_size=3)
    other = load_data(ref, bundled_model, predictions=70, seq_len=32, batch_size=50)
    name = bundled_model.input_name if bundled_model.modality == "vision" else "input_ids"
    first, second, third = (torch.cat([batch.inputs[name] for batch in data]) for data in (one, one, other))
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert one.fingerprint == other.fingerprint
    assert sum(int((batch.targets != IGNORED).sum()) for batch in one) == one.predictions == 70


def test_masks_are_fifteen_percent_and_eighty_ten_ten(roberta_mini: LoadedModel) -> None:
    data = load_data("python-docs", roberta_mini, predictions=4000, seq_len=102)
    ids, targets = rows_of(data)
    ids, targets = ids[:-1], targets[:-1]  # the last window is scored in part
    scored = targets != IGNORED
    assert (scored.sum(1) == 15).all()  # 15% of the 100 ordinary tokens
    assert not scored[:, 0].any() and not scored[:, -1].any()
    masked = (ids == roberta_mini.tokenizer.mask_token_id) & scored
    kept = (ids == targets) & scored
    total = int(scored.sum())
    assert abs(int(masked.sum()) / total - 0.8) < 0.03
    assert abs(int(kept.sum()) / total - 0.1) < 0.025
    assert not ((ids == roberta_mini.tokenizer.mask_token_id) & ~scored).any()
    noise = ids[scored & ~masked & ~kept]
    assert not set(noise.tolist()) & set(roberta_mini.tokenizer.all_special_ids)


def test_masks_come_from_the_seed_alone(roberta_mini: LoadedModel) -> None:
    torch.manual_seed(1)
    one = rows_of(load_data("python-docs", roberta_mini, predictions=100, seed=5))
    torch.manual_seed(2)
    np.random.default_rng().random()
    again = rows_of(load_data("python-docs", roberta_mini, predictions=100, seed=5))
    other = rows_of(load_data("python-docs", roberta_mini, predictions=100, seed=6))
    assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1])
    assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize("ref", ["python-docs", "python-code"])
def test_text_splits_are_disjoint(opt_mini: LoadedModel, ref: str) -> None:
    parts = [
        {tuple(row) for row in rows_of(load_data(ref, opt_mini, 30_000, seq_len=64, split=split))[0][:, 1:].tolist()}
        for split in ("evaluation", "statistics")
    ]
    assert len(parts[0]) > 300
    assert len(parts[0] & parts[1]) <= 0.01 * len(parts[0])  # windows of nothing but a ruler recur


def test_image_splits_are_disjoint(vit_mini: LoadedModel) -> None:
    parts = [
        {item.source.tobytes() for item in find_images("fashion-mnist", split, vit_mini.labels)[0]}
        for split in ("evaluation", "statistics")
    ]
    assert len(parts[0]) >= 1999 and len(parts[1]) >= 999
    assert not parts[0] & parts[1]


def test_a_short_text_gives_all_it_has(opt_mini: LoadedModel, tmp_path: Path) -> None:
    data = load_data(write(tmp_path / "a.txt"), opt_mini, predictions=10**6, seq_len=16)
    assert 0 < data.predictions == data.sequences * 15 < 10**6


@pytest.mark.parametrize(("content", "words"), UNUSABLE_TEXT)
def test_unusable_text_gets_its_sentence(opt_mini: LoadedModel, tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_data(f"text:{path}", opt_mini)


def test_one_very_long_line_costs_only_what_is_used(opt_mini: LoadedModel, tmp_path: Path) -> None:
    ref = write(tmp_path / "long.txt", "word " * 400_000)
    assert load_data(ref, opt_mini, predictions=100).predictions == 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"ref": "no-such-data"}, "no data set 'no-such-data'"),
        ({"ref": "fashion-mnist"}, "reads text"),
        ({"ref": "text:/no/such/file"}, "no file"),
        ({"ref": "python-docs", "seq_len": 257}, "at most 256 tokens"),
        ({"ref": "python-docs", "seq_len": 1}, "no room"),
        ({"ref": "python-docs", "predictions": 0}, "at least 1"),
        ({"ref": "python-docs", "batch_size": -1}, "at least 1"),
        ({"ref": "python-docs", "split": "test"}, "no split"),
    ],
)
def test_requests_that_cannot_be_met(opt_mini: LoadedModel, arguments: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_data(arguments.pop("ref"), opt_mini, **arguments)


def test_an_image_model_reads_no_text(vit_mini: LoadedModel) -> None:
    with pytest.raises(DataError, match="vit-mini reads images, but python-docs holds text"):
        load_data("python-docs", vit_mini)


def image(path: Path, shade: int, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (40, 30), shade if mode in "L;I" else (shade,) * len(mode)).save(path)


def test_an_image_folder_is_matched_by_name_and_index_and_says_what_it_left_out(
    vit_mini: LoadedModel, tmp_path: Path
) -> None:
    for number in range(4):
        image(tmp_path / "sneaker" / f"{number}.png", number)
        image(tmp_path / "T-shirt_top" / f"{number}.png", 50 + number, "RGB")
        image(tmp_path / "Unicorn" / f"{number}.png", 100 + number)
    data = load_data(f"images:{tmp_path}", vit_mini)
    assert data.predictions == 4  # half of two classes of four
    assert sorted(next(iter(data)).targets.tolist()) == [0, 0, 7, 7]
    assert "Unicorn" in data.notes[0]


def test_numbers_name_classes_where_the_model_has_no_names(vit_mini: LoadedModel, tmp_path: Path) -> None:
    for number in range(2):
        image(tmp_path / "3" / f"{number}.png", number)
    items, _ = find_images(f"images:{tmp_path}", "evaluation", tuple(str(index) for index in range(10)))
    assert [item.target for item in items] == [3]
    items, _ = find_images(f"images:{tmp_path}", "evaluation", vit_mini.labels)
    assert [item.target for item in items] == [3]


def test_image_folders_that_cannot_be_used(vit_mini: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        load_data(f"images:{tmp_path / 'nowhere'}", vit_mini)
    with pytest.raises(DataError, match="no subfolders"):
        load_data(f"images:{tmp_path}", vit_mini)
    (tmp_path / "Bag").mkdir()
    with pytest.raises(DataError, match="no image"):
        load_data(f"images:{tmp_path}", vit_mini)
    for name in ("a.png", "b.png"):
        (tmp_path / "Bag" / name).write_bytes(b"\x89PNG\r\n but not really")
    with pytest.raises(DataError, match="cannot be read"):
        list(load_data(f"images:{tmp_path}", vit_mini))


def test_deep_transparent_and_turned_images_keep_their_content(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((4, 4), 40_000, np.uint16))
    assert np.asarray(eight_bit(deep)).tolist() == [[round(40_000 * 255 / 65_535)] * 4] * 4
    unit = Image.fromarray(np.full((4, 4), 0.5, np.float32))
    assert set(np.asarray(eight_bit(unit)).ravel().tolist()) <= {127, 128}
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.putpixel((1, 1), (0, 0, 0, 255))
    pixels = np.asarray(eight_bit(clear))
    assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[1, 1].tolist() == [0, 0, 0]
    turned = Image.new("L", (6, 3))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as image:
        assert eight_bit(image).size == (3, 6)


def test_a_folder_that_cannot_be_read_gets_a_sentence(
    vit_mini: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0").mkdir()
    inside = Path.iterdir

    def refusing(folder: Path):
        if folder.name == "0":
            raise PermissionError(13, "Permission denied")
        return inside(folder)

    monkeypatch.setattr(Path, "iterdir", refusing)  # whoever runs the tests may be allowed to read everything
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        load_data(f"images:{tmp_path}", vit_mini)


def test_odd_entries_of_an_image_folder_are_no_tracebacks(vit_mini: LoadedModel, tmp_path: Path) -> None:
    for number in range(2):
        image(tmp_path / "Bag" / f"{number}.png", number)
    (tmp_path / "Bag" / "folder.png").mkdir()
    (tmp_path / "Bag" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    assert load_data(f"images:{tmp_path}", vit_mini).predictions == 1


@pytest.mark.parametrize(
    "ref", ["text:" + "x" * 5000, "images:" + "y" * 5000, "text:/proc/self/mem", "text:", "images:"]
)
def test_impossible_paths_get_a_sentence(opt_mini: LoadedModel, vit_mini: LoadedModel, ref: str) -> None:
    with pytest.raises(DataError):
        load_data(ref, vit_mini if ref.startswith("images") else opt_mini)


def test_a_negative_seed_gets_a_sentence(vit_mini: LoadedModel) -> None:
    with pytest.raises(DataError, match="seed must be 0 or more"):
        load_data("fashion-mnist", vit_mini, seed=-1)
