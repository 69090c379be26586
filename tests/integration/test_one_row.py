"""A metric or a method is one row: a new one goes through documents, tables, charts, reports and exported scripts."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ablation_core import ablate, find_statistics, load_data, load_statistics
from ablation_core.__main__ import main
from ablation_core.cli.text.curves import format_curve
from ablation_core.cli.text.experiments import format_estimate, format_result
from ablation_core.cli.text.runs import format_sweep
from ablation_core.engine.metrics import METRICS, Metric
from ablation_core.engine.scores import ScoredLogits, score, score_clean
from ablation_core.experiments.estimate import estimate
from ablation_core.experiments.estimate_validation import largest_heads, validate_estimate
from ablation_core.experiments.noise_floor import NoiseFloor
from ablation_core.methods.registry import METHODS, Method
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import finished
from ablation_core.report import export, frames, run_frames
from ablation_core.report.charts import looks, user_input_charts
from ablation_core.report.html import result_table
from ablation_core.report.run_sentences import curve_levels, sweep_sentence
from ablation_core.runs.adaptive import AdaptiveSpec, adaptive_steps
from ablation_core.runs.pruning import CurveSpec, curve_steps, kept_curves
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from ablation_core.runs.sweep_result import kept_sweeps
from ablation_core.selection import Selection
from ablation_core.ui.ablation.job import AblationProgress
from ablation_core.ui.export_row import ExportContent, ablation_exports
from ablation_core.ui.learn.glossary import words
from ablation_core.ui.runs.export_row import curve_exports, sweep_exports
from ablation_core.ui.sidebar.view import View

HEADS = ((0, 0), (1, 1), (2, 2), (3, 3))


def entropies(run: ScoredLogits) -> np.ndarray:
    log_probs = run.logits.log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1).double().numpy()


ENTROPY = Metric(
    "entropy", "entropy", "nats", ".3f", "+.3f", "+.2f", ".1f",
    worse=1, values=entropies, estimate=lambda slope, curvature: slope, curve=True,
)  # fmt: skip
OPPOSITE = Method(
    "opposite", "Every selected neuron is set to its mean with the other sign.",
    constant=lambda statistics, bins: -statistics.mean, needs_statistics=True,
)  # fmt: skip


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "entropy", ENTROPY)
    monkeypatch.setitem(METHODS, "opposite", OPPOSITE)


@pytest.fixture
def view(opt_mini: LoadedModel) -> View:
    statistics = load_statistics(find_statistics(opt_mini, "python-docs").path, opt_mini)
    return View(opt_mini.info, "python-docs", 120, statistics, Selection.parse("3.2", opt_mini.shape), "opposite", 100)


def drawn_and_told(taken: ExportContent, words: str) -> str:
    """Draw every chart and write every table and the report; all that they say, as text."""
    said = [taken.script, taken.command, taken.report()]
    for title, chart in taken.charts.items():
        said += [title, chart.alternative, export.to_svg(chart.draw(), title, chart.alternative)]
    for frame in taken.tables.values():
        said += [export.to_csv(frame(), {}).decode(), export.to_json(frame(), {}).decode()]
    assert all(words in text for text in said[:3]), "script, command and report"
    return "\n".join(said)


@pytest.mark.usefixtures("rows")
def test_an_ablation_has_the_new_metric_and_the_new_method(
    opt_mini: LoadedModel, view: View, capsys: pytest.CaptureFixture
) -> None:
    command = ["ablate", "opt-mini", "--select", "3.2", "--method", "opposite", "--method", "zero"]
    assert main([*command, "--predictions", "120", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    data = load_data("python-docs", opt_mini, 120)
    result = ablate(opt_mini, data, "3.2", ["opposite", "zero"], statistics=view.statistics)
    assert document | {"provenance": None} == result.to_dict() | {"provenance": None}
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in data:
            probs = opt_mini.module(**batch.inputs).logits.double().softmax(-1)
            for row, targets in zip(probs, batch.targets, strict=True):
                for one, target in zip(row, targets.tolist(), strict=True):
                    if target >= 0:
                        total, count = total - sum(p * np.log(p) for p in one.tolist() if p), count + 1
    assert document["baseline"]["entropy"] == pytest.approx(total / count, rel=1e-6)
    for row in document["results"]:
        change = row["entropy"] - document["baseline"]["entropy"]
        assert row["change"]["entropy"]["mean"] == pytest.approx(change, abs=1e-9)
    assert "entropy, nats" in format_result(result) and "opposite" in format_result(result)
    assert "entropy, nats" in result_table(result) and "change of entropy (mean)" in frames.result_frame(result)
    said = drawn_and_told(ablation_exports(view, AblationProgress(result, NoiseFloor(-0.1, 0.1, 8))), "opposite")
    assert "Change of entropy, nats per prediction" in said and looks.mark_of("opposite").color in said


@pytest.mark.usefixtures("rows")
def test_the_exported_script_gives_the_numbers_again(opt_mini: LoadedModel, view: View) -> None:
    result = ablate(opt_mini, load_data("python-docs", opt_mini, 60), "3.2", ["opposite"], statistics=view.statistics)
    script = ablation_exports(view, AblationProgress(result, None)).script
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(script, "script", "exec"), {"__name__": "__main__"})
    assert json.loads(printed.getvalue())["results"] == json.loads(json.dumps(result.to_dict()["results"]))


@pytest.mark.usefixtures("rows")
def test_maps_curves_and_estimates_have_them_too(opt_mini: LoadedModel, view: View, tmp_path: Path) -> None:
    data, methods = load_data("python-docs", opt_mini, 300, seq_len=64), (METHODS["zero"], OPPOSITE)
    swept = finished(
        sweep_steps(opt_mini, data, SweepSpec(methods, heads=HEADS, random_sets=1), view.statistics, tmp_path)
    )
    document = swept.to_dict()
    assert (
        set(document["agreement"]) == {name for name, metric in METRICS.items() if not metric.answers}
        and "entropy" in document["noise_floor"][0]
    )
    assert document["heads"][0]["results"][1]["p_values"]["entropy"] is not None
    found = estimate(opt_mini, data, ["zero", "opposite"], statistics=view.statistics, passes=1)
    estimated = {f"{x}.{y}": (float(found.methods[1]["entropy"].heads[x, y]), 0.1) for x, y in HEADS}
    taken = sweep_exports(swept, "opposite", "entropy", "1.1", estimated, pd.DataFrame())
    assert "change of entropy, nats" in drawn_and_told(taken, "opposite") and len(taken.charts) == 4
    assert "on the entropy (FDR 5%" in sweep_sentence(swept, "opposite", "entropy") and format_sweep(swept)
    assert "entropy" in found.to_dict()["results"][0]["heads"][0]
    exact = validate_estimate(opt_mini, data, found, view.statistics, largest_heads(found, 1))
    assert "change of entropy against exact" in format_estimate(found, exact)
    spec = CurveSpec(methods, seeds=(1, 2), percents=(0, 50, 90))
    curves = finished(curve_steps(opt_mini, data, spec, view.statistics, tmp_path))
    assert "entropy" in curves.to_dict()["ranks"] and "entropy" in format_curve(curves)
    assert list(curve_levels(curves, "entropy")) == [f"baseline {curves.baseline['entropy']:.1f}"]
    said = drawn_and_told(curve_exports(curves, "entropy"), "opposite")
    assert "entropy, nats" in said and looks.mark_of("opposite").color in said
    adaptive = finished(
        adaptive_steps(opt_mini, data, AdaptiveSpec(methods, heads=HEADS[:2]), view.statistics, tmp_path)
    )
    assert "entropy" in adaptive.baseline and "entropy" in adaptive.heads[0]["results"][1]["change"]


def test_runs_that_are_older_than_a_metric_still_load(
    opt_mini: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, zero = load_data("python-docs", opt_mini, 120, seq_len=32), (METHODS["zero"],)
    finished(sweep_steps(opt_mini, data, SweepSpec(zero, heads=HEADS, random_sets=0), None, tmp_path))
    finished(curve_steps(opt_mini, data, CurveSpec(zero, seeds=(1,), percents=(0, 50)), None, tmp_path))
    monkeypatch.setitem(METRICS, "entropy", ENTROPY)
    (swept,), (curves,) = kept_sweeps(opt_mini, tmp_path).values(), kept_curves(opt_mini, tmp_path).values()
    assert len(swept.heads) == 4 and "entropy" not in swept.to_dict()["agreement"]
    assert len(curves.points) == 2 and curves.metrics == ["loss", "top1"]
    assert run_frames.map_frame(swept, "zero", "entropy").empty
    assert len(run_frames.map_frame(swept, "zero", "loss")) == 4
    assert run_frames.method_frame(swept, "0.0", "entropy", "zero").empty
    assert "No head has been measured" in sweep_sentence(swept, "zero", "entropy")


def test_a_metric_may_need_several_targets_and_some_data_only(opt_mini: LoadedModel) -> None:
    """The difference of log-probabilities between a right and a wrong answer, as tasks will have it."""

    def differences(run: ScoredLogits) -> np.ndarray:
        right, wrong = run.logits.double().gather(1, run.targets).T
        return (right - wrong).numpy()

    row = replace(METRICS["loss"], name="difference", values=differences, applies=lambda data: data.ref == "a task")
    logits, targets = torch.tensor([[1.0, 3.0, 0.5], [2.0, 0.0, 2.5]]), torch.tensor([[1, 0], [0, 2]])
    scores = score(logits, targets, score_clean(logits, targets), (METRICS["loss"], row))
    assert scores["difference"].tolist() == [2.0, -0.5]
    assert scores.loss.tolist() == score(logits, targets[:, 0], score_clean(logits, targets[:, 0])).loss.tolist()
    data = load_data("python-docs", opt_mini, 20)
    assert not row.applies(data) and row.applies(replace(data, ref="a task"))


def test_methods_without_a_mark_of_their_own_are_drawn() -> None:
    names = ["mean", *(f"new-{number}" for number in range(12))]
    assert len({looks.mark_of(name) for name in names}) > 6, "they seldom look alike"
    answers = pd.DataFrame({"kind": names, "name": "a", "order": 0, "share": 0.1})
    assert user_input_charts.probabilities(answers, answers, tuple(names)).to_dict()


@pytest.mark.usefixtures("rows")
def test_the_glossary_explains_a_new_method() -> None:
    assert words()["Ablation"].loc["opposite", "meaning"] == OPPOSITE.description
    assert "peak-own-range" not in words()["Ablation"].index, "what is explained already is not told twice"
