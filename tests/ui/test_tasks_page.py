"""The Tasks page: the induction task on a bundled model at once, a head by method and position, pairs of one's own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from ablation_core import ablate, find_statistics, load_data, load_statistics
from ablation_core.data import uploads
from ablation_core.errors import DataError
from ablation_core.experiments.predictions.task_prompts import asked_prompts
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import finished
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from ablation_core.ui.runs import controls as run_controls
from ablation_core.ui.shared import shared_estimates, shared_jobs
from tests.conftest import ROOT
from tests.ui.test_pages import charts, text_of

COMPARED = ("zero", "mean", "mean-positional", "peak", "resample-dataset", "counterfactual")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(run_controls, "FOLDER", tmp_path)
    monkeypatch.setattr("ablation_core.methods.optimal.TRAINING_PROMPTS", 16)
    yield tmp_path
    for job in list(shared_jobs()._jobs.values()):
        job.stop()
        job.wait(60)
    shared_estimates().clear()


def opened(**params: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    at.switch_page("pages/tasks.py")
    for name, value in ({"model": "opt-mini", "prompts": "50", "method": "zero"} | params).items():
        at.query_params[name] = value
    return at.run()


def test_the_induction_task_with_a_head_by_method_and_on_every_prompt(opt_mini: LoadedModel, folder: Path) -> None:
    data = load_data("task:induction", opt_mini, predictions=50)
    statistics = load_statistics(find_statistics(opt_mini, "python-docs").path, opt_mini)
    spec = SweepSpec(tuple(METHODS[name] for name in METHODS if name in COMPARED), heads=((4, 5),), random_sets=0)
    result = finished(sweep_steps(opt_mini, data, spec, statistics, folder))
    at = opened(head="4.5")
    assert not at.exception and not at.error
    alone = ablate(opt_mini, data, "4.5", "zero")
    assert f"{alone.baseline['accuracy']:.0%} of 50 prompts" in text_of(at)
    assert "Measure 35 heads × 6 methods on 50 prompts" in [button.label for button in at.button]
    assert len(charts(at)) >= 3  # the map, the head by every method, its prompts
    assert alone.predictions is not None
    before, after = (
        scores["logit_difference"] for scores in (alone.predictions.baseline, alone.predictions.ablated["zero"])
    )
    shown = at.dataframe[0].value.sort_index()
    assert shown["change"].to_numpy() == pytest.approx(after - before)
    assert shown["P(wrong)"].to_numpy() == pytest.approx(
        alone.predictions.baseline["probability"].__mul__(2.718281828459045**-before)
    )
    assert f"falls on {int((after < before).sum())} of 50 prompts" in text_of(at)
    assert result.changes("zero", "logit_difference")["4.5"] == pytest.approx((after - before).mean())
    harm = {name: -result.changes(name, "logit_difference")["4.5"] for name in COMPARED}
    kept = (
        harm["counterfactual"],
        harm["mean-positional"] - harm["counterfactual"],
        harm["mean"] - harm["mean-positional"],
    )
    named = ("what the counterfactual changes", "other information", "position")
    for value, part in zip(kept, named, strict=True):
        assert f"{value:+.3f} for {part}".replace("-", "−") in text_of(at)
    button = next(button for button in at.button if button.label == "Measure head 4.5 by position")
    button.click()
    at.run()
    assert not at.exception


def test_a_position_alone_and_words_that_are_none(folder: Path) -> None:
    at = opened(positions="last")
    assert not at.exception and not at.error
    at.text_input(key="positions").set_value("somewhere").run()
    assert not at.exception and "Cannot read 'somewhere'" in at.error[0].value
    assert "Shown below: last." in text_of(at), "the last positions that could be used stay"
    headings = [one.value for one in at.subheader]
    next(one for one in at.text_input if one.label == "Head").set_value("9.9").run()
    assert not at.exception and any("no layer 9" in error.value for error in at.error)
    assert [one.value for one in at.subheader] == headings == ["On which prompts it helps or hurts"], "the page stands"


def test_what_has_no_tasks_says_so(folder: Path) -> None:
    at = opened(model="vit-mini", method="mean")
    assert not at.exception and "Choose a language model" in text_of(at)
    at = opened(task="task:ioi")
    assert not at.exception and "needs at least 4 words" in at.error[0].value


def test_pairs_are_kept_and_asked(opt_mini: LoadedModel, tmp_path: Path) -> None:
    line = {"prompt": "The value of x is", "right": " not", "wrong": " set"}
    content = "\n".join(json.dumps(line | {"group": str(number)}) for number in range(4)).encode()
    kept = uploads.keep_pairs("mine.jsonl", content, tmp_path)
    assert kept.kind == "pairs" and uploads.keep_pairs("mine.jsonl", content, tmp_path) == kept
    as_records = uploads.keep_upload("mine.jsonl", content, tmp_path)
    assert as_records.kind == "jsonl" and as_records.digest != kept.digest
    ref = uploads.reference(kept, tmp_path)
    assert uploads.references("pairs", tmp_path) == (ref,) and ref not in uploads.references("text", tmp_path)
    data = load_data(ref, opt_mini, predictions=9)
    assert {(one.prompt, one.right, one.wrong) for one in asked_prompts(opt_mini, data)} == {tuple(line.values())}
    with pytest.raises(DataError, match=r"Line 1 of mine.jsonl has no wrong"):
        uploads.keep_pairs("mine.jsonl", b'{"prompt": "a", "right": "b"}', tmp_path)
    assert len(uploads.list_uploads(tmp_path)) == 2
