"""What methods replace values by is kept in the cache folder, bit for bit, and made again where that cannot be used."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ablation_core import load_data
from ablation_core.data.dataset import Data
from ablation_core.engine import forward
from ablation_core.methods.kept import _MOST_FILES, KeptFile
from ablation_core.methods.positional import positional_means
from ablation_core.methods.resampling import generated_text
from ablation_core.models.loaded import LoadedModel
from docs.published_replacements import published


@pytest.fixture
def model(opt_mini: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    monkeypatch.setattr(opt_mini, "cache", tmp_path)
    monkeypatch.setattr("ablation_core.methods.kept._FOLDER", "replacements")
    return opt_mini


@pytest.fixture
def data(opt_mini: LoadedModel) -> Data:
    return load_data("python-docs", opt_mini, 90, seq_len=30, split="statistics")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per batch that the model is run on."""
    seen, run = [], forward.z_values

    def counted(*given: object) -> object:
        seen.append(1)
        return run(*given)

    monkeypatch.setattr(forward, "z_values", counted)
    return seen


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_second_time_they_are_read_and_the_same_to_the_bit(
    model: LoadedModel, data: Data, tmp_path: Path, passes: list[int]
) -> None:
    first = positional_means(model, data, data)
    once = len(passes)
    (file,) = files(tmp_path)
    assert once and file.stat().st_size < 1_000_000
    second = positional_means(model, data, data)
    assert len(passes) == once
    assert first.keys() == second.keys() and all(torch.equal(first[layer], second[layer]) for layer in first)
    z = forward.z_values(model, data.rows(range(data.sequences)), [3])[3].double()
    assert torch.allclose(second[3][0].double(), z.mean(0), atol=1e-6)


def cut(content: bytes) -> bytes:
    return content[:-7]


def another_number(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


@pytest.mark.parametrize("damage", [cut, another_number, lambda _: b"", lambda _: b"\x80\x04.", lambda _: b"{" * 99])
def test_a_damaged_file_is_made_again(
    model: LoadedModel, data: Data, tmp_path: Path, passes: list[int], damage: Callable[[bytes], bytes]
) -> None:
    first = positional_means(model, data, data)
    once = len(passes)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    again = positional_means(model, data, data)
    assert len(passes) == 2 * once and all(torch.equal(first[layer], again[layer]) for layer in first)
    assert file.read_bytes() == whole


def test_other_data_lengths_and_weights_have_files_of_their_own(model: LoadedModel, data: Data, tmp_path: Path) -> None:
    longer = load_data("python-docs", model, 90, seq_len=45, split="statistics")
    positional_means(model, data, data)
    positional_means(model, longer, longer)
    positional_means(model, data, longer)
    assert len(files(tmp_path)) == 3
    bias = model.module.get_parameter("model.decoder.layers.0.fc1.bias")
    was = bias.detach().clone()
    try:
        bias.data += 0.5
        positional_means(model, data, data)
    finally:
        bias.data.copy_(was)
    assert len(files(tmp_path)) == 4


def test_the_same_weights_run_otherwise_have_files_of_their_own(
    model: LoadedModel, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "ref", "a copy in a folder")
    plain = KeptFile.of(model, "text", 1)
    monkeypatch.setattr(model.module.config, "layer_norm_elementwise_affine", False)
    assert KeptFile.of(model, "text", 1).name != plain.name


def test_with_a_persons_own_hooks_nothing_is_kept_or_taken(model: LoadedModel, data: Data, tmp_path: Path) -> None:
    plain = positional_means(model, data, data)
    doubled = model.blocks[0].register_forward_hook(
        lambda module, given, made: (2 * made[0], *made[1:]) if isinstance(made, tuple) else 2 * made
    )
    try:
        other = positional_means(model, data, data)
    finally:
        doubled.remove()
    assert torch.equal(other[0], plain[0]) and not torch.allclose(other[1], plain[1])
    assert len(files(tmp_path)) == 1 and torch.equal(positional_means(model, data, data)[1], plain[1])


def test_those_kept_longest_ago_go(model: LoadedModel, tmp_path: Path) -> None:
    for number in range(_MOST_FILES + 3):
        KeptFile.of(model, "text", number).keep({"tokens": torch.full((3,), number)})
    assert len(files(tmp_path)) == _MOST_FILES
    assert KeptFile.of(model, "text", 0).recall() is None
    last = KeptFile.of(model, "text", _MOST_FILES + 2).recall()
    assert last is not None and last["tokens"].tolist() == [_MOST_FILES + 2] * 3


def test_a_text_is_written_once(
    model: LoadedModel, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = generated_text(model, data, [0], 3)
    assert len(files(tmp_path)) == 1
    monkeypatch.setattr("ablation_core.methods.resampling._continued", None)  # nothing is written any more
    again = generated_text(model, data, [1], 3)
    assert torch.equal(first.inputs["input_ids"], again.inputs["input_ids"])
    monkeypatch.undo()
    other = generated_text(model, data, [0], 4)
    assert not torch.equal(first.inputs["input_ids"], other.inputs["input_ids"])


def test_of_a_module_in_memory_nothing_is_kept(
    model: LoadedModel, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "cache", None)
    positional_means(model, data, data)
    assert not files(tmp_path)


@pytest.mark.slow
def test_what_comes_with_the_project_is_what_is_made_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablation_core.methods.kept._FOLDER", "none")
    monkeypatch.setattr("ablation_core.methods.kept._PUBLISHED", "published-replacements")
    seen = 0
    for file, made in published():
        kept = file.recall()
        assert kept is not None and kept.keys() == made.keys()
        assert all(torch.allclose(kept[name], made[name], atol=1e-5) for name in made)
        seen += 1
    assert seen == 6


def test_where_nothing_can_be_written_they_are_measured_all_the_same(
    model: LoadedModel, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "cache", tmp_path / "file" / "below")
    (tmp_path / "file").write_text("no folder")
    assert positional_means(model, data, data)[0].shape[1] == data.length
