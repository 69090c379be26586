"""The Learn page and the Models and data page, through Streamlit's own harness; and the row that ends other pages."""

import json
import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from ablation_core import bundled
from ablation_core.data import uploads
from ablation_core.ui.learn.lessons import EXAMPLES, EXPERIMENTS, REFERENCES
from ablation_core.ui.learn.toy import PRESETS
from tests.conftest import ROOT
from tests.ui.test_pages import HEAVY


def opened(page: str, **params: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    at.switch_page(f"pages/{page}.py")
    for name, value in params.items():
        at.query_params[name] = value
    return at.run()


def text_of(at: AppTest) -> str:
    kinds = (at.markdown, at.caption, at.info, at.success, at.error, at.header, at.subheader)
    return " ".join(str(element.value) for kind in kinds for element in kind)


def marks(at: AppTest, chart: int) -> dict[str, str]:
    """The texts beside a chart's marks, by kind."""
    from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df

    for data in at.get("vega_lite_chart")[chart].proto.datasets:
        frame = convert_arrow_bytes_to_pandas_df(data.data.data)
        if "kind" in frame:
            return dict(zip(frame["kind"], frame["text"], strict=True))
    raise AssertionError("no marks")


def test_learn_needs_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_model(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("ablation_core.loading.load.load_model", no_model)
    at = opened("learn")
    assert not at.exception and not at.error
    assert len(at.get("vega_lite_chart")) == 2
    text = text_of(at)
    for experiment in EXPERIMENTS:
        assert experiment.title in text and experiment.question in text and experiment.answer_text in text
    for reference in REFERENCES:
        assert reference.link in text
    assert [expander.label for expander in at.expander].count("Answer to experiment 1") == 1


def test_the_sliders_move_the_marks_and_the_sentence() -> None:
    at = opened("learn")
    before, sentence = marks(at, 0), text_of(at)
    at.slider(key="toy-lean").set_value(0.0).run()
    assert not at.exception
    after = marks(at, 0)
    assert after["peak"].startswith("peak 1.5") and after["mean"] == "mean 1.5" and before["mean"] != after["mean"]
    assert "Mean and peak agree" in text_of(at) and "Mean and peak agree" not in sentence


def test_a_shape_sets_the_sliders() -> None:
    at = opened("learn")
    at.pills(key="toy-shape").set_value("Two humps").run()
    assert not at.exception
    assert at.slider(key="toy-second").value == PRESETS["Two humps"].second
    assert PRESETS["Two humps"].sentence() in text_of(at)


def test_the_real_neuron_changes_with_its_kind_and_bins() -> None:
    at = opened("learn", kind="Two humps")
    assert "two habits" in text_of(at)
    before = marks(at, 1)
    at.select_slider(key="learn-bins").set_value(100).run()
    assert not at.exception and marks(at, 1)["peak"] != before["peak"] and marks(at, 1)["mean"] == before["mean"]


@pytest.mark.parametrize("model", HEAVY)
def test_a_real_neuron_of_every_kind_of_model(model: str) -> None:
    at = opened("learn")
    (control,) = (one for one in at.segmented_control if one.key == "learn-model")
    control.set_value(model).run()
    assert not at.exception and not at.error
    for kind, example in EXAMPLES[model].items():
        at.segmented_control(key="kind").set_value(kind).run()
        assert not at.exception and example.words in text_of(at)
        assert f"Neuron {example.name} of {model}" in text_of(at)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own in place of the project's, with the bundled statistics."""
    for name in bundled.STATISTICS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "cached_stats" / name, tmp_path / name)
    from ablation_core.activations import files
    from ablation_core.server import inventory, models_here

    for function in (
        uploads.keep_upload, uploads.list_uploads, uploads.reference, uploads.references, uploads.delete_upload,
        files.list_statistics, files.save_statistics, files.statistics_path, files.find_statistics,
        models_here.list_models, inventory.list_data, inventory.import_statistics,
        inventory.delete_statistics,
    ):  # fmt: skip
        replaced = tuple(tmp_path if str(value).endswith("cached_stats") else value for value in function.__defaults__)
        monkeypatch.setattr(function, "__defaults__", replaced)
    return tmp_path


def test_models_data_and_statistics_are_listed(own_cache: Path) -> None:
    at = opened("models_and_data")
    assert not at.exception and not at.error
    models, data, statistics = (at.dataframe[number].value for number in range(3))
    assert set(bundled.NAMES) <= set(models["reference"])
    assert {"python-docs", "fashion-mnist"} <= set(data["reference"])
    assert sorted(statistics["model"]) == sorted(path.split("/")[0] for path in bundled.STATISTICS)
    assert all(len(digest) == 16 for digest in statistics["digest"])


def test_an_uploaded_text_is_kept_offered_and_deleted(own_cache: Path) -> None:
    at = opened("models_and_data")
    at.file_uploader(key="upload").upload("notes.txt", b"some words\n" * 500, "text/plain").run()
    assert not at.exception and not at.error
    assert "Uploaded notes.txt" in text_of(at)
    (kept,) = uploads.list_uploads(own_cache)
    at = opened("models_and_data")
    assert f"notes.txt ({kept.digest})" in at.selectbox(key="uploaded").options
    at.button(key="delete upload").click().run()
    assert not at.exception and uploads.list_uploads(own_cache) == []
    assert "Deleted: notes.txt" in text_of(at)


@pytest.mark.parametrize(("key", "name", "content", "words"), [
    ("upload", "x.txt", b"\x00\x01", "binary"),
    ("upload", "x.zip", b"PK\x03\x04 nothing", "cannot be unpacked"),
    ("import", "x.safetensors", b"nothing", "damaged"),
])  # fmt: skip
def test_a_bad_upload_gets_a_sentence(own_cache: Path, key: str, name: str, content: bytes, words: str) -> None:
    at = opened("models_and_data")
    at.file_uploader(key=key).upload(name, content, "application/octet-stream").run()
    assert not at.exception and words in at.error[0].value


def test_statistics_are_computed_imported_and_deleted(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ablation_core.data.references import STATISTICS_PREDICTIONS

    monkeypatch.setitem(STATISTICS_PREDICTIONS, "vision", 40)
    at = opened("models_and_data")
    at.selectbox(key="of").set_value("vit-mini").run()
    next(button for button in at.button if button.label == "Compute statistics").click().run()
    assert not at.exception and not at.error
    assert "saved, digest" in at.success[0].value and len(list(own_cache.glob("vit-mini/*.safetensors"))) == 3
    name = next(name for name in at.selectbox(key="statistics").options if "vit-mini" in name and "40 " not in name)
    at.selectbox(key="statistics").set_value(name).run()
    next(button for button in at.button if button.label == "Compute again").click().run()
    assert not at.exception and not at.error and "digest" in at.success[0].value
    path = own_cache / bundled.STATISTICS[0]
    content = path.read_bytes()
    path.unlink()
    at = opened("models_and_data")
    at.file_uploader(key="import").upload(path.name, content, "application/octet-stream").run()
    assert not at.exception and path.exists() and "Imported as opt-mini" in text_of(at)
    at = opened("models_and_data")  # the harness would upload the file again at each run
    at.button(key="delete file").click().run()
    assert not at.exception and not path.exists() and "Deleted: opt-mini" in text_of(at)


def test_a_model_that_cannot_be_had_gets_a_sentence(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ablation_core.errors import ModelError

    def missing(ref: str) -> None:
        raise ModelError(f"There is no model {ref!r}.")

    monkeypatch.setattr(
        "ablation_core.loading.load.load_model", missing
    )  # the harness cannot type what is not in the list
    from ablation_core.ui import shared

    shared._model.clear()
    shared._models_in_use().clear()
    at = opened("models_and_data")
    next(button for button in at.button if button.label == "Compute statistics").click().run()
    assert not at.exception and "no model" in at.error[0].value


def test_the_row_at_the_end_of_a_page() -> None:
    at = opened("ablate", model="opt-mini", predictions="500", select="3.2")
    assert not at.exception
    script, command = (block.value for block in at.code[-2:])
    assert "load_model('opt-mini', dtype='float32')" in script and "'3.2'" in script
    assert command.startswith("python -m ablation_core ablate opt-mini")
    labels = [button.proto.label for button in at.get("download_button")]
    assert labels.count("PNG") == labels.count("SVG") == 5 and labels.count("CSV") == labels.count("JSON") == 2
    assert labels[-1] == "Report"


def test_charts_of_both_pages_say_what_they_show() -> None:
    at = opened("learn")
    for chart in at.get("vega_lite_chart"):
        json.loads(chart.proto.spec)
        assert len(chart.proto.alt) > 20 if hasattr(chart.proto, "alt") else True
