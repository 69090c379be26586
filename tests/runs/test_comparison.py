"""Comparisons of two data sets and of two models, against plain ablations and means written out."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ablation_core import METHODS, ablate, compare, find_statistics, load_data, load_model, load_statistics
from ablation_core.cli.text.runs import format_comparison
from ablation_core.data.dataset import Data
from ablation_core.errors import AblationError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.random_twin import random_twin
from ablation_core.report.present.comparisons import differing_frame
from ablation_core.runs.compare import twin_steps
from ablation_core.runs.comparison import ComparisonSpec, Side
from ablation_core.runs.comparison_result import ComparisonResult
from ablation_core.stats.intervals import mean_tests
from tests.tiny import build

HEADS = "0.4 3.2 5.0"


@pytest.fixture(scope="module")
def prose(opt_mini: LoadedModel) -> Data:
    return load_data("python-docs", opt_mini, predictions=300, seq_len=32)


@pytest.fixture(scope="module")
def code(opt_mini: LoadedModel) -> Data:
    return load_data("python-code", opt_mini, predictions=240, seq_len=32)


@pytest.fixture(scope="module")
def compared(
    opt_mini: LoadedModel, prose: Data, code: Data, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ComparisonResult, Path]:
    folder = tmp_path_factory.mktemp("kept")
    return compare(opt_mini, [prose, code], "mean", heads=HEADS, cache=folder), folder


def test_changes_are_those_of_plain_ablations(
    compared: tuple[ComparisonResult, Path], opt_mini: LoadedModel, prose: Data, code: Data
) -> None:
    document = compared[0].to_dict()
    assert [row["head"] for row in document["heads"]] == HEADS.split()
    assert [data["ref"] for data in document["data"]] == ["python-docs", "python-code"]
    assert [made["data"] for made in document["statistics"]] == ["python-docs", "python-code"], "each side's own"
    assert document["paired"] is False and document["with"] is None
    p = []
    for row in document["heads"]:
        alone = [
            ablate(opt_mini, data, row["head"], "mean", statistics=data.ref).to_dict()["results"][0]["change"]
            for data in (prose, code)
        ]
        for metric in ("loss", "top1", "kl"):
            for side, change in zip(row["changes"], alone, strict=True):
                assert side[metric] == pytest.approx(change[metric])
            difference = row["difference"][metric]
            assert difference["mean"] == pytest.approx(alone[1][metric]["mean"] - alone[0][metric]["mean"])
            assert difference["low"] < difference["mean"] < difference["high"]
        assert (row["p"] <= 0.05) == (row["difference"]["loss"]["low"] > 0 or row["difference"]["loss"]["high"] < 0)
        p.append(row["p"])
    order = np.argsort(p)  # Benjamini and Hochberg, written out
    least, wanted = 1.0, [0.0] * 3
    for rank in (2, 1, 0):
        least = min(least, 3 / (rank + 1) * p[order[rank]])
        wanted[order[rank]] = least
    assert [row["q"] for row in document["heads"]] == pytest.approx(wanted)


def test_the_difference_has_the_interval_of_a_bootstrap_of_both(
    compared: tuple[ComparisonResult, Path], opt_mini: LoadedModel, prose: Data, code: Data
) -> None:
    samples = []
    for data in (prose, code):
        frame = ablate(opt_mini, data, "3.2", "mean", statistics=data.ref).to_frame("predictions")
        mine = frame[frame["method"] == "mean"].groupby("sequence")["change of loss"]
        samples.append((mine.sum().to_numpy(), mine.count().to_numpy()))
    generator = np.random.default_rng(7)

    def mean(sums: np.ndarray, counts: np.ndarray) -> float:
        drawn = generator.integers(0, len(sums), len(sums))
        return sums[drawn].sum() / counts[drawn].sum()

    draws = np.array([mean(*samples[1]) - mean(*samples[0]) for _ in range(6000)])
    low, high = np.quantile(draws, [0.025, 0.975])
    found = next(head for head in compared[0].heads if head.head == "3.2").difference["loss"]
    assert found.low == pytest.approx(low, abs=0.25 * (high - low))
    assert found.high == pytest.approx(high, abs=0.25 * (high - low))


def test_what_is_kept_is_not_measured_again(
    compared: tuple[ComparisonResult, Path], opt_mini: LoadedModel, prose: Data, code: Data
) -> None:
    result, folder = compared
    files = sorted((folder / "runs").glob("changes-*.jsonl"))
    assert len(files) == 2
    before = [path.read_bytes() for path in files]
    again = compare(opt_mini, [prose, code], "mean", heads=HEADS, cache=folder)
    assert again.heads == result.heads and [path.read_bytes() for path in files] == before
    turned = compare(opt_mini, [code, prose], "mean", heads="3.2", cache=folder)
    assert [path.read_bytes() for path in files] == before, "each side is kept by itself"
    assert turned.heads[0].difference["loss"].mean == pytest.approx(-result.heads[1].difference["loss"].mean)
    files[0].write_bytes(before[0][: len(before[0]) // 2])  # cut short: what is gone is measured again
    assert compare(opt_mini, [prose, code], "mean", heads=HEADS, cache=folder).heads == result.heads


def test_two_models_are_paired_by_prediction(opt_mini: LoadedModel, prose: Data, tmp_path: Path) -> None:
    twin = random_twin(opt_mini, 3)
    result = compare(opt_mini, prose, "zero", other=twin, heads="3.2", cache=tmp_path)
    document = result.to_dict()
    assert document["paired"] and document["with"]["ref"] == twin.ref and twin.fingerprint != opt_mini.fingerprint
    changes, sequences = [], None
    for model in (opt_mini, twin):
        frame = ablate(model, prose, "3.2", "zero").to_frame("predictions")
        mine = frame[frame["method"] == "zero"]
        changes.append(mine["change of loss"].to_numpy())
        sequences = mine["sequence"].to_numpy()
    (wanted,) = mean_tests((changes[1] - changes[0])[None], sequences, 0)
    found = document["heads"][0]["difference"]["loss"]
    assert list(found.values()) == pytest.approx([wanted.interval.mean, wanted.interval.low, wanted.interval.high])
    assert document["heads"][0]["p"] == pytest.approx(wanted.p)


def test_a_random_twin_by_name_has_its_own_statistics(
    opt_mini: LoadedModel, prose: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablation_core.runs.compare.STATISTICS_PREDICTIONS", {"causal": 600})
    result = compare(opt_mini, prose, "mean", other="random", heads="3.2", cache=tmp_path)
    (one, other) = (side["statistics"]["digest"] for side in result.sides)
    assert one != other and result.baselines[1]["loss"] > result.baselines[0]["loss"] + 1


def test_the_apps_steps_find_what_compare_finds(
    opt_mini: LoadedModel, prose: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablation_core.runs.compare.STATISTICS_PREDICTIONS", {"causal": 600})
    wanted = compare(opt_mini, prose, "mean", other="random", heads="3.2", cache=tmp_path)
    statistics = load_statistics(find_statistics(opt_mini, "python-docs").path, opt_mini)
    spec = ComparisonSpec(METHODS["mean"], heads=((3, 2),))
    *under_way, last = twin_steps(Side(opt_mini, prose, statistics), spec, tmp_path / "other")
    assert [step.share for step in under_way] == sorted(step.share for step in under_way) and last.share == 1
    assert last.result.heads == wanted.heads and last.result.sides[1] == wanted.sides[1]


@pytest.mark.parametrize("family", ["opt", "bert", "vit", "VisionTransformer"])
def test_a_twin_has_other_weights_in_the_same_places(family: str) -> None:
    model = build(family)
    before = model.fingerprint
    twins = [random_twin(model, seed) for seed in (5, 5, 6)]  # 0 would be the very draw that made it
    assert model.fingerprint == before and len({twin.fingerprint for twin in twins} | {before}) == 3
    names = {id(part): name for name, part in twins[0].module.named_modules()}
    mine = {id(part): name for name, part in model.module.named_modules()}
    assert [names[id(part)] for part in twins[0].projections] == [mine[id(part)] for part in model.projections]
    state = torch.random.get_rng_state()
    random_twin(model, 7)
    assert torch.equal(state, torch.random.get_rng_state()), "nobody else's draws are moved"


def test_what_cannot_be_compared_is_said(opt_mini: LoadedModel, prose: Data, code: Data, tmp_path: Path) -> None:
    tiny = build("opt")
    reads_otherwise = dataclasses.replace(random_twin(opt_mini), tokenizer=load_model("roberta-mini").tokenizer)
    calls = {
        "two data sets, or of one in two models": lambda: compare(opt_mini, prose, "zero", cache=tmp_path),
        "Both data sets are the same": lambda: compare(opt_mini, [prose, prose], "zero", cache=tmp_path),
        "head of a model of the same shape": lambda: compare(opt_mini, prose, "zero", other=tiny, cache=tmp_path),
        "same weights": lambda: compare(opt_mini, prose, "zero", other=dataclasses.replace(opt_mini), cache=tmp_path),
        "same tokenizer": lambda: compare(opt_mini, prose, "zero", other=reads_otherwise, cache=tmp_path),
        "as load_model returns it": lambda: compare(opt_mini, prose, "zero", other="opt-mini", cache=tmp_path),
        "no head": lambda: compare(opt_mini, [prose, code], "zero", heads="3.77", cache=tmp_path),
        "There is no method": lambda: compare(opt_mini, [prose, code], "nil", cache=tmp_path),
        "'all' stands for": lambda: compare(opt_mini, [prose, code], "all", cache=tmp_path),
        "Both models are the same opt-mini": lambda: compare(opt_mini, prose, "zero", other=opt_mini, cache=tmp_path),
    }
    for words, call in calls.items():
        with pytest.raises(AblationError, match=words):
            call()


def test_two_tasks(opt_mini: LoadedModel, tmp_path: Path) -> None:
    tasks = [load_data(ref, opt_mini, predictions=12) for ref in ("task:induction", "task:agreement")]
    result = compare(opt_mini, tasks, "zero", heads="3.2", cache=tmp_path)
    assert {"logit_difference", "accuracy"} <= set(result.metrics)
    alone = [ablate(opt_mini, task, "3.2", "zero").results[0].change["logit_difference"].mean for task in tasks]
    assert result.heads[0].difference["logit_difference"].mean == pytest.approx(alone[1] - alone[0])
    (row,) = result.to_dict()["heads"]
    assert {"loss", "logit_difference"} <= set(row["q_values"]) and row["q_values"]["loss"] == row["q"]
    assert "change of logit difference" in format_comparison(result)
    (shown,) = differing_frame(result).to_dict("records")
    assert shown["q"] == row["q_values"]["logit_difference"] and f"{alone[1] - alone[0]:+.3f}" in shown["difference"]


def test_images(vit_mini: LoadedModel, tmp_path: Path) -> None:
    data = [load_data("fashion-mnist", vit_mini, predictions=20, seed=seed) for seed in (0, 1)]
    result = compare(vit_mini, data, "zero", heads="1.1", cache=tmp_path)
    assert result.heads[0].difference["loss"].low is not None and result.names[0] != result.names[1]


def test_it_shows_itself(compared: tuple[ComparisonResult, Path]) -> None:
    result = compared[0]
    frame = result.to_frame().set_index("head")
    for row in result.to_dict()["heads"]:
        assert frame.loc[row["head"], "loss difference (low)"] == row["difference"]["loss"]["low"]
        assert frame.loc[row["head"], "loss second (mean)"] == row["changes"][1]["loss"]["mean"]
        assert frame.loc[row["head"], "loss q"] == row["q"]
    points = [row for rows in result.chart("scatter").to_dict()["datasets"].values() for row in rows if "label" in row]
    assert {row["label"]: row["y"] for row in points} == pytest.approx(frame["loss second (mean)"].to_dict())
    scales = [
        layer["encoding"][axis]["scale"]["domain"]
        for layer in result.chart("scatter").to_dict()["layer"]
        for axis in "xy"
        if axis in layer["encoding"]
    ]
    assert all(scale == scales[0] for scale in scales), "both axes are the same"
    assert result.chart("map", "kl").to_dict() and "python-code" in result._repr_html_()
