"""The paper's plan: counted by hand, printed without loading anything, and run whole on a bundled model."""

import json
from pathlib import Path

import pytest

from ablation_core.__main__ import main
from ablation_core.runs.paper import ORIGINALS, Part, Size, original_parts


def test_a_part_counted_by_hand() -> None:
    part = Part("m", "python-docs", Size("causal", 1000, 2, 16, 128, 4), 1270)
    assert part.positions == 10 * 128  # 127 predictions a window
    # zero, mean, median, peak, four resamplings, and the donors' own pass; 3 seeds, 10 steps above 0, a clean pass
    assert part.passes == 1 + 3 * 10 * (8 + 1)
    assert part.seconds(1e6) == pytest.approx(2 * 1000 * 1280 * 271 / 1e6)
    assert part.memory == 4000 + 2 * 1280 * 2 * 16 * 4 + 3 * 4 * (1 << 25)


def test_images_have_their_own_resampling() -> None:
    (vit,) = (part for part in original_parts([], None) if part.size.modality == "vision")
    assert [method.name for method in vit.methods][-2:] == ["resample-dataset", "resample-pixels"]
    assert (vit.positions, vit.data) == (1000 * 197, "images:IMAGENET")


def test_the_plan_of_the_originals_loads_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def load(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a dry run has loaded a model")

    monkeypatch.setattr("ablation_core.loading.load.load_model", load)
    assert main(["reproduce", "paper", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert {row["model"] for row in plan} == set(ORIGINALS)
    assert all(row["seconds"] > 0 and row["memory_bytes"] > 0 for row in plan)
    assert [row["predictions"] for row in plan if row["model"] == "facebook/opt-1.3b"] == [100_000, 100_000]
    assert plan[0]["seeds"] == [42, 123, 456] and plan[0]["percents"] == list(range(0, 101, 10))


@pytest.mark.slow
def test_the_plan_runs_on_a_bundled_model(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    arguments = ["reproduce", "paper", "--models", "vit-mini", "--predictions", "20", "--cache-dir", str(tmp_path)]
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (curve,) = document["curves"]
    assert len(curve["points"]) == 33
    clean = [row["loss"] for point in curve["points"] if point["percent"] == 0 for row in point["results"]]
    assert len(clean) == 3 * 6 and len(set(clean)) == 1
    for method in ("zero", "mean", "median", "peak"):  # at 100% nothing is left to draw
        ends = [
            row["loss"]
            for point in curve["points"]
            if point["percent"] == 100
            for row in point["results"]
            if row["method"] == method
        ]
        assert len(ends) == 3 and len(set(ends)) == 1
    kept = list((tmp_path / "runs").glob("curve-*.jsonl"))
    before = kept[0].read_bytes()
    assert main(arguments) == 0  # nothing is computed again
    assert [path.read_bytes() for path in kept] == [before]


def test_a_model_that_is_not_here_is_a_sentence(capsys: pytest.CaptureFixture) -> None:
    assert main(["reproduce", "paper", "--models", "nope"]) == 1
    assert capsys.readouterr().err.startswith("error: There is no model 'nope'")
