"""Statistics files: what comes back is what was written, and whatever else is refused with a sentence."""

import dataclasses
import hashlib
import json
import os
import random
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from ablation_core.activations.accumulator import Accumulator
from ablation_core.activations.collect import gather_statistics
from ablation_core.activations.files import find_statistics, list_statistics, load_statistics, save_statistics
from ablation_core.activations.statistics import Statistics
from ablation_core.errors import StatisticsError
from ablation_core.selection import ModelShape

ARRAYS = ("count", "mean", "std", "minimum", "maximum", "not_finite", "low", "high", "counts")
PROVENANCE = {
    "format": 1, "model": "tiny", "model_fingerprint": "f00d", "data": "words", "data_fingerprint": "beef", "source": "",
    "split": "statistics", "sequences": 5, "tokens": 50, "seq_len": 10, "positions_left_out": 1, "dtype": "float32",
    "seed": 0, "bins": 20, "binning": "robust",
}  # fmt: skip
MODEL = SimpleNamespace(
    fingerprint="f00d", dtype="float32", ref="tiny", shape=ModelShape((2, 3), 4), excluded_positions=1
)


def made(**provenance) -> Statistics:
    """Statistics of two layers of 2 and 3 heads of 4 neurons, one of which was broken now and then."""
    generator = torch.Generator().manual_seed(0)
    layers = []
    for width in (8, 12):
        rows = torch.randn(50, width, generator=generator)
        rows[::7, 3] = torch.nan
        layers.append(Accumulator(width, bins=20))
        layers[-1].update(rows)
    return gather_statistics(layers, (2, 3), PROVENANCE | provenance)


def assert_same(one: Statistics, other: Statistics) -> None:
    assert one.provenance == other.provenance
    for name in ARRAYS:
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.dtype == theirs.dtype, name
        np.testing.assert_array_equal(mine, theirs, err_msg=name)  # NaN equals NaN


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def refused(path: Path, model: SimpleNamespace | None = None) -> str:
    """The sentence with which the file is refused; it names the file."""
    with pytest.raises(StatisticsError) as error:
        load_statistics(path, model)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_statistics(made(), tmp_path)


def header_end(content: bytes) -> int:
    return 8 + struct.unpack("<Q", content[:8])[0]


def rewritten(path: Path, drop: tuple[str, ...] = (), metadata: dict | None = None, **arrays) -> Path:
    """The file with other arrays or metadata, written as a valid safetensors file."""
    if metadata is None:
        header = json.loads(path.read_bytes()[8 : header_end(path.read_bytes())])
        metadata = header["__metadata__"]
    kept = {name: array for name, array in load_file(path).items() if name not in drop}
    save_file(kept | arrays, path, metadata or None)
    return path


def test_round_trip(tmp_path):
    statistics = made()
    again = load_statistics(save_statistics(statistics, tmp_path))
    assert_same(again, statistics)
    assert again.digest == statistics.digest
    np.testing.assert_array_equal(again.peak(10), statistics.peak(10))


def test_round_trip_by_text_path_and_for_its_model(saved):
    assert_same(load_statistics(str(saved), MODEL), made())


@pytest.mark.parametrize("most", [0, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**40])
def test_counts_of_any_size_survive(tmp_path, most):
    statistics = made()
    counts = statistics.counts.copy()
    counts[1, 2, 3, 4] = most
    count = counts.sum(axis=-1).astype(np.float32)  # a file in which these differ is refused
    statistics = dataclasses.replace(statistics, counts=counts, count=count)
    assert_same(load_statistics(save_statistics(statistics, tmp_path)), statistics)


def test_no_seq_len_survives(tmp_path):
    statistics = made(seq_len=None)
    assert_same(load_statistics(save_statistics(statistics, tmp_path)), statistics)


def test_arrays_that_are_not_contiguous_survive(tmp_path):
    statistics = dataclasses.replace(made(), mean=np.asfortranarray(made().mean), low=np.array(made().low[::-1])[::-1])
    assert_same(load_statistics(save_statistics(statistics, tmp_path)), made())


def test_saving_leaves_one_readable_file_and_nothing_else(tmp_path):
    path = save_statistics(made(), tmp_path)
    assert save_statistics(made(), tmp_path) == path
    assert files(tmp_path) == [str(path.relative_to(tmp_path))]
    assert path.stat().st_mode & 0o777 == 0o644


def test_other_settings_never_share_a_file(tmp_path):
    changes = [{}, {"seed": 1}, {"tokens": 51}, {"binning": "min-max"}, {"model": "ti/ny"}, {"model": "ti-ny"}]
    changes += [{"data": "a/b"}, {"data": "a-b"}, {"model_fingerprint": "cafe"}]
    paths = [save_statistics(made(**change), tmp_path) for change in changes]
    assert len(set(paths)) == len(paths)
    for path, change in zip(paths, changes, strict=True):
        assert_same(load_statistics(path), made(**change))


def test_cut_short(saved):
    content = saved.read_bytes()
    end = header_end(content)
    for length in (0, 1, 7, 8, 9, end // 2, end - 1, end, end + 1, (end + len(content)) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        assert "damaged" in refused(saved), length


def test_too_long(saved):
    for more in (b"\0", b" " * 100):
        saved.write_bytes(saved.read_bytes() + more)
        assert "damaged" in refused(saved)


ALTERATIONS = 60


@pytest.mark.parametrize("number", range(ALTERATIONS))
def test_one_byte_altered(saved, number):
    """Every other alteration hits the header, which is short; the rest hit the numbers."""
    content = bytearray(saved.read_bytes())
    end, generator = header_end(content), random.Random(number)
    first, last = (0, end) if number % 2 else (end, len(content))
    place = first + (last - first) * (number // 2) // (ALTERATIONS // 2) + generator.randrange(5)
    before = content[place]
    content[place] ^= generator.choice([0x01, 0x80, 0xFF, 0x20])
    saved.write_bytes(content)
    try:
        again = load_statistics(saved)
    except StatisticsError as error:
        assert str(saved) in str(error)
    else:
        assert 8 <= place < end
        assert before in b" \t"
        assert_same(again, made())


@pytest.mark.parametrize(("name", "kind", "other"), [
    ("mean", "F32", "I32"), ("std", "F32", "U32"), ("low", "F64", "I64"), ("high", "F64", "C64"), ("counts", "U8", "I8"),
])  # fmt: skip
def test_altered_type_of_an_array(saved, name, kind, other):
    """The same bytes read as another type are other numbers."""
    content = saved.read_bytes()
    old, new = (f'"{name}":{{"dtype":"{text}"'.encode() for text in (kind, other))
    assert content.count(old) == 1
    saved.write_bytes(content.replace(old, new))
    refused(saved)


def test_swapped_arrays(saved):
    arrays = load_file(saved)
    assert "digest" in refused(rewritten(saved, low=arrays["high"], high=arrays["low"]))


def test_altered_provenance(saved):
    header = json.loads(saved.read_bytes()[8 : header_end(saved.read_bytes())])["__metadata__"]
    provenance = json.dumps(PROVENANCE | {"tokens": 5000})
    assert "digest" in refused(rewritten(saved, metadata=header | {"provenance": provenance}))


def test_missing_digest(saved):
    assert "digest" in refused(rewritten(saved, metadata={"provenance": json.dumps(PROVENANCE)}))


@pytest.mark.parametrize("field", ["model_fingerprint", "dtype"])
def test_file_of_another_model(saved, field):
    mine = {"model_fingerprint": "fingerprint"}.get(field, field)
    other = SimpleNamespace(**(vars(MODEL) | {mine: "something else", "ref": "my-model"}))
    sentence = refused(saved, other)
    for word in (field, PROVENANCE[field], "something else", "my-model", "another model"):
        assert word in sentence
    assert_same(load_statistics(saved), made())


@pytest.mark.parametrize("version", [0, 2, 99])
def test_other_format_version(tmp_path, version):
    sentence = refused(save_statistics(made(format=version), tmp_path))
    assert f"has format {version}" in sentence
    assert "reads format 1" in sentence


def test_missing_file_and_folder_in_its_place(tmp_path):
    assert "no statistics file" in refused(tmp_path / "nothing.safetensors")
    assert "no statistics file" in refused(tmp_path / "no" / "folder" / "nothing.safetensors")
    assert "no statistics file" in refused(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 8, 100, 5000])
@pytest.mark.parametrize("start", [b"", struct.pack("<Q", 64), struct.pack("<Q", 2**63), b"\x80\x04"])
def test_random_bytes(tmp_path, size, start):
    path = tmp_path / "random.safetensors"
    path.write_bytes(start + random.Random(size).randbytes(size))
    assert "damaged" in refused(path)


@pytest.mark.parametrize("provenance", [None, "", "not JSON", "null", "3", "[]", '"text"', '{"format": 1', "{}", "NaN"])
def test_header_without_provenance(saved, provenance):
    metadata = {"digest": made().digest} if provenance is None else {"provenance": provenance, "digest": made().digest}
    sentence = refused(rewritten(saved, metadata=metadata))
    assert "no provenance" in sentence or "has format None" in sentence


def test_foreign_safetensors_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"weight": np.zeros((2, 2), dtype=np.float32)}, path)
    assert "no provenance" in refused(path)


@pytest.mark.parametrize("field", [field for field in PROVENANCE if field != "format"])
def test_fields_that_are_missing_or_of_another_type(saved, field):
    without = {name: value for name, value in PROVENANCE.items() if name != field}
    wrong = [PROVENANCE | {field: value} for value in ([], 1.5, True, "5" if isinstance(PROVENANCE[field], int) else 5)]
    if field != "seq_len":  # which may be null
        wrong += [without, PROVENANCE | {field: None}]
    for provenance in wrong:
        assert f"field {field} " in refused(rewritten(saved, metadata={"provenance": json.dumps(provenance)}))


@pytest.mark.parametrize("name", ARRAYS)
def test_missing_array(saved, name):
    assert f"lacks {name}" in refused(rewritten(saved, drop=(name,)))


@pytest.mark.parametrize("name", ARRAYS)
def test_array_of_another_shape(tmp_path, name):
    cut = dataclasses.replace(made(), **{name: getattr(made(), name)[:, :, :-1]})
    assert "wrong shape" in refused(save_statistics(cut, tmp_path))


def test_arrays_without_heads(tmp_path):
    flat = {name: getattr(made(), name)[0] for name in ARRAYS}
    assert "wrong shape" in refused(save_statistics(dataclasses.replace(made(), **flat), tmp_path))


def test_other_number_of_bins_than_stated(tmp_path):
    assert "counts" in refused(save_statistics(made(bins=21), tmp_path))


def test_counts_that_are_not_whole_numbers(saved):
    counts = load_file(saved)["counts"].astype(np.float32)
    assert "counts has the wrong type" in refused(rewritten(saved, counts=counts))


TRICKS = ["../../x", "..", ".", "", "/etc/passwd", "a/b/../../../c", ".hidden", "~/x", "C:\\x", "a\0b", "a\nb", "x" * 500,
          "/" * 50, "-", "名前", "$(touch x)", "con.safetensors", "%2e%2e%2f"]  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("field", ["model", "data"])
def test_names_stay_inside_the_folder(tmp_path, field, trick):
    folder = tmp_path / "a" / "b" / "cache"
    statistics = made(**{field: trick})
    path = save_statistics(statistics, folder)
    assert path.resolve().parent.parent == folder.resolve()
    assert [tmp_path / name for name in files(tmp_path)] == [path]
    assert not path.name.startswith(".")
    assert_same(load_statistics(path), statistics)
    assert [entry.path for entry in list_statistics(folder)[0]] == [path]


def test_file_where_the_folder_should_be(tmp_path):
    blocking = tmp_path / "cache"
    blocking.write_text("I am a file.")
    for folder in (blocking, blocking / "deeper"):
        with pytest.raises(StatisticsError, match="cannot be written to"):
            save_statistics(made(), folder)
    assert files(tmp_path) == ["cache"]
    assert blocking.read_text() == "I am a file."


def test_file_where_the_models_folder_should_be(tmp_path):
    (tmp_path / "tiny").write_text("I am a file.")
    with pytest.raises(StatisticsError, match="cannot be written to"):
        save_statistics(made(), tmp_path)
    assert files(tmp_path) == ["tiny"]


def test_folder_where_the_file_should_be(saved, tmp_path):
    saved.unlink()
    saved.mkdir()
    with pytest.raises(StatisticsError, match="cannot be written to"):
        save_statistics(made(), tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_interrupted_writing_leaves_the_old_file_and_no_partial_one(saved, tmp_path, monkeypatch, error):
    before = saved.read_bytes()

    def interrupt(_handle: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", interrupt)
    expected = StatisticsError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        save_statistics(made(), tmp_path)
    assert files(tmp_path) == [str(saved.relative_to(tmp_path))]
    assert saved.read_bytes() == before


def test_list_gives_good_files_and_a_problem_for_each_bad_one(tmp_path):
    good = [
        save_statistics(made(tokens=tokens, model=model), tmp_path) for tokens, model in ((50, "tiny"), (60, "big"))
    ]
    old = save_statistics(made(format=0), tmp_path)
    cut = save_statistics(made(seed=3), tmp_path)
    cut.write_bytes(cut.read_bytes()[:50])
    junk = tmp_path / "tiny" / "junk.safetensors"
    junk.write_bytes(b"junk")
    (tmp_path / "tiny" / ".partial-x.safetensors").write_bytes(b"half")
    (tmp_path / "tiny" / "notes.txt").write_text("not statistics")
    (tmp_path / "stray.safetensors").write_bytes(b"not in a model's folder")

    entries, problems = list_statistics(tmp_path)
    assert {entry.path for entry in entries} == set(good)
    for entry in entries:
        assert entry.provenance == load_statistics(entry.path).provenance
        assert entry.bytes == len(entry.path.read_bytes())
    assert len(problems) == 3
    for path in (old, cut, junk):
        assert sum(str(path) in problem for problem in problems) == 1


def test_list_of_a_missing_or_empty_folder(tmp_path):
    assert list_statistics(tmp_path) == ([], [])
    assert list_statistics(tmp_path / "nowhere") == ([], [])
    assert find_statistics(MODEL, "words", tmp_path / "nowhere") is None


def test_find_takes_the_most_tokens_of_this_model_and_data(tmp_path):
    for change in (
        {"tokens": 60},
        {"tokens": 999, "model_fingerprint": "cafe"},
        {"tokens": 999, "data": "other words"},
        {"tokens": 999, "split": "evaluation"},
        {"tokens": 7},
    ):
        save_statistics(made(**change), tmp_path)
    best = save_statistics(made(tokens=200, model="a copy of tiny"), tmp_path)
    damaged = save_statistics(made(tokens=5000), tmp_path)
    damaged.write_bytes(damaged.read_bytes()[:60])
    assert find_statistics(MODEL, "words", tmp_path).path == best
    assert find_statistics(MODEL, "other words", tmp_path).provenance["tokens"] == 999
    assert find_statistics(MODEL, "unseen words", tmp_path) is None
    assert find_statistics(SimpleNamespace(**vars(MODEL) | {"fingerprint": "new"}), "words", tmp_path) is None


def test_find_prefers_ordinary_settings_to_more_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr("ablation_core.activations.files.FINE_BINS", 20)
    for odd in ({"binning": "min-max"}, {"positions_left_out": 0}):
        save_statistics(made(tokens=999, **odd), tmp_path)
    ordinary = save_statistics(made(tokens=50), tmp_path)
    assert find_statistics(MODEL, "words", tmp_path).path == ordinary


def test_statistics_of_a_file_that_has_changed_are_not_found(tmp_path):
    text = tmp_path / "words.txt"
    text.write_text("as it was")
    digest = hashlib.sha256(b"as it was").hexdigest()[:16]
    save_statistics(made(data=f"text:{text}", source=digest), tmp_path / "cache")
    assert find_statistics(MODEL, f"text:{text}", tmp_path / "cache") is not None
    text.write_text("as it is")
    assert find_statistics(MODEL, f"text:{text}", tmp_path / "cache") is None
