"""Keeping results, the page of saved results, interactions on the Ablate page, and comparison mode of the Head map."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from streamlit.testing.v1 import AppTest

from ablation_core import NoiseFloor, ablate, bundled, head_scores, load_data
from ablation_core.models.loaded import LoadedModel
from ablation_core.saved.results import find, keep
from ablation_core.saved.shelves import FolderShelf
from ablation_core.server import access
from ablation_core.ui.runs import controls as run_controls
from ablation_core.ui.shared import shared_jobs, shared_model
from ablation_core.ui.together import keep as keeping
from tests.conftest import ROOT
from tests.ui.test_pages import charts, text_of
from tests.ui.test_run_pages import _wait_for, button


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(keeping, "FOLDER", tmp_path)
    monkeypatch.setattr(run_controls, "FOLDER", tmp_path)
    yield tmp_path
    for job in list(shared_jobs()._jobs.values()):
        job.stop()
        job.wait(60)


def opened(page: str, **params: str | list[str]) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    at.switch_page(f"pages/{page}.py")
    for name, value in params.items():
        at.query_params[name] = value
    return at.run()


@pytest.fixture(scope="module")
def two(opt_mini: LoadedModel) -> list:
    data = load_data("python-docs", opt_mini, predictions=150, seq_len=32)
    return [ablate(opt_mini, data, head, "zero") for head in ("5.0", "5.2")]


def test_nothing_is_kept_yet() -> None:
    at = opened("saved")
    assert not at.exception and "Nothing is kept yet" in text_of(at)


def test_what_is_kept_is_listed_shown_and_compared(two: list, folder: Path) -> None:
    shelf = FolderShelf(folder)
    for name, result in zip(("one *star*", "other"), two, strict=True):
        keep(shelf, result, name)
    keep(shelf, NoiseFloor(-0.1, 0.2, 8), "floor")
    (shelf.folder / "broken-0123456789.result.zip").write_bytes(b"PK")
    at = opened("saved", results=["other"])
    assert not at.exception and "broken-0123456789" in at.warning[0].value.replace("\\", "")
    assert set(at.dataframe[0].value["name"]) == {"one *star*", "other", "floor"}
    assert "Replacing 32 neurons (5.2) with zero values" in text_of(at) and len(charts(at)) == 1
    at.multiselect(key="results").set_value(["one *star*", "other"]).run()
    assert not at.exception and len(charts(at)) == 1
    assert r"one \*star\*" in text_of(at) and "(paired)" in text_of(at)
    links = [link.proto for link in at.get("page_link") if link.proto.label.startswith("Open ")]
    assert len(links) == 2 and "select=5.0" in links[0].query_string
    at.multiselect(key="results").set_value(["floor", "other"]).run()
    assert not at.exception and "no figures in common" in text_of(at)


@pytest.mark.slow
def test_a_result_is_kept_from_its_page(folder: Path) -> None:
    at = opened("ablate", model="opt-mini", predictions="500", select="5.2")
    at.text_input(key=next(one.key for one in at.text_input if (one.key or "").startswith("keep "))).set_value("mine")
    button(at, "Keep").click().run()
    assert not at.exception and "Kept as mine" in at.success[0].value
    saved = find(FolderShelf(folder), "mine")
    assert saved.entry.page["path"] == "pages/ablate.py" and saved.entry.page["params"]["select"] == "5.2"
    assert len(saved.result.to_frame("predictions")) == 6 * 500
    button(at, "Keep").click().run()
    assert not at.exception and "already a saved result" in at.error[0].value


def test_a_head_is_kept_from_the_first_page(folder: Path) -> None:
    model = shared_model("opt-mini")
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for name, value in {"model": "opt-mini", "select": "5.1", "predictions": "500", "method": "mean"}.items():
        at.query_params[name] = value
    at.run()
    at.text_input(key=next(one.key for one in at.text_input if (one.key or "").startswith("keep "))).set_value("mine")
    button(at, "Keep").click().run()
    assert not at.exception and "Kept as mine" in at.success[0].value
    saved = find(FolderShelf(folder), "mine")
    assert saved.entry.kind == "HeadDescription" and saved.entry.page["path"] == "app.py"
    found, data = saved.result.to_dict(), load_data("python-docs", model, predictions=500)
    wanted = ablate(model, data, "5.1", "mean", statistics="python-docs").results[0].change["loss"].mean
    assert found["head"] == "5.1" and found["total_effect"]["method"] == "mean"
    assert found["total_effect"]["mean"] == pytest.approx(wanted, rel=1e-4)
    assert found["scores"]["induction"] == pytest.approx(float(head_scores(model, data).induction[5, 1]))
    assert len(saved.result.to_frame("predictions")) == 500 * (1 + len(found["results"]))  # and the baseline


def test_on_a_shared_server_it_stays_in_the_session(folder: Path, monkeypatch: pytest.MonkeyPatch, two: list) -> None:
    keep(FolderShelf(folder), two[0], "the operator's")
    monkeypatch.setattr(access, "ACCESS", access.decide({"ABLATION_SHARED": "1"}, folder))
    at = opened("saved")
    assert not at.exception and "Nothing is kept yet" in text_of(at) and "operator" not in text_of(at)
    assert "in this session" in text_of(at)


def test_a_visitors_result_leaves_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def script() -> None:
        from ablation_core import NoiseFloor
        from ablation_core.ui.together.keep import keep_popover

        keep_popover(NoiseFloor(-0.1, 0.2, 8), "pages/ablate.py", "mine")

    monkeypatch.setattr(access, "ACCESS", access.decide({"ABLATION_SHARED": "1"}, folder))
    at = AppTest.from_function(script).run()
    button(at, "Keep").click().run()
    assert not at.exception and "Kept as mine" in at.success[0].value and "in this session" in text_of(at)
    assert len(at.session_state["saved results"].files()) == 1 and not list(folder.rglob("*.zip"))
    monkeypatch.setattr(access, "ACCESS", access.Access())
    at = AppTest.from_function(script).run()
    button(at, "Keep").click().run()
    assert len(list(folder.rglob("*.zip"))) == 1, "on one's own machine it is a file"


@pytest.mark.slow
def test_two_heads_have_an_interaction(folder: Path) -> None:
    at = opened("ablate", model="opt-mini", predictions="500", select="0.4 5.0", method="zero")
    assert not at.exception and "Do these heads cover for each other?" in text_of(at)
    button(at, "Measure 1 interaction by zero").click().run()
    _wait_for(lambda: not shared_jobs().running())
    at.run()
    assert (
        not at.exception
        and "too few sequences for an interval" in text_of(at)
        and button(at, "Measure 1 interaction") is None
    )
    table = next(one.value for one in at.dataframe if "pair" in one.value)
    assert list(table["pair"]) == ["0.4 + 5.0"]


def test_comparison_mode_offers_the_other_data_set() -> None:
    at = opened("head_map", model="opt-mini", predictions="500", method="zero", compare="true")
    assert not at.exception and not at.error and "Nothing has been measured" in text_of(at)
    assert at.selectbox(key="with").options == ["python-code", "random twin"]
    assert button(at, "Compare: 36 heads on both by zero")
    for typed, words in {"model: vit-mini": "same", "model: no-such-model": "no-such-model"}.items():
        at = opened("head_map", model="opt-mini", predictions="500", method="zero", compare="true", **{"with": typed})
        assert not at.exception and words in at.error[0].value, typed


def changed_copy(folder: Path) -> Path:
    """opt-mini with one layer's output projection turned round: another model of the same shape and tokenizer."""
    copy = shutil.copytree(bundled.FOLDER / "opt-mini", folder / "other")
    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if "layers.3" in name and name.endswith("out_proj.weight"))
    save_file(weights | {name: -weights[name]}, copy / "model.safetensors", {"format": "pt"})
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("second", ["copy", "random twin"])
def test_two_models_are_compared_on_the_head_map(
    second: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = second
    if second == "copy":  # a server that offers it and has it in memory lists it
        ref = str(changed_copy(tmp_path))
        allowed = access.decide({"ABLATION_SHARED": "1", "ABLATION_MODELS": f"opt-mini {ref}"}, folder)
        monkeypatch.setattr(access, "ACCESS", allowed)
        loaded, typed = shared_model(ref), f"model: {ref}"
        assert loaded.shape.layers == 6
    at = opened("head_map", model="opt-mini", predictions="500", method="zero", compare="true", **{"with": typed})
    assert not at.exception and not at.error
    button(at, "Compare: 36 heads on both by zero").click().run()
    _wait_for(lambda: not shared_jobs().running())
    at.run()
    assert not at.exception and not at.error and len(charts(at)) == 2 and len(at.dataframe[0].value) == 36
    assert "against opt-mini" in text_of(at)
    assert button(at, "Keep"), "it can be kept under a name"


def test_a_visitor_names_no_model_that_is_not_offered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = access.decide({"ABLATION_SHARED": "1", "ABLATION_MODELS": "opt-mini"}, folder)
    assert "does not offer the model 'vit-mini'" in allowed.refusals({"with": "model: vit-mini"})[0]
    assert "does not offer the model '/etc'" in allowed.refusals({"with": "model:  /etc"})[0]
    assert allowed.refusals({"with": "model: opt-mini"}) == [] == allowed.refusals({"with": "python-code"})
    monkeypatch.setattr(access, "ACCESS", allowed)
    at = opened(
        "head_map", model="opt-mini", predictions="500", method="zero", compare="true", **{"with": "random twin"}
    )
    assert not at.exception and at.selectbox(key="with").options == ["python-code"]


@pytest.mark.slow
def test_two_data_sets_are_compared_on_the_head_map(folder: Path) -> None:
    at = opened("head_map", model="opt-mini", predictions="500", method="zero", compare="true")
    button(at, "Compare: 36 heads on both by zero").click().run()
    _wait_for(lambda: not shared_jobs().running())
    at.run()
    assert not at.exception and not at.error and len(charts(at)) == 2
    assert "python-code minus python-docs" in text_of(at).replace("\\", "")
    assert len(at.dataframe[0].value) == 36


@pytest.mark.parametrize("name", ["opt-mini", pytest.param("roberta-mini", marks=pytest.mark.slow)])
def test_the_published_comparison_is_shown_whatever_method_is_chosen(name: str, folder: Path) -> None:
    for path in (ROOT / "cached_stats" / "runs").glob("changes-*.jsonl"):
        (folder / "runs").mkdir(exist_ok=True)
        shutil.copy(path, folder / "runs")
    at = opened("head_map", model=name, predictions="2000", method="peak", compare="true")
    assert not at.exception and not at.error and len(charts(at)) == 2
    assert "Shown: mean, which is saved. With peak nothing has been measured yet." in text_of(at)
    assert button(at, "Compare: 36 heads on both by peak").proto.type == "secondary"
    assert len(at.dataframe[0].value) == 36
