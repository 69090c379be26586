"""Uploads: what is kept, and the sentence that every hostile or unfit file gets, with nothing left behind."""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ablation_core.bundled import fashion_mnist
from ablation_core.data import image_zips, uploads
from ablation_core.data.load import load_data
from ablation_core.data.references import read_text
from ablation_core.data.uploads import delete_upload, keep_upload, list_uploads, reference, references
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel
from tests.conftest import UNUSABLE_TEXT


def picture(shade: int = 0, size: tuple[int, int] = (28, 28), form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(shade).integers(0, 255, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def two(names: tuple[str, str] = ("Dress/1.png", "Dress/2.png")) -> dict[str, bytes]:
    return {name: picture(number) for number, name in enumerate(names)}


def link_to(target: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("Dress/1.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, target)
        archive.writestr("Dress/2.png", picture())
    return buffer.getvalue()


def encrypted() -> bytes:
    """An ordinary zip whose flags say that its members are encrypted."""
    content = bytearray(zipped(two()))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(signature)
        while place >= 0:
            content[place + offset] |= 1
            place = content.find(signature, place + 1)
    return bytes(content)


def huge_png(width: int, height: int) -> bytes:
    """A PNG whose header declares so many pixels; its data is a stub."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def lying_about_size() -> bytes:
    """A member that unpacks to more than its headers declare."""
    content = bytearray(zipped({"Dress/1.png": picture() + b"\0" * 3_000_000, "Dress/2.png": picture()}))
    real = struct.pack("<I", len(picture()) + 3_000_000)
    assert content.count(real) >= 2
    return bytes(content.replace(real, struct.pack("<I", 1000)))


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {  # made where they are asked for: some are large
    "../ in a name": (lambda: zipped(two(("../../evil.png", "Dress/1.png"))), "leads out"),
    ".. as the class": (lambda: zipped(two(("../1.png", "../2.png"))), "leads out"),
    "an absolute path": (lambda: zipped(two(("/etc/1.png", "/etc/2.png"))), "leads out"),
    "a drive": (lambda: zipped(two(("C:/x/1.png", "C:/x/2.png"))), "leads out"),
    "backslashes": (lambda: zipped(two(("..\\..\\1.png", "a\\2.png"))), "leads out"),
    "a NUL for a name": (lambda: zipped(two()).replace(b"Dress/1.png", b"\0ress/1.png"), "leads out"),
    "a NUL in a name": (lambda: zipped(two()).replace(b"Dress/1.png", b"Dress/1\0png"), "leads out"),
    "a link": (lambda: link_to("/etc/passwd"), "a link"),
    "encrypted": (encrypted, "encrypted"),
    "a zip in a zip": (lambda: zipped({"Dress/1.zip": zipped(two()), "Dress/2.png": picture()}), "no image"),
    "a program": (lambda: zipped({"Dress/1.exe": b"MZ", "Dress/2.png": picture()}), "no image"),
    "a text called png": (lambda: zipped({"Dress/1.png": b"hello", "Dress/2.png": picture()}), "not an image"),
    "a zip called png": (lambda: zipped({"Dress/1.png": zipped(two()), "Dress/2.png": picture()}), "not an image"),
    "a truncated image": (lambda: zipped({"Dress/1.png": picture()[:200], "Dress/2.png": picture()}), "damaged"),
    "400 million pixels": (lambda: zipped({"Dress/1.png": huge_png(20_000, 20_000), "Dress/2.png": picture()}), "pixels"),
    "36 million pixels": (lambda: zipped({"Dress/1.png": huge_png(6_000, 6_000), "Dress/2.png": picture()}), "pixels"),
    "a bomb": (lambda: zipped({"Dress/1.png": b"\0" * 20_000_000, "Dress/2.png": picture()}), "times its size"),
    "a large member": (lambda: zipped({"Dress/1.png": b"\0" * 30_000_000, "Dress/2.png": picture()}), "larger than 25 MB"),
    "lying sizes": (lying_about_size, "cannot be unpacked"),
    "cut short": (lambda: zipped(two())[:-40], "cannot be unpacked"),
    "no archive at all": (lambda: b"PK\x03\x04 and then nothing", "cannot be unpacked"),
    "an unusual packing": (lambda: zipped(two(), zipfile.ZIP_LZMA), "unusual"),
    "no files": (lambda: zipped({}), "no files"),
    "only folders": (lambda: zipped({"Dress/": b""}), "no files"),
    "no class folders": (lambda: zipped(two(("1.png", "2.png"))), "one folder for each class"),
    "too deep": (lambda: zipped(two(("a/b/c/1.png", "a/b/c/2.png"))), "one folder for each class"),
    "two roots": (lambda: zipped(two(("a/Dress/1.png", "b/Dress/2.png"))), "one folder for each class"),
    "one image a class": (lambda: zipped(two(("Dress/1.png", "Coat/2.png"))), "one image a class"),
    "classes that differ in case": (lambda: zipped(two(("Dress/1.png", "dress/2.png")) | two(("Dress/3.png", "dress/4.png"))), "upper and lower"),
    "a hidden class": (lambda: zipped(two((".git/1.png", ".git/2.png"))), "cannot be a class"),
    "too many files": (lambda: zipped({f"Dress/{n}.png": b"" for n in range(image_zips.MAX_FILES + 1)}), "more than 10,000 files"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_zip_gets_a_sentence_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    make, words = HOSTILE[case]
    content = make()
    outside = sorted(tmp_path.parent.iterdir())
    with pytest.raises(DataError, match=words) as caught:
        keep_upload("images.zip", content, tmp_path / "cache")
    assert str(caught.value).endswith((".", "?")) and "\n" not in str(caught.value)
    assert "0x" not in str(caught.value), "no address of an object"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not list((tmp_path / "cache" / "uploads").iterdir())
    assert sorted(tmp_path.parent.iterdir()) == outside


@pytest.mark.parametrize(("content", "words"), UNUSABLE_TEXT[:4])
def test_an_unusable_text_gets_a_sentence_and_leaves_nothing(content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        keep_upload("notes.txt", content, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="larger than 50 MB"):
        keep_upload("notes.txt", b"a" * (uploads.MAX_BYTES + 1), tmp_path)
    monkeypatch.setattr(image_zips, "MAX_UNPACKED_BYTES", 500)
    with pytest.raises(DataError, match="unpacks to more"):
        keep_upload("images.zip", zipped(two()), tmp_path)
    monkeypatch.setattr(uploads, "MAX_KEPT_BYTES", 9)
    with pytest.raises(DataError, match="delete one first"):
        keep_upload("notes.txt", b"some words", tmp_path)


def test_many_large_images_are_refused_before_all_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_zips, "MAX_PIXELS_TOGETHER", 28 * 28 * 2)
    with pytest.raises(DataError, match="too many pixels together"):
        keep_upload("images.zip", zipped(two() | two(("Coat/1.png", "Coat/2.png"))), tmp_path)


def test_a_text_is_kept_once_and_read_as_data(tmp_path: Path) -> None:
    content = "first line\nsecond line: é\n".encode()
    kept = keep_upload("my notes.txt", content, tmp_path)
    assert (kept.kind, kept.name, kept.files) == ("text", "my notes.txt", 1)
    assert keep_upload("another name.txt", content, tmp_path) == kept
    ref = reference(kept, tmp_path)
    assert "".join(read_text(ref, "evaluation")) + "".join(read_text(ref, "statistics")) == content.decode()
    assert references("text", tmp_path) == (ref,) and references("images", tmp_path) == ()
    delete_upload(kept.digest, tmp_path)
    assert list_uploads(tmp_path) == []
    with pytest.raises(DataError, match="no upload"):
        delete_upload(kept.digest, tmp_path)


@pytest.mark.parametrize("digest", ["..", ".", "", "../../etc", "0" * 15, "G" * 16, "0" * 16 + "/.."])
def test_only_uploads_are_deleted(digest: str, tmp_path: Path) -> None:
    kept = keep_upload("notes.txt", b"some words", tmp_path)
    with pytest.raises(DataError, match="no upload"):
        delete_upload(digest, tmp_path)
    assert list_uploads(tmp_path) == [kept]


def test_images_are_kept_by_class_and_evaluated(tmp_path: Path, vit_mini: LoadedModel) -> None:
    images, labels = fashion_mnist.sample()
    files = {}
    for number, (image, label) in enumerate(zip(images[:40], labels[:40], strict=True)):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        files[f"set/{fashion_mnist.CLASSES[label].replace('/', '_')}/{number}.png"] = buffer.getvalue()
    files["__MACOSX/set/._x"] = files["set/.DS_Store"] = b"junk of another system"
    kept = keep_upload("clothes.zip", zipped(files), tmp_path)
    assert (kept.kind, kept.files) == ("images", 40)
    counted = 0
    for split in ("evaluation", "statistics"):
        data = load_data(reference(kept, tmp_path), vit_mini, predictions=100, split=split)
        counted += data.predictions
        for batch in data:
            assert set(batch.targets.tolist()) <= set(labels[:40].tolist())
    assert counted == 40


def test_references_are_relative_where_they_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep_upload("notes.txt", b"some words", tmp_path / "cached_stats")
    monkeypatch.chdir(tmp_path)
    assert reference(kept, tmp_path / "cached_stats") == f"text:cached_stats/uploads/{kept.digest}/text.txt"


def test_a_damaged_note_hides_the_upload_and_a_new_upload_mends_it(tmp_path: Path) -> None:
    kept = keep_upload("notes.txt", b"some words", tmp_path)
    (tmp_path / "uploads" / kept.digest / "upload.json").write_text("{")
    assert list_uploads(tmp_path) == []
    assert keep_upload("notes.txt", b"some words", tmp_path) == kept == list_uploads(tmp_path)[0]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=4), title=st.text(max_size=30))
def test_no_name_leads_out_of_the_folder(names: list[str], title: str, tmp_path: Path) -> None:
    """Whatever the archive's names are: kept inside the upload's folder, or refused with a sentence."""
    cache = tmp_path / "cache"
    before = {path for path in tmp_path.rglob("*") if cache not in path.parents and path != cache}
    try:
        content = zipped({f"{name}.png": picture(number) for number, name in enumerate(names)})
    except (UnicodeEncodeError, ValueError, IndexError):
        return  # no zip can be made with such a name
    try:
        kept = keep_upload(f"{title}.zip", content, cache)
    except DataError as error:
        assert str(error)
    else:
        inside = (cache / "uploads" / kept.digest).resolve()
        assert all(path.resolve().is_relative_to(inside) for path in inside.rglob("*"))
        delete_upload(kept.digest, cache)
    assert {path for path in tmp_path.rglob("*") if cache not in path.parents and path != cache} == before
    assert not list((cache / "uploads").iterdir())


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet", "jsonl.gz"])
def test_records_are_kept_with_the_column_of_their_texts(tmp_path: Path, opt_mini: LoadedModel, kind: str) -> None:
    texts = [f"Row {number} has some words to predict, and more of them. " * 3 for number in range(30)]
    frame = pandas.DataFrame({"id": range(30), "title": [f"no {n}" for n in range(30)], "body": texts})
    buffer = io.BytesIO()
    if kind == "parquet":
        frame.to_parquet(buffer)
    elif kind.startswith("jsonl"):
        frame.to_json(buffer, orient="records", lines=True, compression="gzip" if kind.endswith("gz") else None)
    else:
        frame.to_csv(buffer, index=False, sep="\t" if kind == "tsv" else ",")
    upload = keep_upload(f"notes.{kind}", buffer.getvalue(), tmp_path)
    assert (upload.kind, upload.column) == ({"tsv": "csv", "jsonl.gz": "jsonl"}.get(kind, kind), "body")
    assert list_uploads(tmp_path) == [upload]
    ref = reference(upload, tmp_path)
    assert references("text", tmp_path) == (ref,) and references("images", tmp_path) == ()
    wanted = load_data(texts, opt_mini, predictions=60, seq_len=32, split="evaluation")
    assert load_data(ref, opt_mini, predictions=60, seq_len=32).fingerprint == wanted.fingerprint


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"n": 1}\n{"n": 2}\n', "no column of texts"),
        ("a.jsonl", b'{"n": 1\n', "Line 1 of a.jsonl is not JSON"),
        ("a.csv", b"", "empty"),
        ("a.parquet", b"PAR1 and no more", "a.parquet cannot be read"),
        ("a.txt", b'{"text": "a"}\n{"text": "b"}\n', "a.txt looks like JSON Lines"),
    ],
)
def test_records_that_cannot_be_used_leave_nothing(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        keep_upload(name, content, tmp_path)
    assert list_uploads(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", b"One sentence, and another one.", "a text"),
        ("notes.csv", b"id,body\n1,One sentence.\n2,Another one.\n", "the texts in column body"),
        ("wear.zip", zipped(two()), "2 images"),
    ],
)
def test_what_was_uploaded_is_said_as_what_it_is(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    assert uploads.contents(keep_upload(name, content, tmp_path)) == words
