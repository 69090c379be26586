"""A server shared by a class: visitors get what is offered, and no way to the server's files or to others' results.

The command line of whoever runs it is not affected.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest

from ablation_core import __main__ as cli
from ablation_core import bundled
from ablation_core.activations import files as cache
from ablation_core.errors import AblationError, DataError
from ablation_core.models.loaded import LoadedModel
from ablation_core.report import code as share
from ablation_core.runs.pruning import read_seeds
from ablation_core.server import access, jobs
from ablation_core.server.access import Access, decide
from ablation_core.storage import CACHE
from ablation_core.ui import page as pages
from ablation_core.ui import shared as server
from ablation_core.ui.runs import choice as run_choice
from ablation_core.ui.runs import controls as run_controls
from tests.conftest import PAGES, ROOT, watching

OFFERED = Access(True, ("opt-mini", "vit-mini"), ("python-docs", "fashion-mnist"), keeps_runs=True)
LONG_RUNS = ("pages/head_map.py", "pages/pruning_curves.py")
OF_NO_MODEL = ("pages/learn.py", "pages/models_and_data.py", "pages/saved.py")
OF_A_MODEL = [page for page in PAGES if page not in OF_NO_MODEL]
SECRET = "what only the operator may read\n"


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Access:
    monkeypatch.setattr(access, "ACCESS", OFFERED)
    return OFFERED


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A text, a folder of images and a model folder that the operator has and does not offer."""
    (tmp_path / "secret.txt").write_text(SECRET * 300)
    (tmp_path / "images" / "Bag").mkdir(parents=True)
    (tmp_path / "images" / "Bag" / "1.png").write_bytes(b"")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path


def opened(page: str, **params: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=300)
    if page != "app.py":
        at.switch_page(page)
    at.query_params.update(params)
    return at.run()


def said(at: AppTest) -> str:
    kinds = (at.markdown, at.caption, at.info, at.warning, at.error, at.subheader, at.code)
    return " ".join(str(element.value) for kind in kinds for element in kind)


@pytest.mark.parametrize("value", ["", "0", "no", "off", "False", " 0 "])
def test_by_default_nothing_is_refused(value: str, tmp_path: Path) -> None:
    alone = decide({"ABLATION_SHARED": value, "ABLATION_MODELS": "opt-mini"}, tmp_path)
    assert alone == Access() and not alone.shared
    for ref in ("opt-mini", "/etc", "owner/name", "text:/etc/passwd"):
        assert alone.check_model(ref) == ref == alone.check_data(ref)
    assert alone.offered_models(("a", "b")) == ("a", "b") == alone.offered_data("text", ("a", "b"))


@pytest.mark.parametrize("value", ["1", "yes", "on", "shared", "whatever"])
def test_a_shared_server_offers_the_bundled_models_or_those_listed(value: str, tmp_path: Path) -> None:
    assert decide({"ABLATION_SHARED": value}, tmp_path).models == bundled.NAMES
    listed = decide(
        {"ABLATION_SHARED": value, "ABLATION_MODELS": " opt-mini  owner/name", "ABLATION_DATA": "python-code"}, tmp_path
    )
    assert listed.models == ("opt-mini", "owner/name") and listed.data == ("python-code",)
    assert listed.offered_models(("x",)) == listed.models and listed.offered_data("text", ("x",)) == ("python-code",)
    with pytest.raises(DataError, match="offers no images"):
        listed.offered_data("images", ("fashion-mnist",))
    assert not decide({"ABLATION_SHARED": value}, tmp_path / "nowhere").keeps_runs


def references(files: Path) -> list[tuple[str, str, str]]:
    """(parameter, a reference to something that is there, the same to something that is not)."""
    here = os.path.relpath(files, Path.cwd())
    uploaded = CACHE / "uploads" / ("0" * 16)
    return [
        ("model", str(files / "model"), str(files / "mod-l")),
        ("model", f"{here}/model", f"{here}/mod-l"),
        ("model", str(bundled.FOLDER / "opt-mini"), str(bundled.FOLDER / "opt-min-")),
        ("model", "openai-community/gpt2", "openai-community/gpt-"),
        ("model", "timm/vit_tiny_patch16_224", "timm/vit_tiny_patch16_22-"),
        ("model", "roberta-mini", "roberta-min-"),
        ("text", f"text:{files}/secret.txt", f"text:{files}/secre-.txt"),
        ("text", f"text:{here}/secret.txt", f"text:{here}/secre-.txt"),
        ("text", "text:/etc/passwd", "text:/etc/passw-"),
        ("text", f"text:{uploaded}/text.txt", f"text:{uploaded}/tex-.txt"),
        ("images", f"images:{files}/images", f"images:{files}/image-"),
        ("images", "fashion-mnist:full", "fashion-mnist:ful-"),
        ("text", f"text:{CACHE / bundled.STATISTICS[0]}", "text:cached_stats/nothing.safetensors"),
        ("beside", f"text:{files}/secret.txt", f"text:{files}/secre-.txt"),
    ]


@pytest.mark.parametrize("number", range(14))
def test_what_is_not_offered_is_refused_before_anything_is_looked_up(
    number: int, files: Path, shared: Access, opt_mini: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "isfile", _asked)
    monkeypatch.setattr(os.path, "isdir", _asked)
    monkeypatch.setattr(os, "stat", _asked)
    name, there, absent = references(files)[number]
    sentences = []
    with watching() as seen:
        for ref in (there, absent):
            with pytest.raises(AblationError) as refused:
                if name == "model":
                    server.shared_model(ref)
                elif name == "beside":
                    server.find_shared_statistics(opt_mini, ref)
                else:
                    server.shared_data(opt_mini, ref, 500, "evaluation")
            shown = ref if len(ref) <= 60 else f"{ref[:57]}…"
            assert repr(shown) in str(refused.value)
            sentences.append(str(refused.value).replace(repr(shown), "X"))
    assert sentences[0] == sentences[1] and "does not offer" in sentences[0]
    assert not [path for path in seen.touched if str(files) in path or "passw" in path]


def _asked(path: object, *arguments: object, **options: object) -> bool:
    raise AssertionError(f"the disk was asked about {path}")


@pytest.mark.parametrize("page", ["app.py", *(pytest.param(page, marks=pytest.mark.slow) for page in OF_A_MODEL[1:])])
def test_an_address_that_names_what_is_not_offered_opens_what_is(page: str, files: Path, shared: Access) -> None:
    for name, there, absent in (
        references(files)[0],
        references(files)[6],
        references(files)[8],
        references(files)[13],
    ):
        texts = []
        for ref in (there, absent):
            with watching() as seen:
                at = opened(page, **{name: ref}, predictions="500", select="0.0")
            assert not at.exception and not at.error
            assert [warning.value for warning in at.warning if "does not offer" in warning.value]
            assert at.selectbox(key="model").value == "opt-mini"
            assert not [path for path in seen.touched if str(files) in path or "passw" in path]
            assert SECRET.strip() not in said(at)
            texts.append(at.warning[0].value.replace("\\", "").replace(access._short(ref), "X"))
        assert texts[0].split("X")[-1] == texts[1].split("X")[-1]


def forged(key: str, value: str) -> AppTest:
    at = opened("app.py")
    box = at.selectbox(key=key)
    box.options = [*box.options, value]  # the harness would not send it otherwise
    return box.set_value(value).run()


@pytest.mark.parametrize("value", ["/etc", "openai-community/gpt2", "roberta-mini", "smollm2-135m"])
def test_a_forged_choice_of_a_model_is_refused(value: str, shared: Access) -> None:
    """A visitor may send the server any text as the value of a box, whatever the box lists."""
    at = forged("model", value)
    assert not at.exception
    assert at.selectbox(key="model").value in OFFERED.models or "does not offer the model" in said(at)


@pytest.mark.parametrize("value", ["text:/etc/passwd", "text:/nowhere", "python-code"])
def test_a_forged_choice_of_data_is_refused(value: str, shared: Access) -> None:
    with watching() as seen:
        at = forged("text", value)
    assert not at.exception
    assert at.selectbox(key="text").value in OFFERED.data or "does not offer the data" in said(at)
    assert "root:x" not in said(at) and "/etc/passwd" not in seen.touched


def test_the_boxes_list_what_is_offered_and_take_nothing_else(shared: Access) -> None:
    at = opened("app.py")
    assert at.selectbox(key="model").options == list(OFFERED.models)
    assert at.selectbox(key="text").options == ["python-docs"]
    for key in ("model", "text"):
        assert not at.selectbox(key=key).proto.accept_new_options


def test_models_and_data_offer_to_look_and_to_export_and_nothing_else(shared: Access) -> None:
    with watching() as seen:
        at = opened("pages/models_and_data.py")
    assert not at.exception and not at.error
    assert not at.button, "neither fetch nor compute nor delete"
    assert not at.text_input and not at.get("file_uploader")
    listed = {row for table in at.dataframe[:2] for row in table.value["reference"]}
    assert listed == {*OFFERED.models, *OFFERED.data}
    assert set(at.dataframe[2].value["model"]) <= set(OFFERED.models)
    assert set(at.dataframe[2].value["data"]) <= set(OFFERED.data)
    assert str(CACHE.parent) not in said(at) + str([table.value.to_dict() for table in at.dataframe])
    assert not [path for path in seen.written if path.startswith(str(CACHE))]


def test_on_ones_own_machine_everything_is_there() -> None:
    at = opened("pages/models_and_data.py")
    assert at.button and at.text_input and len(at.get("file_uploader")) == 2


def test_pages_reach_models_data_and_statistics_through_the_one_room_that_checks() -> None:
    assert set(PAGES) == set(pages.PAGES) and set(LONG_RUNS) < set(OF_A_MODEL) < set(PAGES)
    parts = {path for path in (ROOT / "ablation_core").rglob("*.py") if "import streamlit" in path.read_text()}
    checks = ROOT / "ablation_core" / "ui" / "shared.py"
    assert checks in parts and len(parts) > 10
    for path in {*(ROOT / page for page in PAGES), *parts} - {checks}:
        words = set(re.findall(r"\w+", path.read_text()))
        assert words.isdisjoint({"load_model", "load_data", "find_statistics", "source_digest", "find_folder"}), path


def test_the_data_set_beside_is_one_that_is_offered(shared: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    at = opened("pages/distributions.py", shown="two data sets")
    assert not at.exception and "no other data" in said(at)
    monkeypatch.setattr(access, "ACCESS", Access(True, OFFERED.models, ("python-docs", "python-code")))
    at = opened("pages/distributions.py", shown="two data sets")
    assert at.selectbox(key="beside").options == ["python-code"]
    assert not at.selectbox(key="beside").proto.accept_new_options and not at.error


def test_missing_statistics_are_the_operators_to_compute(
    shared: Access, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cache, "find_statistics", lambda *_, **__: None)
    at = opened("app.py")
    assert not at.exception and not at.button
    assert "python -m ablation\\_core stats opt-mini --data python-docs" in said(at)


@pytest.mark.parametrize(
    "page", [one if one in LONG_RUNS else pytest.param(one, marks=pytest.mark.slow) for one in OF_A_MODEL]
)
def test_a_read_only_cache_is_only_read(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "ACCESS", Access(True, OFFERED.models, OFFERED.data, keeps_runs=False))
    with watching() as seen:
        at = opened(page, model="opt-mini", predictions="500", select="0.0")
    assert not at.exception and not at.error
    assert not [path for path in seen.written if path.startswith(str(CACHE))]
    if page in LONG_RUNS:
        assert "long runs are not offered" in said(at)
        assert not [button for button in at.button if button.key and button.key.startswith("start ")]


def test_a_run_is_stopped_by_the_visitor_who_began_it(shared: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    running = jobs.Jobs()
    monkeypatch.setattr(run_controls, "shared_jobs", lambda: running)
    going = [True]

    def steps() -> Iterator[SimpleNamespace]:
        while going[0]:
            yield SimpleNamespace(share=0.5)

    def page() -> None:
        from ablation_core.ui.runs import controls as run_controls

        run_controls._show_progress("a run")

    running.start("a run", "Head map", steps, owner="who started it")
    try:
        at = AppTest.from_function(page).run()
        assert not at.exception and not at.button
        at.session_state["me"] = "who started it"
        assert [button.label for button in at.run().button] == ["Stop"]
    finally:
        going[0] = False


@pytest.mark.parametrize(
    ("model", "data", "statistics", "fine"),
    [
        ("vit-mini", "fashion-mnist", "fashion-mnist", True),
        ("vit-mini", "fashion-mnist:full", "fashion-mnist", True),
        ("opt-mini", "python-docs", None, True),
        ("/home/operator/vit", "fashion-mnist", "fashion-mnist", False),
        ("opt-mini", "text:/home/operator/secret.txt", "python-docs", False),
        ("opt-mini", "python-docs", "text:/home/operator/secret.txt", False),
    ],
)
def test_kept_runs_of_what_is_not_offered_are_not_listed(
    model: str, data: str, statistics: str | None, fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = None if statistics is None else {"data": statistics}
    described = {"model": {"ref": model}, "data": {"ref": data}, "statistics": made}
    assert run_choice.may_be_shown(described), "on one's own machine all are"
    monkeypatch.setattr(access, "ACCESS", OFFERED)
    assert run_choice.may_be_shown(described) is fine


def test_runs_seeds_and_predictions_are_bounded(shared: Access, opt_mini: LoadedModel) -> None:
    running, going = jobs.Jobs(), [True]

    def steps() -> Iterator[SimpleNamespace]:
        while going[0]:
            yield SimpleNamespace(share=0.5)

    try:
        for number in range(jobs.MOST_AT_ONCE):
            running.start(f"run {number}", "a run", steps)
        with pytest.raises(AblationError, match="already running on this server"):
            running.start("one more", "a run", steps)
    finally:
        going[0] = False
    with pytest.raises(DataError, match="at most 20"):
        read_seeds(" ".join(map(str, range(21))))
    with pytest.raises(DataError, match="at most 20,000"):
        server.shared_data(opt_mini, "python-docs", 10**6, "evaluation")


def test_the_copied_command_fits_the_visitors_own_project(
    shared: Access, opt_mini: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """It names no folder of the server, and gives the page's numbers where the project lies."""
    statistics = cache.load_statistics(CACHE / bundled.STATISTICS[1], opt_mini)
    assert cache.save_statistics(statistics, tmp_path / "elsewhere") == tmp_path / "elsewhere" / bundled.STATISTICS[1]
    for folder in (CACHE, tmp_path / "elsewhere"):
        file = shared.public(share.statistics_file(statistics, folder), folder)
        assert file == f"cached_stats/{bundled.STATISTICS[1]}"
    elsewhere = tmp_path / "elsewhere"
    command = shared.public(share.neuron_command(opt_mini, statistics, "0.0:1", 100, elsewhere), elsewhere)
    with contextlib.chdir(CACHE.parent):
        assert cli.main([*command.split()[3:], "--json"]) == 0
    (neuron,) = json.loads(capsys.readouterr().out)["neurons"]
    assert neuron["values"]["mean"] == pytest.approx(float(statistics.mean[0, 0, 1]))


def test_the_command_line_is_not_affected(
    shared: Access, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = [
        "stats",
        "roberta-mini",
        "--data",
        f"text:{files}/secret.txt",
        "--predictions",
        "20",
        "--seq-len",
        "16",
    ]
    assert cli.main([*arguments, "--cache-dir", str(tmp_path / "cache")]) == 0
    assert "roberta-mini" in capsys.readouterr().out


def test_what_an_error_quotes_is_not_taken_for_markdown() -> None:
    """A link made by somebody else must not make a visitor's browser ask another server for a picture."""
    hostile = "![x](http://127.0.0.1/x.png) [y](http://z) `c` <b> $x$ *e*"
    at = opened("app.py", model=hostile)
    (error,) = at.error
    assert "\\!" not in error.value and "!\\[x\\](http" in error.value
    assert "\\`c\\`" in error.value and "\\<b\\>" in error.value
