"""Sweeps and curves: against single ablations, and interrupted anywhere with the same numbers in the end."""

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr, ttest_rel

from ablation_core import ablate, compute_statistics, curve, load_data, load_model, position_map, sweep
from ablation_core.__main__ import main
from ablation_core.activations.files import find_statistics, load_statistics, save_statistics
from ablation_core.data.dataset import Data
from ablation_core.errors import StatisticsError
from ablation_core.experiments.noise_floor import random_head
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import finished
from ablation_core.report.run_frames import map_frame
from ablation_core.runs.ledger import find_runs, open_ledger
from ablation_core.runs.pruning import CurveSpec, curve_steps, kept_curves, pruned
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from ablation_core.runs.sweep_result import SweepResult, kept_sweeps
from ablation_core.selection import ModelShape
from ablation_core.server.head_map import head_estimates, refined_steps
from ablation_core.server.lru import LRU
from ablation_core.stats.correlation import rank_agreement
from ablation_core.stats.intervals import Interval
from tests.conftest import ROOT

ZERO = SweepSpec((METHODS["zero"],), random_sets=2)
HALVES = CurveSpec((METHODS["zero"],), seeds=(1, 2), percents=(0, 50, 100))


@pytest.fixture(scope="module")
def data(opt_mini: LoadedModel) -> Data:
    return load_data(
        "python-docs", opt_mini, predictions=160, seq_len=32
    )  # six windows: fewer than five have no p-value


def test_long_runs_find_statistics_in_the_cache_that_they_are_given(opt_mini: LoadedModel, tmp_path: Path) -> None:
    text = tmp_path / "own.txt"
    text.write_text(" ".join(f"Line {number} sets value {number * 7 % 13}." for number in range(300)), encoding="utf-8")
    part, whole = (
        load_data(f"text:{text}", opt_mini, predictions=60, seq_len=16, split=split)
        for split in ("statistics", "evaluation")
    )
    statistics = compute_statistics(opt_mini, part)
    save_statistics(statistics, tmp_path / "cache")
    asked = {"statistics": part.ref, "cache": tmp_path / "cache"}
    for result in (
        sweep(opt_mini, whole, "mean", heads="5.0", random_sets=0, **asked),
        curve(opt_mini, whole, "mean", seeds=1, percents=50, **asked),
        position_map(opt_mini, whole, "mean", select="5.0", positions="-1", **asked),
    ):
        assert result.description["statistics"]["digest"] == statistics.digest


def test_a_sweep_is_every_heads_own_ablation(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    document = finished(sweep_steps(opt_mini, data, ZERO, None, tmp_path)).to_dict()
    assert [head["head"] for head in document["heads"]] == [
        f"{layer}.{head}" for layer in range(6) for head in range(6)
    ]
    for head in document["heads"][::7]:
        alone = ablate(opt_mini, data, head["head"], "zero").to_dict()
        assert {key: head["results"][0][key] for key in alone["results"][0]} == alone["results"][0]
        assert document["baseline"] == alone["baseline"]


def test_false_discoveries_are_held_down_over_the_map(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    rows = [
        head["results"][0] for head in finished(sweep_steps(opt_mini, data, ZERO, None, tmp_path)).to_dict()["heads"]
    ]
    p = np.array([row["p"] for row in rows])
    order = np.argsort(p)
    # Benjamini and Hochberg (1995), step by step
    passed = [rank for rank, index in enumerate(order, 1) if p[index] <= 0.05 * rank / len(p)]
    significant = set(order[: max(passed, default=0)].tolist())
    assert {i for i, row in enumerate(rows) if row["told_from_no_effect"]} == significant
    assert all(row["q"] >= row["p"] for row in rows)


def test_rows_of_an_older_test_are_measured_again_to_the_same_intervals(
    opt_mini: LoadedModel, data: Data, tmp_path: Path
) -> None:
    spec = SweepSpec((METHODS["zero"],), heads=((0, 1), (2, 3)), random_sets=0)
    first = finished(sweep_steps(opt_mini, data, spec, None, tmp_path))
    (path,) = (tmp_path / "runs").glob("*.jsonl")
    head, *lines = path.read_text().splitlines()
    old = [json.loads(line) for line in lines]
    for one in old:
        del one["record"]["tested_by"]
        one["record"]["results"][0]["p_values"]["loss"] = 0.5
        content = json.dumps([one["piece"], one["record"]])
        one["digest"] = hashlib.sha256(content.encode()).hexdigest()[:16]
    path.write_text("\n".join([head, *map(json.dumps, old), ""]))
    assert kept_sweeps(opt_mini, tmp_path) == {}, "what has another test's p-values is not shown as this one's"
    assert finished(sweep_steps(opt_mini, data, spec, None, tmp_path)).rows == first.rows
    assert len(path.read_text().splitlines()) == 5 and len(kept_sweeps(opt_mini, tmp_path)) == 1
    for head in first.rows.values():
        for metric, p in head["zero"]["p_values"].items():
            assert p is None or (p <= 0.05) == Interval(**head["zero"]["change"][metric]).shows_effect


@given(st.integers(0, 2**32 - 1), st.sampled_from([False, True]))
def test_pruned_neurons_grow_and_are_the_right_many(seed: int, whole_heads: bool) -> None:
    shape, last = ModelShape((4, 6), 8), set()
    for percent in range(0, 101, 10):
        chosen = pruned(shape, percent, seed, whole_heads)
        neurons = {(head, neuron) for head, picked in chosen.chosen for neuron in picked}
        assert last <= neurons
        for layer, heads in enumerate(shape.heads):
            count = sum(1 for (at, _), _ in neurons if at == layer)
            expected = 8 * round(heads * percent / 100) if whole_heads else round(heads * 8 * percent / 100)
            assert count == expected
        last = neurons
    assert len(last) == shape.neurons


def test_a_curve_begins_at_the_baseline_and_ends_where_seeds_agree(
    opt_mini: LoadedModel, data: Data, tmp_path: Path
) -> None:
    result = finished(curve_steps(opt_mini, data, HALVES, None, tmp_path))
    baseline = ablate(opt_mini, data, "", "zero").baseline.loss
    assert result.value(1, 0, "zero", "loss") == result.value(2, 0, "zero", "loss") == baseline
    assert result.value(1, 100, "zero", "loss") == result.value(2, 100, "zero", "loss")
    half = ablate(opt_mini, data, pruned(opt_mini.shape, 50, 1), "zero").results[0].performance.loss
    assert result.value(1, 50, "zero", "loss") == half != result.value(2, 50, "zero", "loss")


def test_heights_bands_and_ranks_by_hand() -> None:
    def point(a: float, b: float, c: float) -> dict:
        rows = [{"method": m, "loss": v, "top1": 1 - v / 10} for m, v in zip("abc", (a, b, c), strict=True)]
        return {row["method"]: row for row in rows}

    points = {(s, p): point(1 + s * p / 100, 2.0, 3 - s * p / 100) for s in (1, 2, 3) for p in (0, 50, 100)}
    description = {"methods": ["a", "b", "c"], "seeds": [1, 2, 3], "percents": [0, 50, 100]}
    document = CurveResult(description, None, points).to_dict()
    assert document["mean_height"]["loss"]["a"] == pytest.approx([1.5, 2.0, 2.5])
    assert document["mean_height"]["loss"]["c"] == pytest.approx([2.5, 2.0, 1.5])
    assert document["ranks"]["loss"]["mean_rank"] == pytest.approx({"a": 2, "b": 2, "c": 2})
    row = next(row for row in document["table"] if row["method"] == "a")
    assert row["percent"] == 50
    assert row["loss"] == pytest.approx({"mean": 2.0, "low": 1.5, "high": 2.5})


def test_a_ledger_drops_what_a_crash_cut_short(tmp_path: Path) -> None:
    with open_ledger(tmp_path, "test", {"a": 1}) as ledger:
        ledger.add("x", {"value": 0.1})
        ledger.add("y", {"value": 1 / 3})
        whole = ledger.path.read_bytes()
    for length in range(len(whole)):
        ledger.path.write_bytes(whole[:length])
        with open_ledger(tmp_path, "test", {"a": 1}) as cut:
            assert cut.done in ({}, {"x": {"value": 0.1}})
            for name, record in (("x", {"value": 0.1}), ("y", {"value": 1 / 3})):
                if name not in cut.done:
                    cut.add(name, record)
        assert ledger.path.read_bytes() == whole


def test_a_run_under_way_is_not_begun_twice(tmp_path: Path) -> None:
    with (
        open_ledger(tmp_path, "test", {"a": 1}),
        pytest.raises(StatisticsError, match="under way"),
        open_ledger(tmp_path, "test", {"a": 1}),
    ):
        pass
    with open_ledger(tmp_path, "test", {"a": 2}) as other:
        assert other.done == {}


def _swept(folder: Path) -> None:
    model = load_model("opt-mini")
    data = load_data("python-docs", model, predictions=120, seq_len=32)
    finished(
        sweep_steps(
            model,
            data,
            SweepSpec((METHODS["zero"],), heads=((5, 1), (2, 0), (0, 3), (4, 4)), random_sets=3),
            None,
            folder,
        )
    )


def _curved(folder: Path) -> None:
    model = load_model("opt-mini")
    data = load_data("python-docs", model, predictions=120, seq_len=32)
    finished(curve_steps(model, data, CurveSpec((METHODS["zero"],), seeds=(1, 2)), None, folder))


@pytest.mark.slow
@pytest.mark.parametrize("run", [_swept, _curved])
def test_killed_in_the_middle_a_run_ends_with_the_same_file(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A page under test leaves itself as the main module, which the child would run first.
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    run(tmp_path / "whole")
    process = multiprocessing.get_context("spawn").Process(target=run, args=(tmp_path / "killed",))
    process.start()
    runs = tmp_path / "killed" / "runs"
    for _ in range(24_000):  # at most two minutes
        if any(len(path.read_bytes().splitlines()) > 3 for path in runs.glob("*.jsonl")):
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (whole,), (killed,) = ((tmp_path / name / "runs").glob("*.jsonl") for name in ("whole", "killed"))
    assert 3 < len(killed.read_bytes().splitlines()) < len(whole.read_bytes().splitlines()), "killed in the middle"
    run(tmp_path / "killed")
    assert whole.name == killed.name
    assert whole.read_bytes() == killed.read_bytes()


def test_both_commands_print_documents_and_tables(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    shared = ("vit-mini", "--method", "zero", "--predictions", "32", "--cache-dir", str(tmp_path))
    assert main(["sweep", *shared, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["heads"]) == 36
    assert document["noise_floor"][0]["sets"] == 24
    assert main(["sweep", *shared]) == 0
    printed = capsys.readouterr().out
    assert "of 36 heads" in printed and "24 random sets" in printed
    assert main(["curve", *shared, "--percents", "0", "50", "--seeds", "1", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["points"]) == 4
    assert main(["curve", *shared, "--percents", "0", "50", "--seeds", "1", "2"]) == 0
    assert "50% zero" in capsys.readouterr().out
    text = ("--data", f"text:{ROOT / 'README.md'}")  # nobody has published statistics of it
    assert main(["curve", "opt-mini", "--method", "mean", *text, *shared[3:]]) == 1
    assert "statistics" in capsys.readouterr().err
    assert main(["curve", *shared, "--percents", "150"]) == 1
    assert "between 0 and 100" in capsys.readouterr().err


def test_a_run_is_yielded_as_it_grows_and_can_be_left_anywhere(
    opt_mini: LoadedModel, data: Data, tmp_path: Path
) -> None:
    spec = SweepSpec((METHODS["zero"],), heads=((3, 2), (0, 1), (5, 5)), random_sets=1)
    steps = sweep_steps(opt_mini, data, spec, None, tmp_path)
    seen = list(islice(steps, 2))
    steps.close()
    assert seen[0].share == 0 and not seen[0].heads and seen[0].to_dict()["heads"] == []
    shares = [result.share for result in seen]
    assert shares == sorted(shares) and shares[-1] < 1
    assert seen[-1].heads == ("3.2",), "in the order that was asked for"
    resumed = list(sweep_steps(opt_mini, data, spec, None, tmp_path))
    assert resumed[0].heads == ("3.2",)
    assert resumed[-1].share == 1 and resumed[-1].heads == ("0.1", "3.2", "5.5")
    json.dumps(seen[-1].to_dict(), allow_nan=False)


def test_another_method_is_added_to_what_is_there(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    zero, source = METHODS["zero"], METHODS["resample-dataset"]
    first = finished(curve_steps(opt_mini, data, CurveSpec((zero,), seeds=(1,), percents=(50,)), None, tmp_path))
    both = finished(
        curve_steps(opt_mini, data, CurveSpec((source, zero), seeds=(1,), percents=(0, 50)), None, tmp_path)
    )
    (kept,) = find_runs(tmp_path, "curve", opt_mini.fingerprint)
    assert list(kept.done) == [
        "seed 1, 50 %: zero",
        "seed 1, 0 %: resample-dataset zero",
        "seed 1, 50 %: resample-dataset",
    ]
    assert both.points[1, 50]["zero"] == first.points[1, 50]["zero"]
    alone = finished(
        curve_steps(opt_mini, data, CurveSpec((source,), seeds=(1,), percents=(50,)), None, tmp_path / "alone")
    )
    for name, value in alone.points[1, 50]["resample-dataset"].items():
        assert both.points[1, 50]["resample-dataset"][name] == value


def test_a_partial_curve_has_points_and_no_ranks_yet(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    steps = curve_steps(opt_mini, data, HALVES, None, tmp_path)
    partial = next(result for result in steps if len(result.points) == 3)
    steps.close()
    assert sorted(partial.points) == [(1, 0), (1, 50), (2, 0)], "every seed's first step before the second"
    document = partial.to_dict()
    assert document["ranks"]["loss"] == {"mean_rank": {"zero": None}, "p": None, "best": None, "behind": {}}
    assert document["table"][0]["loss"]["mean"] is None
    (kept,) = kept_curves(opt_mini, tmp_path).values()
    assert kept.points == partial.points and kept.description["percents"] == [0, 50]


def test_kept_runs_are_found_by_their_model_the_largest_first(opt_mini: LoadedModel, tmp_path: Path) -> None:
    for predictions in (40, 80):
        few = load_data("python-docs", opt_mini, predictions=predictions, seq_len=32)
        finished(
            sweep_steps(opt_mini, few, SweepSpec((METHODS["zero"],), heads=((0, 0),), random_sets=0), None, tmp_path)
        )
    found = list(kept_sweeps(opt_mini, tmp_path).values())
    assert [result.description["data"]["predictions"] for result in found] == [80, 40]
    assert found[0].heads == ("0.0",) and len(found[0].wanted) == 36
    assert find_runs(tmp_path, "sweep", "another model") == [] == find_runs(tmp_path / "none", "sweep", "x")
    (path, *_) = sorted((tmp_path / "runs").glob("*.jsonl"))
    path.write_bytes(path.read_bytes()[:-10])
    assert len(kept_sweeps(opt_mini, tmp_path)) == 1, "a cut line is no piece, and a run without pieces is none"
    path.write_bytes(b"{}\n")
    assert len(kept_sweeps(opt_mini, tmp_path)) == 1


def test_methods_in_other_units_rank_alike_and_missing_heads_hold_q_up() -> None:
    changes = {"a": [1.0, 3.0, 2.0, 5.0, 4.0], "b": [10.0, 30.0, 20.0, 40.0, 50.0], "c": [-1.0, -3.0, -2.0, -5.0, -4.0]}
    p_values = [0.001, 0.02, 0.04, 0.5, None]

    def row(change: float, p: float | None) -> dict:
        return {"change": {"loss": {"mean": change, "low": None, "high": None}}, "p_values": {"loss": p}}

    rows = {
        f"0.{head}": {method: row(changes[method][head], p_values[head]) for method in changes} for head in range(5)
    } | {f"random {number}": {"a": row(value, None)} for number, value in enumerate((0.3, -0.2))}
    result = SweepResult({"methods": list(changes)}, None, rows, tuple(f"0.{head}" for head in range(10)))
    ab, ac, _ = result.agreement("loss")
    assert ab["spearman"]["mean"] == pytest.approx(0.9)  # 1 - 6 · (1² + 1²) / (5 · 24)
    assert ac["spearman"] == pytest.approx({"mean": -1, "low": None, "high": None})
    assert result.adjusted("a", "loss") == pytest.approx(
        {"0.0": 0.01, "0.1": 0.1, "0.2": 0.4 / 3, "0.3": 1.0, "0.4": None}
    )
    assert result.significant("a", "loss") == {"0.0"}
    assert result.floor("a", "loss") == (-0.2, 0.3, 2) and result.floor("b", "loss") is None


def test_rank_agreements_interval_covers() -> None:
    generator, inside, rho = np.random.default_rng(5), 0, 0.6
    true = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's ρ of a bivariate normal (Pearson 1907)
    for _ in range(400):
        a, b = generator.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 36).T
        interval = rank_agreement(a, b)
        assert interval.mean == pytest.approx(spearmanr(a, b).statistic)
        inside += interval.low <= true <= interval.high
    assert 0.92 < inside / 400 < 0.98
    assert np.isnan(rank_agreement([1, 2, 3], [1, 2, 3]).mean)
    assert rank_agreement([1, 2, 3, 4, np.nan], [1, 2, 3, 4, 0]).mean == pytest.approx(1)


def test_random_heads_are_one_layers_neurons_of_a_heads_size() -> None:
    shape = ModelShape((4, 6, 2), 8)
    drawn = [random_head(shape, number, 0) for number in range(7)]
    assert [chosen.layers for chosen in drawn] == [(0,), (1,), (2,), (0,), (1,), (2,), (0,)]
    assert all(len(chosen) == 8 for chosen in drawn)
    assert drawn[0] != drawn[3] and drawn[0] == random_head(shape, 0, 0) != random_head(shape, 0, 1)


def test_gaps_between_methods_are_paired_over_seeds() -> None:
    losses = {"a": (2.0, 3.0, 4.0), "b": (2.1, 3.2, 4.3)}
    points = {
        (seed, 50): {m: {"method": m, "loss": losses[m][seed - 1], "top1": 0.5} for m in losses} for seed in (1, 2, 3)
    }
    ranks = CurveResult({"methods": ["b", "a"], "seeds": [1, 2, 3], "percents": [50]}, None, points).ranks("loss")
    assert ranks["best"] == "a" and ranks["mean_rank"] == {"a": 1, "b": 2}
    gap = ranks["behind"]["b"]
    # differences 0.1, 0.2, 0.3: mean 0.2, standard error 0.1 / √3, t(2) at 97.5% is 4.303
    assert gap["mean"] == pytest.approx(0.2)
    assert gap["low"] == pytest.approx(0.2 - 4.3027 * 0.1 / 3**0.5, abs=1e-4)
    assert gap["p"] == pytest.approx(ttest_rel(losses["b"], losses["a"]).pvalue)


def test_an_estimate_fills_the_map_and_orders_the_sweep(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    spec, store = SweepSpec((METHODS["zero"],), random_sets=0), LRU(16)
    steps = refined_steps(opt_mini, data, spec, None, store, "key", tmp_path)
    seen = [result for result in islice(steps, 8) if isinstance(result, SweepResult)]
    steps.close()
    estimates = head_estimates(store["key"], "zero", "loss")
    assert len(estimates) == 36 and store["key"].share == 1
    largest = sorted(estimates, key=lambda head: -abs(estimates[head][0]))
    assert seen and set(seen[-1].heads) == set(largest[: len(seen[-1].heads)])
    frame = map_frame(seen[-1], "zero", "loss", None, estimates)
    assert len(frame) == 36 and (frame["state"] == "estimate").sum() == 36 - len(seen[-1].heads)
    assert head_estimates(store["key"], "zero", "top1") == {} == head_estimates(None, "zero", "loss")


def test_a_sweep_by_learned_constants_alone_needs_no_estimate(
    opt_mini: LoadedModel, data: Data, tmp_path: Path
) -> None:
    statistics, store = load_statistics(find_statistics(opt_mini, "python-docs").path, opt_mini), LRU(16)
    spec = SweepSpec((METHODS["optimal"],), random_sets=0)
    steps = refined_steps(opt_mini, data, spec, statistics, store, "key", tmp_path)
    seen = [result for result in islice(steps, 2) if isinstance(result, SweepResult)]
    steps.close()
    assert len(seen[0].wanted) == 36 and not store
