"""The changes of single predictions in long runs, against each unit's own ablation, kept beside the ledger and found again."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ablation_core import ablate, compare_results, curve, load_data, load_result, position_map, save_result, sweep
from ablation_core.__main__ import main
from ablation_core.cluster.worker import Order, Worker, assignment
from ablation_core.data.dataset import Data
from ablation_core.errors import DataError, ReportError
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.runs.backends import Task
from ablation_core.runs.kept.prediction_files import PLACES
from ablation_core.runs.pruning import kept_curves, pruned
from ablation_core.runs.sweep_result import SweepResult, kept_sweeps
from ablation_core.runs.units import WorkUnit
from ablation_core.saved import archive
from ablation_core.saved.results import export_results, import_results
from ablation_core.saved.shelves import FolderShelf
from ablation_core.selection import Selection
from ablation_core.stats.intervals import mean_intervals

HEADS, METHOD_NAMES = "5.0 4.3", ["zero", "resample-dataset"]


@pytest.fixture(scope="module")
def data(opt_mini: LoadedModel) -> Data:
    return load_data("python-docs", opt_mini, predictions=90, seq_len=16)


def swept(model: LoadedModel, data: Data, folder: Path, **settings) -> SweepResult:
    return sweep(model, data, METHOD_NAMES, heads=HEADS, random_sets=1, cache=folder, **settings)


def check_against_single_ablations(model: LoadedModel, data: Data, result: SweepResult) -> pd.DataFrame:
    frame = result.to_frame("predictions")
    assert len(frame) == 2 * 2 * data.predictions
    for (head, method), mine in frame.groupby(["head", "method"]):
        alone = (
            ablate(model, data, head, METHOD_NAMES, positions=result.positions)
            .to_frame("predictions")
            .query("method == @method")
        )
        for column in mine.columns.drop(["head", "method"]):
            np.testing.assert_allclose(mine[column], alone[column], atol=1e-6)
        for metric in ("loss", *(["logit_difference"] if data.is_task else [])):
            change = result.changes(method, metric)[head]
            assert mine[f"change of {metric}"].mean() == pytest.approx(change, abs=1e-6)
    return frame


def test_each_prediction_is_as_the_head_alone_changes_it(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    result = swept(opt_mini, data, tmp_path, keep_predictions=True)
    frame = check_against_single_ablations(opt_mini, data, result)
    assert list(frame) == ["head", "method", "sequence", "position", "target", "change of loss"]
    save_result(result, "with predictions", cache=tmp_path)
    elsewhere = FolderShelf(tmp_path / "elsewhere")
    import_results(elsewhere, export_results(FolderShelf(tmp_path)))
    (found,) = kept_sweeps(opt_mini, tmp_path).values()
    assert set(found.to_frame("predictions")["head"]) == {"4.3", "5.0"}, "a map's other heads are not measured"
    for folder in (tmp_path, elsewhere.cache):
        pd.testing.assert_frame_equal(load_result("with predictions", cache=folder).to_frame("predictions"), frame)


def test_two_sweeps_that_kept_them_are_compared_by_prediction(
    opt_mini: LoadedModel, data: Data, tmp_path: Path
) -> None:
    one, other = (
        swept(opt_mini, data, tmp_path, keep_predictions=True, positions=positions) for positions in ("all", "3-")
    )
    rows = {row.what: row for row in compare_results(one, other).rows}
    alone = [
        ablate(opt_mini, data, "5.0", "zero", positions=positions).to_frame("predictions").query("method == 'zero'")
        for positions in ("all", "3-")
    ]
    paired = (alone[1]["change of loss"] - alone[0]["change of loss"]).to_numpy()
    (expected,) = mean_intervals(paired[None], alone[0]["sequence"].to_numpy(), seed=0)
    found = rows["5.0, zero"]
    assert found.paired
    np.testing.assert_allclose(
        [found.difference.mean, found.difference.low, found.difference.high],
        [expected.mean, expected.low, expected.high],
        atol=1e-6,
    )


def test_prompts_in_groups_with_answers_of_several_tokens(opt_mini: LoadedModel, tmp_path: Path) -> None:
    asked = [
        {"prompt": f"The {word} returns", "right": " the value of it", "wrong": " None", "group": word[0]}
        for word in ("function", "field", "method", "module", "name", "number")
    ]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    task = load_data(f"pairs:{tmp_path / 'asked.jsonl'}", opt_mini)
    frame = check_against_single_ablations(
        opt_mini, task, swept(opt_mini, task, tmp_path, keep_predictions=True, positions="last")
    )
    one = frame[(frame["head"] == "5.0") & (frame["method"] == "zero")]
    assert one["sequence"].tolist() == [0, 1, 2, 3] and one["group"].tolist() == [0, 0, 1, 1], "every other group"


def test_what_is_missing_is_measured_again_and_the_ledger_stays(
    opt_mini: LoadedModel, data: Data, tmp_path: Path
) -> None:
    plain = swept(opt_mini, data, tmp_path)
    with pytest.raises(ReportError, match="keep_predictions=True"):
        plain.to_frame("predictions")
    (ledger,) = tmp_path.glob("runs/*.jsonl")
    before, folder = ledger.read_bytes(), ledger.with_suffix(".predictions")
    frame = swept(opt_mini, data, tmp_path, keep_predictions=True).to_frame("predictions")
    assert ledger.read_bytes() == before
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(files) == {"places.safetensors", "5.0.safetensors", "4.3.safetensors"}
    damaged, other = folder / "5.0.safetensors", (folder / "4.3.safetensors").stat().st_mtime_ns
    for content in (files[damaged.name][:-1] + b"x", files[damaged.name][:40], b"", files["4.3.safetensors"]):
        damaged.write_bytes(content)
        with pytest.raises(ReportError, match=r"head 5\.0 by zero were not kept, or their file is damaged"):
            swept(opt_mini, data, tmp_path).to_frame("predictions")
    again = swept(opt_mini, data, tmp_path, keep_predictions=True).to_frame("predictions")
    pd.testing.assert_frame_equal(again, frame)
    assert ledger.read_bytes() == before and (folder / "4.3.safetensors").stat().st_mtime_ns == other
    more = sweep(
        opt_mini, data, ["zero", "mean"], statistics="python-docs", heads=HEADS, random_sets=1, cache=tmp_path,
        keep_predictions=True,
    )  # fmt: skip
    pd.testing.assert_frame_equal(more.to_frame("predictions").query("method == 'zero'").reset_index(drop=True),
                                  frame.query("method == 'zero'").reset_index(drop=True))  # fmt: skip
    assert ledger.read_bytes().startswith(before), "only the new method's rows have come"
    pd.testing.assert_frame_equal(swept(opt_mini, data, tmp_path).to_frame("predictions"), frame)


def test_each_cell_of_a_map_by_position(opt_mini: LoadedModel, tmp_path: Path) -> None:
    task = load_data("task:induction", opt_mini, predictions=6)
    asked = {"select": "4.5 3.*", "whole_layers": False, "positions": "-2--1", "cache": tmp_path}
    result = position_map(opt_mini, task, "zero", **asked, keep_predictions=True)
    frame = result.to_frame("predictions")
    assert len(frame) == len(result.rows) * 2 * task.predictions
    for (row, at), mine in frame.groupby(["select", "ablated at"]):
        alone = ablate(opt_mini, task, row, "zero", positions=str(at)).to_frame("predictions").query("method == 'zero'")
        for column in ("sequence", "change of loss", "change of logit_difference"):
            np.testing.assert_allclose(mine[column], alone[column], atol=1e-5)  # a whole pass against the tail of one
    save_result(result, "a map", cache=tmp_path)
    layers = position_map(opt_mini, task, "zero", **asked | {"whole_layers": True}, keep_predictions=True)
    assert set(layers.to_frame("predictions")["select"]) == {"3.*", "4.*"}
    pd.testing.assert_frame_equal(load_result("a map", cache=tmp_path).to_frame("predictions"), frame)
    again = position_map(opt_mini, task, "zero", **asked)
    pd.testing.assert_frame_equal(again.to_frame("predictions"), frame)


def test_a_result_is_saved_with_its_own_units_alone(
    opt_mini: LoadedModel, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"cache": tmp_path, "random_sets": 0, "keep_predictions": True}
    sweep(opt_mini, data, "zero", heads="1.* 2.0", **asked)
    one = sweep(opt_mini, data, "zero", heads="2.0", **asked)
    assert set(one.predictions) == {"2.0", PLACES} and "1.0" not in one.predictions
    points = {"seeds": 1, "cache": tmp_path, "keep_predictions": True}
    curve(opt_mini, data, "zero", percents=[0, 50], **points)
    assert set(curve(opt_mini, data, "zero", percents=50, **points).predictions) == {"seed 1, 50 %", PLACES}
    monkeypatch.setattr(archive, "MOST_BYTES", 1000)
    with pytest.raises(ReportError, match=r"single predictions have .* MB, and at most"):
        save_result(one, "one", cache=tmp_path)
    assert not list(tmp_path.glob("saved/*"))


def _in_order(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(list(frame), ignore_index=True)


def test_each_point_of_a_curve(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    asked = {"seeds": [3, 4], "percents": [0, 30, 100], "cache": tmp_path}
    with pytest.raises(ReportError, match="keep_predictions=True"):
        curve(opt_mini, data, METHOD_NAMES, **asked).to_frame("predictions")
    result = curve(opt_mini, data, METHOD_NAMES, **asked, keep_predictions=True)
    frame = result.to_frame("predictions")
    assert list(frame) == ["seed", "percent", "method", "sequence", "position", "target", "change of loss"]
    assert len(frame) == 2 * 3 * 2 * data.predictions
    for (seed, percent, method), mine in frame.groupby(["seed", "percent", "method"]):
        neurons = pruned(opt_mini.shape, percent, seed)
        alone = ablate(opt_mini, data, neurons, method).to_frame("predictions").query("method == @method")
        for column in ("sequence", "position", "target", "change of loss"):
            np.testing.assert_allclose(mine[column], alone[column], atol=2e-6)
    save_result(result, "curves", cache=tmp_path)
    pd.testing.assert_frame_equal(load_result("curves", cache=tmp_path).to_frame("predictions"), frame)
    (kept,) = kept_curves(opt_mini, tmp_path).values()
    pd.testing.assert_frame_equal(*(_in_order(found) for found in (kept.to_frame("predictions"), frame)))
    (path,) = tmp_path.glob("runs/*.predictions/seed 3, 30 %25.safetensors")
    path.unlink()
    with pytest.raises(ReportError, match="of seed 3, percent 30 by zero were not kept"):
        curve(opt_mini, data, METHOD_NAMES, **asked).to_frame("predictions")
    mended = curve(opt_mini, data, METHOD_NAMES, **asked, keep_predictions=True)
    pd.testing.assert_frame_equal(mended.to_frame("predictions"), frame)


def test_a_worker_sends_them_to_who_keeps_them(opt_mini: LoadedModel, data: Data) -> None:
    unit = WorkUnit("5.0", Selection.of_heads([(5, 0)], opt_mini.shape))
    worker = Worker()
    list(worker.prepare(assignment(opt_mini, data, 50, "cpu", None, {})))
    for kept in (False, True):
        order = Order.of(0, Task(unit, (METHODS["zero"],), kept))
        *_, last = worker.measure([order])
        assert (last.predictions is not None) == kept
    alone = ablate(opt_mini, data, "5.0", "zero").to_frame("predictions").query("method == 'zero'")
    np.testing.assert_allclose(last.predictions.changes["zero: loss"], alone["change of loss"], atol=1e-6)


def test_where_none_can_be_kept_a_sentence_says_so(
    opt_mini: LoadedModel, data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match="leave keep_predictions or adaptive out"):
        sweep(opt_mini, data, adaptive=True, keep_predictions=True, cache=tmp_path)
    assert main(["sweep", "opt-mini", "--keep-predictions", "--adaptive"]) == 1
    assert "--adaptive gives each head other predictions" in capsys.readouterr().err
