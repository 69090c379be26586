"""Sweeps and curves: against single ablations, and interrupted anywhere with the same numbers in the end."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from ablation_core import ablate, load_data, load_model
from ablation_core.__main__ import main
from ablation_core.curve import CurveResult, curve, pruned
from ablation_core.data import Data
from ablation_core.errors import StatisticsError
from ablation_core.ledger import open_ledger
from ablation_core.methods import METHODS
from ablation_core.models import LoadedModel
from ablation_core.selection import Shape
from ablation_core.sweep import _p_value, sweep

ZERO = [METHODS["zero"]]


@pytest.fixture(scope="module")
def data(opt_mini: LoadedModel) -> Data:
    return load_data("python-docs", opt_mini, predictions=120, seq_len=32)


def test_a_sweep_is_every_heads_own_ablation(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    document = sweep(opt_mini, data, ZERO, None, 100, tmp_path).to_dict()
    assert [head["head"] for head in document["heads"]] == [
        f"{layer}.{head}" for layer in range(6) for head in range(6)
    ]
    for head in document["heads"][::7]:
        alone = ablate(opt_mini, data, head["head"], "zero").to_dict()
        assert {key: head["results"][0][key] for key in alone["results"][0]} == alone["results"][0]
        assert document["baseline"] == alone["baseline"]


def test_false_discoveries_are_held_down_over_the_map(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    rows = [head["results"][0] for head in sweep(opt_mini, data, ZERO, None, 100, tmp_path).to_dict()["heads"]]
    p = np.array([row["p"] for row in rows])
    order = np.argsort(p)
    # Benjamini and Hochberg (1995), step by step
    passed = [rank for rank, index in enumerate(order, 1) if p[index] <= 0.05 * rank / len(p)]
    told = set(order[: max(passed, default=0)].tolist())
    assert {i for i, row in enumerate(rows) if row["told_from_no_effect"]} == told
    assert all(row["q"] >= row["p"] for row in rows)


def test_p_is_a_t_test_over_sequences_of_any_length() -> None:
    whole = np.repeat(np.arange(6), 20)
    generator = np.random.default_rng(1)
    values = generator.normal(0.4, 1, 6)[whole] + generator.normal(0, 0.2, len(whole))
    means = [values[whole == number].mean() for number in range(6)]
    assert _p_value(values, whole) == pytest.approx(ttest_1samp(means, 0).pvalue)  # equal lengths: the ordinary test
    with_rest = _p_value(np.append(values, -3.0), np.append(whole, 6))
    assert with_rest < 3 * _p_value(values, whole)  # one prediction of a seventh window weighs as one of 121
    assert _p_value(np.zeros(9), np.arange(9)) == 1.0
    assert _p_value(np.ones(9), np.arange(9)) == 0.0
    assert _p_value(np.ones(9), np.zeros(9, int)) is None


@given(st.integers(0, 2**32 - 1), st.sampled_from([False, True]))
def test_pruned_neurons_grow_and_are_the_right_many(seed: int, whole_heads: bool) -> None:
    shape, last = Shape((4, 6), 8), set()
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
    result = curve(opt_mini, data, ZERO, None, 100, tmp_path, seeds=(1, 2), percents=(0, 50, 100))
    baseline = ablate(opt_mini, data, "", "zero").baseline.loss
    assert result.value(1, 0, "zero", "loss") == result.value(2, 0, "zero", "loss") == baseline
    assert result.value(1, 100, "zero", "loss") == result.value(2, 100, "zero", "loss")
    half = ablate(opt_mini, data, pruned(opt_mini.shape, 50, 1), "zero").results[0].performance.loss
    assert result.value(1, 50, "zero", "loss") == half != result.value(2, 50, "zero", "loss")


def test_heights_bands_and_ranks_by_hand() -> None:
    def point(a: float, b: float, c: float) -> dict:
        rows = [{"method": m, "loss": v, "top1": 1 - v / 10} for m, v in zip("abc", (a, b, c), strict=True)]
        return {"neurons": 0, "results": rows}

    points = {(s, p): point(1 + s * p / 100, 2.0, 3 - s * p / 100) for s in (1, 2, 3) for p in (0, 50, 100)}
    description = {"methods": ["a", "b", "c"], "seeds": [1, 2, 3], "percents": [0, 50, 100]}
    document = CurveResult(description, points).to_dict()
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
    sweep(model, data, ZERO, None, 100, folder)


@pytest.mark.slow
def test_killed_in_the_middle_a_sweep_ends_with_the_same_file(tmp_path: Path) -> None:
    _swept(tmp_path / "whole")
    process = multiprocessing.get_context("spawn").Process(target=_swept, args=(tmp_path / "killed",))
    process.start()
    runs = tmp_path / "killed" / "runs"
    for _ in range(600):
        if any(len(path.read_bytes().splitlines()) > 5 for path in runs.glob("*.jsonl")):
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    _swept(tmp_path / "killed")
    (whole,), (killed,) = ((tmp_path / name / "runs").glob("*.jsonl") for name in ("whole", "killed"))
    assert [json.loads(line) for line in whole.read_text().splitlines()] == [
        json.loads(line) for line in killed.read_text().splitlines()
    ]


def test_both_commands_print_documents_and_tables(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    shared = ("vit-mini", "--method", "zero", "--predictions", "32", "--cache-dir", str(tmp_path))
    assert main(["sweep", *shared, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["heads"]) == 36
    assert main(["sweep", *shared]) == 0
    assert "of 36 heads" in capsys.readouterr().out
    assert main(["curve", *shared, "--percents", "0", "50", "--seeds", "1", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["points"]) == 4
    assert main(["curve", *shared, "--percents", "0", "50", "--seeds", "1", "2"]) == 0
    assert "50 % zero" in capsys.readouterr().out
    assert main(["curve", *shared, "--percents", "150"]) == 1
    assert "between 0 and 100" in capsys.readouterr().err
