"""The Head map and Pruning curves pages with each bundled model: kept runs drawn at once, begun, stopped, gone on with."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from ablation_core import find_statistics, load_data, load_model, load_statistics
from ablation_core.cluster import driver
from ablation_core.data.dataset import Data
from ablation_core.data.references import DEFAULT_DATA
from ablation_core.experiments.estimate import estimate
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import finished
from ablation_core.runs.adaptive import AdaptiveSpec, adaptive_steps
from ablation_core.runs.pruning import CurveSpec, curve_steps
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from ablation_core.runs.sweep_result import kept_sweeps
from ablation_core.selection import Selection
from ablation_core.ui.runs import controls as run_controls
from ablation_core.ui.shared import shared_estimates, shared_jobs, shared_maps, shared_model
from tests.conftest import ROOT
from tests.integration.test_load import held_elsewhere
from tests.ui.test_pages import HEAVY, box, charts, text_of

TWO = (METHODS["zero"], METHODS["mean"])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(run_controls, "FOLDER", tmp_path)
    yield tmp_path
    for job in list(shared_jobs()._jobs.values()):
        job.stop()
        job.wait(60)
    shared_estimates().clear()
    shared_maps().clear()


def measured(name: str, predictions: int = 40) -> tuple:
    """A model with little data and its statistics."""
    model = load_model(name)
    ref = DEFAULT_DATA[model.modality]
    return model, load_data(ref, model, predictions), load_statistics(find_statistics(model, ref).path, model)


def opened(page: str, **params: str | list[str]) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    at.switch_page(f"pages/{page}.py")
    for name, value in ({"predictions": "500", "methods": ["zero", "mean"], "method": "mean"} | params).items():
        at.query_params[name] = value
    return at.run()


def button(at: AppTest, start: str):
    return next((button for button in at.button if button.label.startswith(start)), None)


@pytest.mark.parametrize("name", HEAVY)
def test_a_kept_map_is_drawn_at_once(name: str, folder: Path) -> None:
    model, data, statistics = measured(name)
    heads = ((0, 0), (1, 1), (2, 2), (3, 3), (5, 4))
    result = finished(sweep_steps(model, data, SweepSpec(TWO, heads=heads, random_sets=2), statistics, folder))
    at, unit = opened("head_map", model=name), "images" if name == "vit-mini" else "predictions"
    assert not at.exception and not at.error
    assert "(5 measured so far)" in text_of(at) and "2 random sets" in text_of(at)
    assert f"40 {unit}" in text_of(at), "the kept run is shown, not the view's own, which has not begun"
    assert len(charts(at)) >= 4  # the map, one head by every method, the matrix, the scatter; and soon the estimates
    assert f"{model.ref} on 40 {unit} of {data.ref} (evaluation part)" in text_of(at)
    assert statistics.digest[:8] in text_of(at)
    assert button(at, f"Measure 36 heads × 2 methods on 500 {unit}")
    table = at.dataframe[0].value
    table = table[table["state"] != "estimate"]  # of the other heads, as soon as they are there
    assert set(table["head"]) == {"0.0", "1.1", "2.2", "3.3", "5.4"}
    top = table.iloc[0]
    assert top["change of loss, nats"] == pytest.approx(result.changes("mean", "loss")[top["head"]])


@pytest.mark.parametrize("name", HEAVY)
def test_kept_curves_are_drawn_at_once(name: str, folder: Path) -> None:
    model, data, statistics = measured(name)
    result = finished(curve_steps(model, data, CurveSpec(TWO, percents=(0, 50, 100)), statistics, folder))
    at = opened("pruning_curves", model=name, step="50")
    assert not at.exception and not at.error
    assert "Smallest damage over the whole curve" in text_of(at)
    band = result.band("mean", "loss", 50)
    table = at.dataframe[0].value.set_index("method")
    assert table.loc["mean", "at 50%"] == f"{band['mean']:.3f} ({band['low']:.3f}–{band['high']:.3f})"
    (chart,) = charts(at)
    words = str(chart)
    assert f"chance: 1 of {result.description['classes']:,}" in words or at.get("vega_lite_chart")[0].proto.datasets
    at.pills(key="metric").set_value("top1").run()
    assert not at.exception and "top-1" in text_of(at)
    at.toggle(key="whole").set_value(True).run()
    assert not at.exception and "Nothing has been measured" in text_of(at), "whole heads are another run"


def test_every_measure_of_the_map(folder: Path) -> None:
    model, data, statistics = measured("vit-mini")
    finished(
        sweep_steps(
            model, data, SweepSpec(TWO, heads=((0, 0), (1, 1), (2, 2), (3, 3)), random_sets=1), statistics, folder
        )
    )
    at = opened("head_map", model="vit-mini")
    assert at.pills(key="metric").options == ["loss", "top-1", "KL"], "one of ten classes is always among ten"
    for metric in ("top1", "kl"):
        at.pills(key="metric").set_value(metric).run()
        assert not at.exception and not at.error
    assert "a KL above every random set's" in text_of(at)
    box(at, "head").set_value("2.2").run()
    assert "Head 2.2 by every method" in text_of(at)
    links = [link.proto for link in at.get("page_link")]
    assert {link.label for link in links} >= {"Distributions of 2.2", "Ablate 2.2"}
    box(at, "head").set_value("99.1").run()
    assert not at.exception and "no layer 99" in at.error[0].value
    assert "Head 2.2 by every method" in text_of(at), "the last head that could be shown stays"
    box(at, "head").set_value("0.0 1.1").run()
    assert not at.exception and "is 2 heads" in at.error[0].value and "Head 2.2 by every method" in text_of(at)


def test_begun_stopped_and_gone_on_with(folder: Path) -> None:
    at = opened("head_map", model="opt-mini", methods="mean")
    assert "Nothing has been measured" in text_of(at)
    button(at, "Measure").click()
    at.run()
    assert not at.exception and button(at, "Stop")
    _wait_for(lambda: kept_sweeps(load_model("opt-mini"), folder))
    at.run()
    assert not at.exception and "measured so far" in text_of(at) and charts(at), "partial results are drawn"
    button(at, "Stop").click()
    at.run()
    for job in list(shared_jobs()._jobs.values()):
        job.wait(60)
    (path,) = (folder / "runs").glob("*.jsonl")
    kept = path.read_bytes()
    assert 1 < len(kept.splitlines()) < 61, "stopped in the middle"
    at.run()
    assert not at.exception and not at.error and button(at, "Continue")
    button(at, "Continue").click()
    at.run()
    _wait_for(lambda: len(path.read_bytes().splitlines()) > len(kept.splitlines()))
    button(at, "Stop").click()
    at.run()
    assert path.read_bytes().startswith(kept), "what was finished is not computed again"
    for job in list(shared_jobs()._jobs.values()):
        job.wait(60)


@pytest.mark.slow
def test_an_estimate_that_others_have_displaced_is_made_again(folder: Path) -> None:
    at = opened("head_map", model="vit-mini", methods="mean")
    _wait_for(lambda: not shared_jobs().running())
    assert "an instant estimate, not measured yet" in text_of(at.run())
    shared_estimates().clear()
    for key in list(shared_jobs()._jobs):
        shared_jobs().forget(key)
    at.run()
    _wait_for(lambda: not shared_jobs().running())
    assert (
        not at.run().exception
        and "an instant estimate, not measured yet" in text_of(at)
        and "Being computed" not in text_of(at)
    )


def test_a_long_run_says_that_it_waits_for_the_model(folder: Path) -> None:
    model = shared_model("opt-mini")
    with held_elsewhere(model):
        at = opened("pruning_curves", model="opt-mini", methods="mean")
        button(at, "Measure").click()
        at.run()
        _wait_for(lambda: any(job.waiting for job in shared_jobs().running().values()))
        (bar,) = at.run().get("progress")
        assert bar.proto.text.endswith("waiting for the model, which another computation is using")
        button(at, "Stop").click()
        at.run()


@pytest.mark.parametrize("name", HEAVY)
def test_every_head_and_neuron_is_estimated_at_once(name: str, folder: Path) -> None:
    at = opened("head_map", model=name, methods="mean", head="1.1:3")
    _wait_for(lambda: not shared_jobs().running())
    at.run()
    assert not at.exception and not at.error
    model, _, statistics = measured(name)
    data = load_data(DEFAULT_DATA[model.modality], model, 500)
    expected = estimate(model, data, "mean", statistics=statistics).methods[0].loss
    table = next(one.value for one in at.dataframe if "estimate" in one.value and "head" in one.value)
    assert len(table) == 36 and set(table["state"]) == {"estimate"}
    for row in table.itertuples():
        layer, head = map(int, row.head.split("."))
        assert row.estimate == pytest.approx(expected.heads[layer, head], rel=1e-4, abs=1e-6)
    neurons = next(one.value for one in at.dataframe if "neuron" in one.value)
    assert len(neurons) == 20
    for neuron, value, error in neurons.itertuples(index=False):
        ((layer, head), (number,)) = Selection.parse(neuron, model.shape).chosen[0]
        assert value == pytest.approx(expected.neurons[layer, head, number], rel=1e-4, abs=1e-7)
        assert error == pytest.approx(expected.neurons_error[layer, head, number], rel=1e-3, abs=1e-7)
    assert abs(neurons.iloc[0, 1]) == pytest.approx(np.nanmax(np.abs(expected.neurons)), rel=1e-4)
    assert {link.proto.label for link in at.get("page_link")} >= {"Distributions of 1.1:3", "Ablate 1.1:3"}


@pytest.mark.slow
def test_an_adaptive_map_is_measured_drawn_and_said(folder: Path) -> None:
    at = opened("head_map", model="vit-mini", methods="mean", adaptive="true")
    assert not at.exception and at.pills(key="metric").options == ["loss"]
    button(at, "Measure 36 heads × 1 method on at most 500 images").click()
    at.run()
    _wait_for(lambda: not shared_jobs().running())
    at.run()
    assert not at.exception and not at.error
    model, _, statistics = measured("vit-mini")
    data = load_data("fashion-mnist", model, 500)
    expected = finished(adaptive_steps(model, data, AdaptiveSpec((METHODS["mean"],)), statistics, folder))
    significant = [head["head"] for head in expected.heads if head["results"][0]["told_from_no_effect"]]
    assert f"**{len(significant)} of 36 heads** have a significant effect" in text_of(at)
    assert f"with {expected.taken:.0%} of a full sweep's predictions" in text_of(at)
    assert button(at, "Measure") is None, "nothing is left to do"
    assert "--adaptive" in at.code[-1].value and "adaptive=True" in at.code[-2].value


@pytest.mark.slow
def test_the_best_kept_run_is_shown_and_others_can_be(folder: Path) -> None:
    model, data, statistics = measured("vit-mini", 70)
    part = ((0, 0), (1, 1))
    finished(sweep_steps(model, data, SweepSpec(TWO, heads=part, random_sets=0), statistics, folder))
    more = load_data("fashion-mnist", model, 90)
    finished(sweep_steps(model, more, SweepSpec(TWO, heads=((0, 0),), random_sets=0), statistics, folder))
    finished(sweep_steps(model, more, SweepSpec(TWO, heads=part, random_sets=0), statistics, folder))
    other = load_data("fashion-mnist", model, 90, seed=3)
    finished(sweep_steps(model, other, SweepSpec(TWO, heads=part[:1], random_sets=0), statistics, folder))
    at = opened("head_map", model="vit-mini")
    (box,) = (box for box in at.selectbox if box.label == "Results from")
    assert box.options == [
        "this view: 500 images of fashion-mnist, not measured yet",
        "saved: 90 images of fashion-mnist, 2 of 36 heads",
        "saved: 70 images of fashion-mnist, 2 of 36 heads",
        "saved: 90 images of fashion-mnist, 1 of 36 heads (seed 3)",
    ]
    assert "on 90 images" in text_of(at)
    runs = kept_sweeps(model, folder, ["mean"])
    box.set_value(next(path for path, run in runs.items() if run.description["data"]["predictions"] == 70)).run()
    assert not at.exception and "on 70 images" in text_of(at)
    at = opened("head_map", model="vit-mini", methods="median", method="median")
    assert not [box for box in at.selectbox if box.label == "Results from"], "none of them has measured the median"


@pytest.mark.parametrize("name", HEAVY)
def test_every_control_of_the_curves(name: str, folder: Path) -> None:
    model, data, statistics = measured(name)
    finished(curve_steps(model, data, CurveSpec(TWO, seeds=(42,), percents=(0, 50, 100)), statistics, folder))
    heads = CurveSpec(TWO, seeds=(42,), percents=(0, 50, 100), whole_heads=True)
    result = finished(curve_steps(model, data, heads, statistics, folder))
    at = opened("pruning_curves", model=name, step="50", seeds="42")
    assert "With one seed there is no interval" in text_of(at)
    at.toggle(key="whole").set_value(True).run()
    assert not at.exception and "the same heads" in text_of(at)
    table = at.dataframe[0].value.set_index("method")
    value = result.value(42, 50, "zero", "loss")
    assert table.loc["zero", "at 50%"] == f"{value:.3f} ({value:.3f}–{value:.3f})"
    at.pills(key="methods").set_value(["zero"]).run()
    assert not at.exception and list(at.dataframe[0].value["method"]) == ["zero"]
    at.select_slider(key="step").set_value(25).run()
    (box,) = (box for box in at.selectbox if box.label == "Results from")
    assert not at.exception and box.options[1].startswith(
        f"saved: 40 {'images' if name == 'vit-mini' else 'predictions'}"
    )
    assert box.options[1].endswith("3 of 3 points"), "a kept run is shown with its own steps"
    at.text_input(key="seeds").set_value("7, 8").run()
    assert not at.exception and button(
        at, f"Measure 10 points on 500 {'images' if name == 'vit-mini' else 'predictions'}"
    )
    for nonsense, reason in (("9.9", "write whole numbers"), ("-1", "0 or more")):
        at.text_input(key="seeds").set_value(nonsense).run()
        assert not at.exception and reason in at.error[0].value and "Shown below: 7, 8." in text_of(at)
        assert button(at, f"Measure 10 points on 500 {'images' if name == 'vit-mini' else 'predictions'}")
    at.pills(key="methods").set_value([]).run()
    assert not at.exception and "at least one method" in text_of(at)


@pytest.mark.parametrize("page", ["head_map", "pruning_curves"])
def test_a_page_opened_by_itself_works_too(page: str, folder: Path) -> None:
    model, data, statistics = measured("vit-mini")
    finished(sweep_steps(model, data, SweepSpec(TWO, heads=((0, 0),), random_sets=0), statistics, folder))
    at = AppTest.from_file(str(ROOT / f"pages/{page}.py"), default_timeout=120)
    at.query_params["model"] = "vit-mini"
    assert not at.run().exception


def test_bad_seeds_get_a_sentence() -> None:
    at = opened("pruning_curves", model="opt-mini", seeds="one two")
    assert not at.exception and "whole numbers" in at.error[0].value
    at = opened("pruning_curves", model="opt-mini", seeds="-4")
    assert not at.exception and "0 or more" in at.error[0].value


def _wait_for(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within a minute")


@pytest.mark.parametrize("page", ["head_map", "pruning_curves"])
def test_a_run_is_given_to_the_cluster_that_the_operator_names(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "place" not in {pill.key for pill in opened(page).pills}, "no choice where there is no cluster"
    monkeypatch.setenv("ABLATION_RAY_ADDRESS", "127.0.0.2:6379")
    given = []

    def steps(model: LoadedModel, data: Data, spec: SweepSpec | CurveSpec, *rest: object) -> Iterator[driver.Progress]:
        given.append((model.ref, data.predictions, [method.name for method in spec.methods], rest[-1]))
        yield driver.Progress(1.0)

    monkeypatch.setattr(driver, "steps_apart", steps)
    at = opened(page)
    assert at.pills(key="place").value == "this machine"
    at.pills(key="place").set_value("the cluster at 127.0.0.2:6379").run()
    button(at, "Measure").click().run()
    for _ in range(600):
        if given and not shared_jobs().running():
            break
        time.sleep(0.1)
    assert given == [("opt-mini", 500, ["zero", "mean"], "127.0.0.2:6379")]
