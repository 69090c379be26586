"""The benchmark for a graphics card, tried on the processor: the same code, tiny models, and what it would report."""

import json
from pathlib import Path

import pytest
import torch

from ablation_core.engine.kept_bytes import KEPT_BYTES, KEPT_CLEAN_BYTES, free_bytes, kept_bytes
from benchmarks.gpu.__main__ import goals, main


@pytest.mark.slow
def test_the_whole_benchmark_runs_on_a_processor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gpu.json"
    assert main(["--device", "cpu", "--tiny", "--dtype", "float32", "--output", str(path)]) == 0
    document = json.loads(path.read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == document
    assert len(document["conformance"]) == 10
    for family, rows in document["conformance"].items():
        assert set(rows) == {"float32", "bfloat16"} and all(row["passed"] for row in rows.values()), family
        assert rows["float32"]["effect of the ablation"] > 10 * rows["float32"]["ablated"], "the check can see a change"
    assert set(document["models"]) == {"OPT-1.3B", "Llama-1.2B", "ViT-L"} and not document["left_out"]
    for model in document["models"].values():
        assert len(model["agree"]) >= 2 and all(row["passed"] for row in model["agree"].values())
        for who in ("engine", "hooks"):
            assert model["measured"]["all heads of three layers"][who]["seconds"] > 0
        assert set(model["libraries"]) == {"nnsight", "transformer_lens"}
        assert all(ratio > 0 for ratio in model["ratios"].values())


def test_without_a_card_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with pytest.raises(SystemExit, match="There is no CUDA card here"):
        main([])


def test_goals_are_held_against_the_worst_model() -> None:
    def model(heads: float, statistics: float, peak: float | None) -> dict:
        measured = {"estimate": {"estimate": {"seconds": 1.0, "samples": [1.0], "peak_gib": peak}}}
        return {"ratios": {"all heads of three layers": heads, "statistics": statistics}, "measured": measured}

    found = goals({"a": model(0.2, 1.05, 3.0), "b": model(0.3, 1.2, 9.0)})
    assert found["all heads of three layers"] == {"at most": 0.35, "worst": 0.3, "met": True}
    assert found["statistics"]["met"] is False and found["memory, GiB"]["worst"] == 9.0
    assert goals({"a": {"out_of_memory": "so it is"}})["memory, GiB"]["met"] is False


def test_a_card_keeps_passes_within_what_is_free_and_a_processor_within_its_limits() -> None:
    assert free_bytes(torch.device("cpu")) is None
    assert kept_bytes(torch.device("cpu")) == (KEPT_BYTES, KEPT_CLEAN_BYTES)
    gib = 1 << 30
    passes, clean = kept_bytes(torch.device("cuda"), free=lambda device: 16 * gib)
    assert (passes, clean) == (8 * gib, 4 * gib), "a quarter is left for what runs"
    assert kept_bytes(torch.device("cuda"), free=lambda device: 0) == (0, 0)
