"""Saved results come back as what they were; what cannot be read is said and stays; exports and imports lose nothing."""

import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from ablation_core import (
    ablate,
    compare,
    compare_results,
    curve,
    describe_head,
    estimate,
    interact,
    load_data,
    load_result,
    noise_floor,
    position_map,
    save_result,
    sweep,
)
from ablation_core.data.dataset import Data
from ablation_core.errors import ReportError
from ablation_core.experiments.results import AblationResult
from ablation_core.models.loaded import LoadedModel
from ablation_core.presentation import Presented
from ablation_core.saved.archive import HEADER, KINDS, pack, unpack
from ablation_core.saved.results import (
    delete,
    entries,
    export_results,
    find,
    import_results,
    keep,
)
from ablation_core.saved.shelves import FolderShelf, SessionShelf, file_of


@pytest.fixture(scope="module")
def data(opt_mini: LoadedModel) -> Data:
    return load_data("python-docs", opt_mini, predictions=150, seq_len=32)


@pytest.fixture(scope="module")
def results(opt_mini: LoadedModel, data: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Presented]:
    """One of each kind."""
    kept = {"cache": tmp_path_factory.mktemp("runs")}
    code = load_data("python-code", opt_mini, predictions=150, seq_len=32)
    made = [
        ablate(opt_mini, data, "5.2", ["zero", "mean"], statistics="python-docs"),
        sweep(opt_mini, data, "zero", heads="5.0 5.1", random_sets=1, **kept),
        sweep(opt_mini, data, "zero", heads="5.0 5.1", adaptive=True, **kept),
        position_map(opt_mini, data, "zero", select="5.0", positions="3-4", **kept),
        curve(opt_mini, data, "zero", seeds=[1, 2], percents=[0, 50], **kept),
        estimate(opt_mini, data, "zero", passes=1),
        interact(opt_mini, data, "5.0 5.1", "zero"),
        compare(opt_mini, [data, code], "zero", heads="5.0", **kept),
        describe_head(opt_mini, data, "5.2", ["zero"]),
        noise_floor(opt_mini, data, "5.2", statistics="python-docs"),
    ]
    return {type(result).__name__: result for result in made}


def same(one: Any, other: Any) -> bool:
    """Equal all the way down, arrays and NaN too; a tuple within a plain dictionary comes back as a list."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and all(
            same(getattr(one, part.name), getattr(other, part.name)) for part in dataclasses.fields(one)
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other or (one != one and other != other)


def test_every_kind_comes_back_as_it_was(results: dict[str, Presented], tmp_path: Path) -> None:
    assert set(results) == set(KINDS)
    for kind, result in results.items():
        save_result(result, f"my {kind}", cache=tmp_path)
        found = load_result(f"my {kind}", cache=tmp_path)
        assert same(result, found), kind
        for table in (
            (None, "predictions") if kind in ("AblationResult", "InteractionResult", "HeadDescription") else (None,)
        ):
            pd.testing.assert_frame_equal(result.to_frame(table), found.to_frame(table))
        if hasattr(result, "to_dict"):
            assert json.dumps(result.to_dict()) == json.dumps(found.to_dict())
    listed, problems = entries(FolderShelf(tmp_path))
    assert {one.kind for one in listed} == set(KINDS) and not problems
    assert {one.model for one in listed} == {"opt-mini", ""}, "a noise floor does not say of what it is"


def test_the_file_is_plain_json_and_arrays(results: dict[str, Presented], tmp_path: Path) -> None:
    path = save_result(results["AblationResult"], "plain", note="mine", cache=tmp_path)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["result.json", "arrays.safetensors"]
        document = json.loads(archive.read("result.json"))
    assert (document["name"], document["note"], document["model"]) == ("plain", "mine", "opt-mini")
    loss = document["result"]["results"][0]["change"]["loss"]
    assert loss == results["AblationResult"].to_dict()["results"][0]["change"]["loss"]


def test_numbers_that_are_none_come_back(results: dict[str, Presented], tmp_path: Path) -> None:
    result = results["AblationResult"]
    broken = dataclasses.replace(
        result, baseline=dataclasses.replace(result.baseline, means={"loss": float("inf"), "top1": float("nan")})
    )
    save_result(broken, "broken", cache=tmp_path)
    found = load_result("broken", cache=tmp_path)
    assert found.baseline.means["loss"] == float("inf") and np.isnan(found.baseline.means["top1"])


def test_names(results: dict[str, Presented], tmp_path: Path) -> None:
    floor = results["NoiseFloor"]
    names = ["a/b", "a-b", "../../x", "ä", "Ä", "a b", "con", ".hidden", "x" * 80]
    for name in names:
        path = save_result(floor, name, cache=tmp_path)
        assert path.parent == tmp_path / "saved"
    assert {one.name for one in entries(FolderShelf(tmp_path))[0]} == set(names)
    for name in ("", "  ", "x" * 81, "a\nb"):
        with pytest.raises(ReportError, match="1 to 80 printable"):
            save_result(floor, name, cache=tmp_path)
    with pytest.raises(ReportError, match="already a saved result named 'ä'"):
        save_result(floor, " ä ", cache=tmp_path)
    save_result(dataclasses.replace(floor, sets=3), "ä", cache=tmp_path, replace=True)
    assert load_result("ä", cache=tmp_path).sets == 3
    delete(FolderShelf(tmp_path), "ä")
    with pytest.raises(ReportError, match="no saved result named"):
        load_result("ä", cache=tmp_path)
    with pytest.raises(ReportError, match="is not a result that can be saved"):
        save_result({"loss": 1.0}, "x", cache=tmp_path)  # type: ignore[arg-type]


def test_another_models_result_is_refused(
    results: dict[str, Presented], opt_mini: LoadedModel, vit_mini: LoadedModel, tmp_path: Path
) -> None:
    save_result(results["AblationResult"], "mine", cache=tmp_path)
    assert load_result("mine", cache=tmp_path, model=opt_mini)
    with pytest.raises(ReportError, match="is of another model"):
        load_result("mine", cache=tmp_path, model=vit_mini)


def changed(path: Path, change: Any) -> bytes:
    """The file with its document changed."""
    made = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "result.json":
                document = json.loads(content)
                change(document)
                content = json.dumps(document).encode()
            new.writestr(name, content)
    return made.getvalue()


DAMAGE = {
    "version 2, and this program reads version 1": lambda document: document.update(version=2),
    "not a saved result of this project": lambda document: document.update(format="x"),
    "does not say what it is": lambda document: document.update(note=7),
    "is a Unheard, which": lambda document: document.update(kind="Unheard"),
    "lacks the field result.seed": lambda document: document["result"].pop("seed"),
    "field result.os is not known": lambda document: document["result"].update(os="system"),
    "field result.neurons holds 'many'": lambda document: document["result"].update(neurons="many"),
    "result.results.0..change.loss.mean holds 'True'": lambda document: document["result"]["results"][0]["change"][
        "loss"
    ].update(mean=True),
    "names an array that is not there": lambda document: document["result"]["predictions"]["sequence"].update(
        array="99"
    ),
    "does not fit together": lambda document: document["result"].update(positions="nowhere"),
}


@pytest.mark.parametrize("words", DAMAGE)
def test_what_cannot_be_read_is_said_and_stays(words: str, results: dict[str, Presented], tmp_path: Path) -> None:
    path = save_result(results["AblationResult"], "mine", cache=tmp_path)
    save_result(results["NoiseFloor"], "other", cache=tmp_path)
    path.write_bytes(changed(path, DAMAGE[words]))
    before = path.read_bytes()
    with pytest.raises(ReportError, match=words):
        load_result("mine", cache=tmp_path)
    listed, problems = entries(FolderShelf(tmp_path))
    assert len(listed) + len(problems) == 2 and path.read_bytes() == before
    with pytest.raises(ReportError, match="Nothing was imported"):
        import_results(SessionShelf(), before)


def test_cut_short_or_anything_else(results: dict[str, Presented], tmp_path: Path) -> None:
    path = save_result(results["AblationResult"], "mine", cache=tmp_path)
    whole = path.read_bytes()
    middle = bytearray(whole)
    middle[len(whole) // 2] ^= 255
    for content in (b"", b"PK", whole[:-30], whole[:200], bytes(middle), b"\x80\x04K\x01.", json.dumps({}).encode()):
        path.write_bytes(content)
        with pytest.raises(ReportError, match=r"cannot be read: .* It was left where it is"):
            load_result("mine", cache=tmp_path)
        assert entries(FolderShelf(tmp_path)) and path.read_bytes() == content
        with pytest.raises(ReportError, match=r"[Nn]othing was imported"):
            import_results(SessionShelf(), content)


def test_what_is_no_result_and_no_name_is_said(results: dict[str, Presented], tmp_path: Path) -> None:
    calls = {
        "This is an int, not a result": lambda: compare_results(1, 2),
        "name is a text, not an int": lambda: load_result(5, cache=tmp_path),
        "A saved result's name is a text": lambda: save_result(results["NoiseFloor"], None, cache=tmp_path),
        "1 to 80 printable": lambda: load_result("", cache=tmp_path),
    }
    for words, call in calls.items():
        with pytest.raises(ReportError, match=words):
            call()


def test_an_export_is_imported_whole_or_not_at_all(results: dict[str, Presented], tmp_path: Path) -> None:
    mine, theirs = FolderShelf(tmp_path), SessionShelf()
    for name in ("one", "two", "three"):
        keep(mine, results["NoiseFloor"], name)
    exported = export_results(mine)
    for end in range(0, len(exported), 61):  # each result inside is an archive with an end of its own
        with pytest.raises(ReportError, match=r"[Nn]othing was imported"):
            import_results(theirs, exported[:end])
    damaged = io.BytesIO()
    with zipfile.ZipFile(damaged, "w") as archive:
        archive.writestr("a.result.zip", mine.read(file_of("one")))
        entry = unpack(mine.read(file_of("two"))).entry
        header = {part: getattr(entry, part) for part in HEADER} | {"name": "x" * 300}
        archive.writestr("b.result.zip", pack(header, results["NoiseFloor"]))
    with pytest.raises(ReportError, match="1 to 80 printable characters"):
        import_results(theirs, damaged.getvalue())
    assert theirs.files() == []


def test_exports_come_back_and_nothing_gives_way(results: dict[str, Presented], tmp_path: Path) -> None:
    mine, theirs = FolderShelf(tmp_path / "a"), SessionShelf()
    keep(mine, results["AblationResult"], "one", page={"path": "pages/ablate.py", "params": {"select": "5.2"}})
    keep(mine, results["NoiseFloor"], "two")
    exported = export_results(mine)
    assert set(import_results(theirs, exported)) == {"one", "two"}
    assert same(find(theirs, "one").result, results["AblationResult"]) and find(theirs, "one").entry.page["params"]
    assert set(import_results(theirs, exported)) == {"one", "two"} and len(theirs.files()) == 2, (
        "they are there already"
    )
    other = FolderShelf(tmp_path / "b")
    keep(other, dataclasses.replace(results["NoiseFloor"], sets=1), "two")
    assert import_results(theirs, export_results(other, ["two"])) == ["two (2)"]
    assert find(theirs, "two").result.sets != 1 and find(theirs, "two (2)").result.sets == 1
    assert import_results(SessionShelf(), theirs.read(file_of("one"))) == ["one"], "a single file too"
    with pytest.raises(ReportError, match="keeps at most 0 MB"):
        import_results(SessionShelf(most=10), exported)
    with pytest.raises(ReportError, match="nothing to export"):
        export_results(SessionShelf())


def test_differences_of_two_are_paired_on_the_same_predictions(
    opt_mini: LoadedModel, data: Data, results: dict[str, Presented], tmp_path: Path
) -> None:
    first = results["AblationResult"]
    second = ablate(opt_mini, data, "5.0", ["zero", "mean"], statistics="python-docs")
    save_result(first, "5.2", cache=tmp_path)
    found = compare_results(load_result("5.2", cache=tmp_path), second, ("5.2", "5.0"))
    frames = [one.to_frame("predictions") for one in (first, second)]
    for row in found.rows:
        one, other = (f[f["method"] == row.what]["change of loss"].to_numpy() for f in frames)
        assert row.paired and row.difference.mean == pytest.approx((other - one).mean())
        assert row.difference.low < row.difference.mean < row.difference.high
        wide = row.difference.high - row.difference.low
        apart = np.hypot(*(part.high - part.low for part in (row.first, row.second)))
        assert wide < 1.05 * apart
    elsewhere = ablate(opt_mini, load_data("python-code", opt_mini, 160, 32), "5.2", "zero")
    (row,) = compare_results(first, elsewhere).rows
    assert not row.paired and row.difference.low is not None
    assert "not on the same predictions" in compare_results(first, elsewhere).notes[0]
    means = dataclasses.replace(second, predictions=None)
    found = compare_results(first, means)
    assert all(row.difference.low is None for row in found.rows) and "means alone" in found.notes[-1]
    assert isinstance(first, AblationResult) and found.to_frame()["difference (mean)"].notna().all()
    with pytest.raises(ReportError, match="no figures in common"):
        compare_results(first, results["CurveResult"])


def test_curves_are_paired_over_seeds(results: dict[str, Presented]) -> None:
    first = results["CurveResult"]
    points = {
        key: {method: row | {"loss": row["loss"] + 0.1 * key[0]} for method, row in rows.items()}
        for key, rows in first.points.items()
    }
    found = compare_results(first, dataclasses.replace(first, points=points))
    assert {row.what for row in found.rows} == {"0 % by zero", "50 % by zero"}
    for row in found.rows:
        assert row.paired and row.difference.mean == pytest.approx(0.15)
        assert row.difference.low == pytest.approx(0.15 - 12.7062 * 0.0707107 / 2**0.5, abs=1e-4)  # t of one degree


def test_each_kind_has_figures_and_shows_its_differences(results: dict[str, Presented]) -> None:
    for kind, result in results.items():
        found = compare_results(result, result)
        assert found.rows and all(row.difference.mean == 0 or np.isnan(row.difference.mean) for row in found.rows), kind
        assert found.chart().to_dict() and "minus" in found._repr_html_()


def test_curves_of_models_of_another_shape_are_not_paired(results: dict[str, Presented]) -> None:
    first = results["CurveResult"]
    described = first.description | {"model": first.description["model"] | {"heads": 12}}
    found = compare_results(first, dataclasses.replace(first, description=described))
    assert found.rows and not any(row.paired or row.difference.low is not None for row in found.rows)


def test_results_on_a_task_are_compared_by_what_the_task_is_measured_by(opt_mini: LoadedModel, tmp_path: Path) -> None:
    data = load_data("task:induction", opt_mini, predictions=8)
    first, second = (ablate(opt_mini, data, head, "zero") for head in ("3.3", "5.1"))
    (row,) = compare_results(first, second).rows
    one, other = (result.results[0].change["logit_difference"].mean for result in (first, second))
    assert row.paired and row.difference.mean == pytest.approx(other - one) and row.first.mean == pytest.approx(one)
    text = ablate(opt_mini, load_data("python-docs", opt_mini, predictions=150, seq_len=32), "5.1", "zero")
    with pytest.raises(ReportError, match=r"logit difference.*cannot be compared"):
        compare_results(first, text)


def test_interactions_from_before_there_was_a_choice_of_metric_are_of_the_loss(
    results: dict[str, Presented], tmp_path: Path
) -> None:
    path = save_result(results["InteractionResult"], "old", cache=tmp_path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(parts["result.json"])
    del document["result"]["metric"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (parts | {"result.json": json.dumps(document).encode()}).items():
            archive.writestr(name, content)
    assert load_result("old", cache=tmp_path).metric == "loss"


@pytest.mark.parametrize("kind", ["ablation", "interactions", "sweep"])
def test_figures_of_single_predictions_that_do_not_fit_are_refused(
    opt_mini: LoadedModel, tmp_path: Path, kind: str
) -> None:
    """One of the arrays loses its last number; the file's own form is still right."""
    data = load_data("python-docs", opt_mini, predictions=30, seq_len=16)
    if kind == "ablation":
        result = ablate(opt_mini, data, "5.1", "zero")
    elif kind == "interactions":
        result = interact(opt_mini, data, "5.0 5.1", "zero")
    else:
        result = sweep(opt_mini, data, "zero", heads="5.1", random_sets=0, cache=tmp_path, keep_predictions=True)
    path = save_result(result, "whole", cache=tmp_path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    arrays = safetensors.numpy.load(parts["arrays.safetensors"])
    floats = next(name for name, array in arrays.items() if array.dtype.kind == "f")
    arrays[floats] = arrays[floats][:-1].copy()
    parts["arrays.safetensors"] = safetensors.numpy.save(arrays)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(ReportError, match="not all of the same predictions"):
        load_result("whole", cache=tmp_path)
