"""Hostile files: images, texts, tokenizers, model folders, statistics and runs from anywhere end in use or a sentence."""

import io
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from ablation_core import bundled, load_model
from ablation_core.activations.files import find_statistics, list_statistics, load_statistics, save_statistics
from ablation_core.activations.neuron_summary import summarise_neuron
from ablation_core.activations.statistics import Statistics
from ablation_core.data.images import ImageItem
from ablation_core.data.load import load_data
from ablation_core.data.references import decode_text, read_text, source_digest
from ablation_core.data.uploads import delete_upload, keep_upload, list_uploads
from ablation_core.data.user_input import prompt, read_image
from ablation_core.errors import DataError, ModelError, StatisticsError, as_markdown
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import encode, tokenizer_faults
from ablation_core.report.frames import head_distances, neuron_frame
from ablation_core.runs.ledger import VERSION, find_runs
from ablation_core.runs.pruning import kept_curves
from ablation_core.runs.sweep_result import kept_sweeps
from ablation_core.selection import ModelShape
from ablation_core.storage import CACHE
from ablation_core.ui.runs.choice import differences

QUIET = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.generate],
}


# Images


def written(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(mode: str, size: tuple[int, int] = (12, 8)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(pixels).convert(mode)


def png(width: int, height: int, depth: int = 8, data: bytes = b"\0" * 1000) -> bytes:
    """A PNG that declares so many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    return exif


READ = {
    "16-bit grey": (written(noise("I;16"), "PNG"), "L", (12, 8)),
    "1-bit": (written(noise("1"), "PNG"), "L", (12, 8)),
    "palette": (written(noise("P"), "PNG"), "RGB", (12, 8)),
    "palette with a transparent colour": (written(noise("P"), "PNG", transparency=0), "RGB", (12, 8)),
    "grey with transparency": (written(noise("LA"), "PNG"), "RGB", (12, 8)),
    "CMYK": (written(noise("CMYK"), "JPEG"), "RGB", (12, 8)),
    "float": (written(noise("F"), "TIFF"), "L", (12, 8)),
    "turned by EXIF": (written(noise("RGB"), "JPEG", exif=turned()), "RGB", (8, 12)),
}
REFUSED = {
    "20,000 × 20,000": png(20_000, 20_000),
    "2 billion wide": png(2**31 - 1, 1),
    "no pixels": png(0, 0),
    "truncated": written(noise("RGB", (90, 90)), "PNG")[:500],
    "truncated JPEG": written(noise("RGB", (90, 90)), "JPEG")[:500],
    "PostScript, whose decoder runs a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    "text": b"hello",
    "a pickle": b"\x80\x04\x95 ...",
    "a header only": b"\x89PNG\r\n\x1a\n",
}


@pytest.mark.parametrize("case", READ)
def test_an_unusual_image_is_read_upright_with_eight_bits(case: str, tmp_path: Path) -> None:
    content, mode, size = READ[case]
    picture, _ = read_image(content)
    assert (picture.mode, picture.size) == (mode, size)
    (tmp_path / "image.png").write_bytes(content)
    assert ImageItem(tmp_path / "image.png", 0).open().tobytes() == picture.tobytes()


def test_sixteen_bits_are_scaled_and_not_cut() -> None:
    picture, _ = read_image(READ["16-bit grey"][0])
    assert np.array_equal(np.asarray(picture), np.asarray(noise("RGB"))[..., 0])


@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_image_gets_a_sentence_everywhere(case: str, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(REFUSED[case])
    for read in (lambda: read_image(REFUSED[case]), ImageItem(tmp_path / "image.png", 0).open):
        with pytest.raises(DataError) as refused:
            read()
        assert str(refused.value).endswith(".") and "\n" not in str(refused.value)


def test_an_animated_image_is_refused_alone_and_read_by_its_first_frame_in_a_folder(tmp_path: Path) -> None:
    frames = [noise("L"), Image.new("L", (12, 8), 9)]
    content = written(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="animated"):
        read_image(content)
    (tmp_path / "image.gif").write_bytes(content)
    assert np.array_equal(np.asarray(ImageItem(tmp_path / "image.gif", 0).open().convert("L")), np.asarray(frames[0]))


IMAGES = [written(noise("RGB", (20, 20)), form) for form in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")]


@settings(max_examples=300, **QUIET)
@given(st.sampled_from(IMAGES), st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=4)), max_size=4), st.integers(0, 3000))  # fmt: skip
def test_any_damage_to_an_image_is_survived(content: bytes, changes: list[tuple[int, bytes]], length: int) -> None:
    damaged = bytearray(content)
    for place, other in changes:
        place %= len(damaged)
        damaged[place : place + len(other)] = other
    try:
        picture, _ = read_image(bytes(damaged[: length or None]))
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert picture.mode in ("L", "RGB")


# Texts


def test_a_line_of_fifty_megabytes_is_cut_into_windows(opt_mini: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "line.txt").write_bytes(b"abcdefghi " * 5_000_000)
    data = load_data(f"text:{tmp_path}/line.txt", opt_mini, predictions=200, seq_len=32)
    assert data.predictions == 200 and len(data) > 0
    (tmp_path / "word.txt").write_bytes(b"a" * 5_000_000)
    assert load_data(f"text:{tmp_path}/word.txt", opt_mini, predictions=200, seq_len=32).predictions == 200


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"), (b" \n\t\r\n \x0b", "empty"), (b"\xef\xbb\xbf", "empty"), (b"\xef\xbb\xbf \n", "empty"),
        ("\u2003\u00a0\u3000".encode(), "empty"), (b"a\0b" * 99, "binary"), ("word ".encode("utf-16") * 99, "UTF-16"),
        (b"\xff" * 999, "not UTF-8"), (b"\xed\xa0\x80" * 99, "not UTF-8"), (b"ok " * 999 + b"\xc3", "not UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_text_gets_a_sentence(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_bytes(content)
    with pytest.raises(DataError, match=words):
        list(read_text(f"text:{tmp_path}/file.txt", "evaluation"))
    with pytest.raises(DataError, match=words):
        keep_upload("file.txt", content, tmp_path / "cache")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_bytes(b"\xef\xbb\xbfone\ntwo\n")
    parts = [list(read_text(f"text:{tmp_path}/file.txt", split)) for split in ("evaluation", "statistics")]
    assert parts == [["one\n"], ["two\n"]]


@settings(max_examples=200, **QUIET)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_text_or_a_sentence(content: bytes) -> None:
    try:
        text, changed = decode_text(content, "it")
    except DataError as error:
        assert str(error).startswith("it is ")
    else:
        plain = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        assert text.strip() and text.encode() == plain and bool(changed) == (b"\r" in content)


@pytest.mark.skipif(not os.path.isfile("/proc/version"), reason="no such files on this system")
@pytest.mark.parametrize("path", ["/proc/kmsg", "/proc/self/environ", "/proc/version", "/proc/self/mem", "/dev/zero"])
def test_the_systems_own_files_without_end_are_not_read(path: str) -> None:
    with pytest.raises(DataError, match=r"is empty|no file|cannot be read"):
        list(read_text(f"text:{path}", "evaluation"))
    source_digest(f"text:{path}")


def test_a_file_beyond_the_limit_is_not_read_for_its_digest_either(tmp_path: Path) -> None:
    with open(tmp_path / "large.txt", "wb") as file:
        file.truncate(10**12)  # takes no room on the disk
    with pytest.raises(DataError, match="larger than 100 MB"):
        source_digest(f"text:{tmp_path}/large.txt")


# Uploads


NOTES = st.fixed_dictionaries(
    {"kind": st.sampled_from(["text", "images", "..", 5, None]), "name": st.one_of(st.text(max_size=5), st.integers(), st.none())},
    optional={
        "digest": st.one_of(st.just("0" * 16), st.integers()), "files": st.one_of(st.integers(), st.text(max_size=2)),
        "bytes": st.one_of(st.integers(), st.floats(), st.none()), "more": st.integers(),
    },
)  # fmt: skip


@settings(max_examples=200, **QUIET)
@given(st.one_of(NOTES.map(json.dumps), st.text(max_size=20), st.just("[" * 5000)))
def test_any_note_of_an_upload_is_read_or_passed_over(tmp_path: Path, note: str) -> None:
    folder = tmp_path / "uploads" / ("0" * 16)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.txt").write_text("x")
    (folder / "upload.json").write_bytes(note.encode("utf-8", "surrogatepass"))
    for upload in list_uploads(tmp_path):
        assert (upload.kind, upload.digest) == ("text", "0" * 16)
        assert isinstance(upload.name, str) and isinstance(upload.bytes, int) and isinstance(upload.files, int)
    kept = keep_upload("other.txt", b"some words", tmp_path)
    delete_upload(kept.digest, tmp_path)


def test_two_members_of_one_name_are_two_images(tmp_path: Path) -> None:
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for shade in (1, 2):
            archive.writestr("Dress/1.png", written(Image.new("L", (9, 9), shade), "PNG"))
    kept = keep_upload("images.zip", buffer.getvalue(), tmp_path)
    files = sorted((tmp_path / "uploads" / kept.digest / "images" / "Dress").iterdir())
    assert [np.asarray(Image.open(file))[0, 0] for file in files] == [1, 2]


# Models and tokenizers


def copied(name: str, folder: Path) -> Path:
    return shutil.copytree(bundled.FOLDER / name, folder / name)


TOKENIZERS: dict[str, Callable[[dict], object]] = {
    "panics when it is read": lambda t: t.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "panics at the first text": lambda t: t.update(normalizer={"type": "Replace", "pattern": {"Regex": ""}, "content": "x"}),
    "panics when it adds special tokens": lambda t: t["post_processor"].update(special_tokens={}),
    "raises at the first text": lambda t: t.update(
        model={"type": "WordLevel", "unk_token": "x", "vocab": {"a": 0, "b": 1}}, added_tokens=[]
    ),
    "a regular expression that is none": lambda t: t.update(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "(?<=a"}, "behavior": "Isolated", "invert": False}
    ),
    "an empty vocabulary": lambda t: t["model"].update(vocab={}, merges=[]),
    "negative ids": lambda t: t["model"].update(vocab={"a": -1}),
    "no model": lambda t: t.pop("model"),
}  # fmt: skip


@pytest.mark.parametrize("case", TOKENIZERS)
def test_a_damaged_tokenizer_gets_a_sentence(case: str, tmp_path: Path) -> None:
    folder = copied("opt-mini", tmp_path)
    settings = json.loads((folder / "tokenizer.json").read_text())
    TOKENIZERS[case](settings)
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="tokenizer"):
        model = load_model(str(folder))
        encode(model, "A text.")
        load_data("python-docs", model, predictions=20, seq_len=16)


def test_a_tokenizer_of_another_model_is_refused_for_a_prompt_too(opt_mini: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("ablation_core.models.tokenizer.known_tokens", lambda model: 10)
    with pytest.raises(ModelError, match="not this model's"):
        prompt(opt_mini, "a few words", "python-docs")


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_is_not_taken_for_a_panic(interrupt: type[BaseException]) -> None:
    with pytest.raises(interrupt), tokenizer_faults("it"):
        raise interrupt


@pytest.mark.parametrize("where", ["config.json", "tokenizer_config.json"])
def test_code_named_by_settings_is_not_run(where: str, tmp_path: Path) -> None:
    folder = copied("opt-mini", tmp_path)
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'executed')!r})\nclass Evil: pass\n")
    settings = json.loads((folder / where).read_text())
    map_ = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    (folder / where).write_text(json.dumps(settings | {"auto_map": map_, "tokenizer_class": "Evil", "custom_pipelines": {"x": {"impl": "evil.Evil"}}}))  # fmt: skip
    try:
        load_model(str(folder))
    except ModelError as error:
        assert "\n" not in str(error)
    assert not (tmp_path / "executed").exists()


def test_a_number_of_layers_that_no_model_has_is_refused_before_they_are_built(tmp_path: Path) -> None:
    folder = copied("opt-mini", tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    for value in (10**9, 1e300):
        (folder / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": value}))
        with pytest.raises(ModelError, match="num_hidden_layers"):
            load_model(str(folder))


def test_an_adapter_which_names_another_model_is_refused(tmp_path: Path) -> None:
    folder = copied("opt-mini", tmp_path)
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "owner/name", "peft_type": "LORA"})
    )
    with pytest.raises(ModelError, match="adapter"):
        load_model(str(folder))


# Statistics


OURS = load_statistics(CACHE / bundled.STATISTICS[1])


def forged(**changes: object) -> Statistics:
    """Statistics with a true digest of false numbers: the first two layers, some numbers replaced."""
    arrays = {
        name: getattr(OURS, name)[:2, :2, :3].copy() for name in OURS.__dataclass_fields__ if name != "provenance"
    }
    provenance = OURS.provenance | changes.pop("provenance", {})
    for name, (place, value) in changes.items():
        arrays[name][place] = value
    return Statistics(**arrays, provenance=provenance)


HERE = (1, 0, 2)
FALSE = {
    "a mean that is no number": {"mean": (HERE, np.nan)},
    "an infinite deviation": {"std": (HERE, np.inf)},
    "a negative deviation": {"std": (HERE, -1)},
    "an infinite count": {"count": (HERE, np.inf)},
    "a count that is no number": {"count": (HERE, np.nan)},
    "a negative count": {"count": (HERE, -5)},
    "another count": {"count": (HERE, 7)},
    "a range the wrong way round": {"low": (HERE, 9e9)},
    "a range without end": {"high": (HERE, np.inf)},
    "the least above the greatest": {"minimum": (HERE, 9e9)},
    "a histogram of other values": {"counts": ((1, 0, 2, 5), 10**6)},
    "a count beyond all counting": {"counts": ((1, 0, 2, 5), 2**62)},
    "a negative number of positions": {"provenance": {"tokens": -1}},
    "positions beyond all counting": {"provenance": {"tokens": 10**30}},
    "a name of a megabyte": {"provenance": {"model": "x" * 1_000_000}},
    "a seed that is a truth value": {"provenance": {"seed": True}},
}


def test_what_is_forged_here_would_be_read_if_it_were_true(tmp_path: Path) -> None:
    assert load_statistics(save_statistics(forged(), tmp_path)).mean.shape == (2, 2, 3)


@pytest.mark.parametrize("case", FALSE)
def test_impossible_numbers_with_a_true_digest_are_refused(case: str, tmp_path: Path) -> None:
    path = save_statistics(forged(**FALSE[case]), tmp_path)
    with pytest.raises(StatisticsError, match="damaged"):
        load_statistics(path)
    assert len(list_statistics(tmp_path)[0] + list_statistics(tmp_path)[1]) == 1


def test_statistics_of_another_shape_are_refused_for_a_model(opt_mini: LoadedModel, tmp_path: Path) -> None:
    path = save_statistics(forged(), tmp_path)  # it names the model's own fingerprint
    assert find_statistics(opt_mini, "python-docs", tmp_path).path == path
    with pytest.raises(StatisticsError, match="shape"):
        load_statistics(path, opt_mini)


@settings(max_examples=150, **QUIET)
@given(
    st.sampled_from([name for name in OURS.__dataclass_fields__ if name not in ("provenance", "counts")]),
    st.floats(width=32),
)
def test_whatever_is_read_can_be_drawn(tmp_path: Path, name: str, value: float) -> None:
    try:
        read = load_statistics(save_statistics(forged(**{name: (HERE, value)}), tmp_path))
    except StatisticsError:
        return
    assert np.isfinite(read.peak(100)).all() and np.isfinite(read.median()).all()
    assert head_distances(read, 100).shape == (2, 2)
    assert len(neuron_frame(read, 1, 0, 100)) == 3 and summarise_neuron(read, *HERE, 100).sentence


# Runs


RUN = {
    "model": {"ref": "opt-mini", "fingerprint": "f", "dtype": "float32"},
    "data": {"ref": "python-docs", "fingerprint": "d", "predictions": 5, "seq_len": 128, "seed": 0},
    "bins": 100,
    "statistics": {"digest": "s"},
    "whole_heads": False,
    "classes": 9,
}
_SCORES = {"loss": 1.0, "perplexity": 2.0, "top1": 0.5, "top10": 0.5}
ROW = _SCORES | {
    "method": "mean",
    "kl": 0.1,
    "change": {name: {"mean": 0.1, "low": None, "high": 0.2} for name in ("loss", "top1", "top10", "kl")},
    "p_values": {"loss": 0.1, "top1": None, "top10": 0.3},
}
RECORD = {"piece": "0.1", "baseline": _SCORES, "results": [ROW], "tested_by": "BCa interval"}


def places(document: object, here: tuple = ()) -> list[tuple]:
    """The path to every part of a document."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [here, *(place for name, part in inner for place in places(part, (*here, name)))]


def changed(document: dict, place: tuple, value: object) -> dict:
    """The document with another value in a place of it."""
    if not place:
        return value
    copy = json.loads(json.dumps(document))
    inner = copy
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return copy


@settings(max_examples=400, **QUIET)
@given(st.data())
def test_a_run_with_one_wrong_field_is_drawn_or_passed_over(tmp_path: Path, data: st.DataObject) -> None:
    odd = st.sampled_from([None, True, -1, 0, 1.5, "x", "", [], {}, [1], {"a": 1}, 10**30, "seed 1, 50 %", "random 1"])
    run = changed(RUN, data.draw(st.sampled_from(places(RUN))), data.draw(odd)) if data.draw(st.booleans()) else RUN
    unit = RECORD | {"piece": data.draw(st.sampled_from(["0.1", "seed 1, 50 %"]))}
    record = changed(unit, data.draw(st.sampled_from(places(unit))), data.draw(odd))
    (tmp_path / "runs").mkdir(exist_ok=True)
    for kind in ("sweep", "curve"):
        header = {"kind": kind, "version": VERSION, "run": run}
        lines = [
            json.dumps(header),
            json.dumps({"piece": "one", "record": record}),
            json.dumps({"piece": "two", "record": unit}),
        ]
        (tmp_path / "runs" / f"{kind}-0.jsonl").write_text("\n".join([*lines, ""]))
    for result in (*kept_sweeps(FakeModel(), tmp_path).values(), *kept_curves(FakeModel(), tmp_path).values()):
        result.to_dict()
        assert isinstance(differences(result.description, RUN), str)
        assert result.description["data"]["predictions"] + result.description["bins"] is not None
    if run is RUN:  # the other piece is whole
        assert kept_sweeps(FakeModel(), tmp_path)


LINES = st.one_of(
    st.binary(max_size=40),
    st.recursive(
        st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from(["piece", "record", "results", "baseline", "method", "version", "run", "kind"]), inner, max_size=4),
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
    st.just(b"[" * 5_000),
)  # fmt: skip


@settings(max_examples=200, **QUIET)
@given(st.lists(LINES, max_size=4), st.booleans())
def test_any_file_of_a_run_is_read_or_passed_over(tmp_path: Path, lines: list[bytes], headed: bool) -> None:
    (tmp_path / "runs").mkdir(exist_ok=True)
    header = [json.dumps({"kind": "sweep", "version": VERSION, "run": RUN}).encode()] if headed else []
    for kind in ("sweep", "curve"):
        (tmp_path / "runs" / f"{kind}-0.jsonl").write_bytes(b"\n".join([*header, *lines, b""]))
        for run in find_runs(tmp_path, kind, "f"):
            assert isinstance(run.run, dict) and run.done
    model = FakeModel()
    for result in kept_sweeps(model, tmp_path).values():
        assert result.to_dict()["heads"] is not None and result.floor("mean", "loss") is None
    for result in kept_curves(model, tmp_path).values():
        result.to_dict()


class FakeModel:
    fingerprint, shape = "f", ModelShape((2, 2), 3)


@settings(max_examples=300, **QUIET)
@given(st.text(max_size=60))
def test_a_quoted_text_is_not_markdown(text: str) -> None:
    escaped = as_markdown(text)
    for letter in "*_[]`$<>~|":
        assert escaped.count("\\" + letter) >= text.count(letter)
    assert escaped.replace("\\", "") == text.replace("\\", "")
