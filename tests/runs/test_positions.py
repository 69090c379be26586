"""Sweeps, curves, estimates and noise floors of tasks at chosen positions, and the map of one position at a time."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ablation_core import ablate, curve, estimate, load_data, noise_floor, position_map, sweep
from ablation_core.__main__ import main
from ablation_core.data.dataset import Data
from ablation_core.data.positions import Positions
from ablation_core.engine.metrics import METRICS
from ablation_core.errors import DataError, SelectionError
from ablation_core.experiments.noise_floor import SETS, random_selection
from ablation_core.experiments.provenance import describe_run
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.runs.ledger import run_path
from ablation_core.runs.maps.position_map import PositionMapSpec, kept_position_map
from ablation_core.runs.pruning import pruned
from ablation_core.selection import Selection

TASK = ("loss", "logit_difference", "accuracy", "probability")


@pytest.fixture(scope="module")
def data(opt_mini: LoadedModel) -> Data:
    return load_data("task:induction", opt_mini, predictions=12)


def measured(opt_mini: LoadedModel, data: Data, select: str, positions: str) -> dict:
    return ablate(opt_mini, data, select, "zero", positions=positions).to_dict()["results"][0]


def test_a_sweep_ablates_at_its_positions(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    swept = sweep(opt_mini, data, "zero", heads="4.5 1.3", positions="last", random_sets=1, cache=tmp_path)
    assert swept.positions == "last"
    for head in swept.to_dict()["heads"]:
        (row,), alone = head["results"], measured(opt_mini, data, head["head"], "last")
        assert all(row["change"][metric] == alone["change"][metric] for metric in TASK)
        assert set(row["q_values"]) == {name for name in row["change"] if METRICS[name].tested}
    everywhere = sweep(opt_mini, data, "zero", heads="4.5", random_sets=0, cache=tmp_path)
    assert everywhere.rows["4.5"]["zero"]["change"] == measured(opt_mini, data, "4.5", "all")["change"]


def test_all_positions_keep_the_file_that_runs_had_before(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    sweep(opt_mini, data, "zero", heads="4.5", random_sets=0, cache=tmp_path)
    before = describe_run(opt_mini, data, None) | {"bins": 100}
    assert [path.name for path in (tmp_path / "runs").glob("*.jsonl")] == [run_path(tmp_path, "sweep", before).name]
    sweep(opt_mini, data, "zero", heads="4.5", random_sets=0, positions="last", cache=tmp_path)
    assert run_path(tmp_path, "sweep", before | {"positions": "last"}).exists()


def test_a_curve_ablates_at_its_positions(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    found = curve(opt_mini, data, "zero", seeds=[1], percents=[0, 50], positions="last", cache=tmp_path)
    half = str(pruned(opt_mini.shape, 50, 1))
    document, alone = found.to_dict(), measured(opt_mini, data, half, "last")
    assert document["positions"] == "last"
    point = document["points"][1]["results"][0]
    assert all(point[metric] == alone[metric] for metric in TASK)
    assert point["logit_difference"] != measured(opt_mini, data, half, "all")["logit_difference"]


def test_a_noise_floor_is_of_the_same_positions(opt_mini: LoadedModel, data: Data) -> None:
    floor = noise_floor(opt_mini, data, "4.5", method="zero", positions="last")
    generator, changes = np.random.default_rng(data.seed), []
    for _ in range(SETS):
        drawn = random_selection(Selection.parse("4.5", opt_mini.shape), generator)
        row = ablate(opt_mini, data, drawn, "zero", positions="last").results[0]
        changes.append(row.change["logit_difference"].mean)
    assert floor.bands["zero"]["logit_difference"] == pytest.approx((min(changes), max(changes)), abs=1e-9)


def test_an_estimate_of_the_logit_difference_is_its_gradient_times_the_displacement(
    opt_mini: LoadedModel, data: Data
) -> None:
    found = estimate(opt_mini, data, "zero", positions="last").methods[0]["logit_difference"].heads
    batch = data.rows(range(data.sequences))
    joined: dict[int, torch.Tensor] = {}
    handles = []
    for layer, projection in enumerate(opt_mini.projections):

        def hook(_module: torch.nn.Module, inputs: tuple, layer: int = layer) -> tuple:
            joined[layer] = inputs[0] if inputs[0].requires_grad else inputs[0].detach().requires_grad_()
            return (joined[layer], *inputs[1:])

        handles.append(projection.register_forward_pre_hook(hook))
    with torch.enable_grad():
        logits = opt_mini.module(**batch.inputs).logits
        places = (batch.targets != -100).nonzero(as_tuple=True)
        assert batch.answers is not None
        right, wrong = batch.targets[places], batch.answers.others[places]
        at = logits[places]
        difference = (at.gather(1, right[:, None]) - at.gather(1, wrong[:, None])).sum()
        gradients = torch.autograd.grad(difference, list(joined.values()))
    for handle in handles:
        handle.remove()
    last = batch.inputs["attention_mask"].sum(1) - 1
    rows = torch.arange(len(last))
    for layer, gradient in enumerate(gradients):
        products = -(gradient * joined[layer].detach())[rows, last].unflatten(-1, (6, 32)).sum((0, 2)) / data.sequences
        np.testing.assert_allclose(found[layer], products.numpy(), rtol=1e-3, atol=1e-5)


def test_an_adaptive_sweep_of_a_task_judges_its_logit_difference(
    opt_mini: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablation_core.methods.optimal.TRAINING_PROMPTS", 16)
    data = load_data("task:induction", opt_mini, predictions=32)
    methods = ["zero", "mean-positional"]
    found = sweep(opt_mini, data, methods, heads="4.5 0.1", adaptive=True, positions="last", cache=tmp_path)
    assert found.metric.name == "logit_difference" and found.to_dict()["positions"] == "last"
    for head in found.heads:
        exact = ablate(opt_mini, data, head["head"], methods, positions="last").results
        for row, alone in zip(head["results"], exact, strict=True):
            if row["sequences"] == data.sequences:
                assert row["change"]["logit_difference"]["mean"] == pytest.approx(
                    alone.change["logit_difference"].mean, abs=1e-6
                )
            assert row["change"]["logit_difference"]["low"] <= alone.change["logit_difference"].mean
            assert alone.change["logit_difference"].mean <= row["change"]["logit_difference"]["high"]
    swept = found.as_sweep()
    assert swept.rows["4.5"]["zero"]["p_values"]["logit_difference"] == found.heads[1]["results"][0]["p"]


def test_groups_are_refused_where_prompts_are_taken_one_by_one(opt_mini: LoadedModel, tmp_path: Path) -> None:
    lines = [{"prompt": f"{word} x is", "right": " not", "wrong": " set", "group": str(n // 2)} for n, word in
             enumerate(("The", "A", "This", "That", "One", "No"))]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = load_data(f"pairs:{tmp_path / 'pairs.jsonl'}", opt_mini, predictions=9)
    with pytest.raises(DataError, match="form groups"):
        sweep(opt_mini, data, "zero", adaptive=True, cache=tmp_path)


def test_each_cell_of_a_map_is_an_ablation_at_its_position(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    found = position_map(opt_mini, data, "zero", select="4.5 1.3", positions="-2--1,30", cache=tmp_path)
    assert found.positions == (30, -2, -1) and found.rows == ("1.3", "4.5")
    lengths = np.array([int(row.sum()) for batch in data for row in batch.inputs["attention_mask"]])
    assert found.sequences == (int((lengths > 30).sum()), 12, 12)
    for (row, position), change in found.changes("zero", "logit_difference").items():
        alone = measured(opt_mini, data, row, str(position))
        assert change == alone["change"]["logit_difference"]["mean"]
    kept = kept_position_map(
        opt_mini, data, PositionMapSpec((METHODS["zero"],), ("4.5",), positions=Positions.parse("-2")), None, tmp_path
    )
    assert kept is not None and list(kept.changes("zero", "loss")) == [("4.5", -2)]
    frame = found.to_frame()
    assert len(frame) == 6 * len(found.metrics) and found.chart().to_dict() and "cells" in found._repr_html_()
    layer = position_map(opt_mini, data, "zero", select="4.5", whole_layers=True, positions="-1", cache=tmp_path)
    assert layer.changes("zero", "loss") == {
        ("4.*", -1): measured(opt_mini, data, "4.*", "last")["change"]["loss"]["mean"]
    }


def test_what_a_map_cannot_be_of(opt_mini: LoadedModel, vit_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="differs from prompt to prompt"):
        position_map(opt_mini, data, "zero", select="4.5", positions="answer", cache=tmp_path)
    with pytest.raises(DataError, match="no position 99"):
        position_map(opt_mini, data, "zero", select="4.5", positions="99", cache=tmp_path)
    with pytest.raises(SelectionError, match="whole heads"):
        position_map(opt_mini, data, "zero", select="4.5:1", cache=tmp_path)
    images = load_data("fashion-mnist", vit_mini, predictions=4)
    with pytest.raises(DataError, match="no positions to name"):
        position_map(vit_mini, images, "zero", select="0.0", cache=tmp_path)


def test_the_command_prints_maps_and_sweeps_of_tasks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, opt_mini: LoadedModel
) -> None:
    words = ["opt-mini", "--data", "task:induction", "--predictions", "6", "--method", "zero", "--select", "4.5"]
    words += ["--cache-dir", str(tmp_path)]
    assert main(["sweep", *words, "--by-position", "--positions", "-2--1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(cell["select"], cell["position"]) for cell in document["cells"]] == [("4.5", -2), ("4.5", -1)]
    assert document["positions"] == [{"position": -2, "sequences": 6}, {"position": -1, "sequences": 6}]
    assert main(["sweep", *words, "--by-position", "--positions=-2--1"]) == 0
    assert "change of logit difference" in capsys.readouterr().out
    assert main(["sweep", *words, "--positions", "last"]) == 0
    assert "at positions last: change of logit difference without each head" in capsys.readouterr().out
    assert main(["sweep", *words, "--whole-layers"]) == 1
    assert "--by-position" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "single"),
    [("all", range(5)), ("3-", [3, 4]), ("-2--1", [-2, -1]), ("1,last", [1, -1]), ("2--1", [2, 3, 4])],
)
def test_positions_one_by_one(text: str, single: object) -> None:
    assert Positions.parse(text).single(5) == tuple(single)
