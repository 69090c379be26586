"""The Head map and Pruning curves pages with each bundled model: kept runs drawn at once, begun, stopped, gone on with."""

import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from test_app import charts, text_of

from ablation_core import find_statistics, load_data, load_model, load_statistics, long_runs
from ablation_core.curve import CurveSpec, curve
from ablation_core.data import DEFAULT_DATA
from ablation_core.methods import METHODS
from ablation_core.server import shared_jobs
from ablation_core.sweep import SweepSpec, kept_sweeps, sweep

MODELS = ("opt-mini", "roberta-mini", "vit-mini")
TWO = (METHODS["zero"], METHODS["mean"])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(long_runs, "FOLDER", tmp_path)
    return tmp_path


def measured(name: str, predictions: int = 40) -> tuple:
    """A model with little data and its statistics."""
    model = load_model(name)
    ref = DEFAULT_DATA[model.modality]
    return model, load_data(ref, model, predictions), load_statistics(find_statistics(model, ref).path, model)


def opened(page: str, **params: str | list[str]) -> AppTest:
    at = AppTest.from_file("../app.py", default_timeout=120)
    at.switch_page(f"pages/{page}.py")
    for name, value in ({"predictions": "500", "methods": ["zero", "mean"], "method": "mean"} | params).items():
        at.query_params[name] = value
    return at.run()


def button(at: AppTest, start: str):
    return next((button for button in at.button if button.label.startswith(start)), None)


@pytest.mark.parametrize("name", MODELS)
def test_a_kept_map_is_drawn_at_once(name: str, folder: Path) -> None:
    model, data, statistics = measured(name)
    heads = ((0, 0), (1, 1), (2, 2), (3, 3), (5, 4))
    result = sweep(model, data, SweepSpec(TWO, heads=heads, random_sets=2), statistics, folder)
    at = opened("head_map", model=name)
    assert not at.exception and not at.error
    assert "(5 measured so far)" in text_of(at) and "2 random sets" in text_of(at)
    assert "40 predictions" in text_of(at), "the kept run is shown, not the view's own, which has not begun"
    assert len(charts(at)) == 4  # the map, one head by every method, the matrix, the scatter
    assert button(at, "Measure 36 heads × 2 methods on 500 predictions")
    table = at.dataframe[0].value
    assert set(table["head"]) == {"0.0", "1.1", "2.2", "3.3", "5.4"}
    top = table.iloc[0]
    assert top["change of loss, nats"] == pytest.approx(result.changes("mean", "loss")[top["head"]])


@pytest.mark.parametrize("name", MODELS)
def test_kept_curves_are_drawn_at_once(name: str, folder: Path) -> None:
    model, data, statistics = measured(name)
    result = curve(model, data, CurveSpec(TWO, percents=(0, 50, 100)), statistics, folder)
    at = opened("pruning_curves", model=name, step="50")
    assert not at.exception and not at.error
    assert "Least harmful over the whole curve" in text_of(at)
    band = result.band("mean", "loss", 50)
    table = at.dataframe[0].value.set_index("method")
    assert table.loc["mean", "at 50 %"] == f"{band['mean']:.3f} ({band['low']:.3f}–{band['high']:.3f})"
    (chart,) = charts(at)
    words = str(chart)
    assert f"chance: 1 of {result.description['classes']:,}" in words or at.get("vega_lite_chart")[0].proto.datasets
    at.pills(key="metric").set_value("top1").run()
    assert not at.exception and "top-1" in text_of(at)
    at.toggle(key="whole").set_value(True).run()
    assert not at.exception and "Nothing is measured" in text_of(at), "whole heads are another run"


def test_every_measure_of_the_map(folder: Path) -> None:
    model, data, statistics = measured("vit-mini")
    sweep(model, data, SweepSpec(TWO, heads=((0, 0), (1, 1), (2, 2), (3, 3)), random_sets=1), statistics, folder)
    at = opened("head_map", model="vit-mini")
    for metric in ("top1", "top10", "kl"):
        at.pills(key="metric").set_value(metric).run()
        assert not at.exception and not at.error
    assert "a KL above every random set's" in text_of(at)
    at.text_input(key="head").set_value("2.2").run()
    assert "Head 2.2 by every method" in text_of(at)
    links = [link.proto for link in at.get("page_link")]
    assert {link.label for link in links} >= {"Distributions of 2.2", "Ablate 2.2"}
    at.text_input(key="head").set_value("99.1").run()
    assert not at.exception and "no layer 99" in at.error[0].value


def test_begun_stopped_and_gone_on_with(folder: Path) -> None:
    at = opened("head_map", model="opt-mini", methods="mean")
    assert "Nothing is measured" in text_of(at)
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
    assert not at.exception and not at.error and button(at, "Go on with")
    button(at, "Go on").click()
    at.run()
    _wait_for(lambda: len(path.read_bytes().splitlines()) > len(kept.splitlines()))
    button(at, "Stop").click()
    at.run()
    assert path.read_bytes().startswith(kept), "what was finished is not computed again"
    for job in list(shared_jobs()._jobs.values()):
        job.wait(60)


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
