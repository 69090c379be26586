"""Charts, tables and the one-page report: readable by other programs, self-contained, everything escaped."""

import io
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ablation_core import METHODS, ablate, find_statistics, load_data, load_statistics
from ablation_core.experiments.noise_floor import NoiseFloor
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import finished
from ablation_core.report import export, frames
from ablation_core.report.charts import method_charts
from ablation_core.report.html import Picture, Report, to_html
from ablation_core.report.sentences import verdict
from ablation_core.runs.pruning import CurveSpec, curve_steps
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from ablation_core.selection import Selection
from ablation_core.ui.ablation.job import AblationProgress
from ablation_core.ui.export_row import ablation_exports, neuron_exports
from ablation_core.ui.runs.export_row import curve_exports, sweep_exports
from ablation_core.ui.sidebar.view import View

FLOOR = NoiseFloor(-0.001, 0.002, 8, bands={"mean": {"loss": (-0.001, 0.002)}})


@pytest.fixture(scope="module")
def view(opt_mini: LoadedModel) -> View:
    statistics = load_statistics(find_statistics(opt_mini, "python-docs").path, opt_mini)
    selection = Selection.parse("3.2", opt_mini.shape)
    return View(opt_mini.info, "python-docs", 200, statistics, selection, "mean", 100)


@pytest.fixture(scope="module")
def outcome(view: View, few_learned_from: None) -> AblationProgress:
    result = ablate(view.model, load_data("python-docs", view.model, 900), "3.2", "all", statistics=view.statistics)
    return AblationProgress(result, FLOOR)


class Page(HTMLParser):
    """The tags, addresses and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "action"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            if name == "id":
                self.ids.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_of_an_ablation_is_one_page_that_asks_for_nothing(view: View, outcome: AblationProgress) -> None:
    page = Page(ablation_exports(view, outcome).report())
    result = outcome.result
    assert page.tags.count("svg") == 5 and "script" not in page.tags and "img" not in page.tags
    assert all(address.startswith("#") for address in page.addresses)
    assert len(page.ids) == len(set(page.ids)), "drawings do not share ids"
    assert verdict(result, "mean", FLOOR) in page.text
    for row in result.results:
        assert f"{row.performance.loss:.4f}" in page.text
        change = row.change["loss"]
        shown = f"{change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}]"
        assert shown.replace("-", "−") in page.text
    for value in (
        view.model.fingerprint,
        view.statistics.digest,
        result.data["fingerprint"],
        "python -m ablation_core",
    ):
        assert value in page.text


def test_the_report_of_a_neuron(view: View) -> None:
    page = Page(neuron_exports(view, 3, 2, 5).report())
    assert page.tags.count("svg") == 3 and page.tags.count("tr") > 32
    assert "Neuron 3.2:5 of opt-mini" in page.text and "the peak lies" in page.text


def test_everything_from_outside_is_escaped() -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    frame = pd.DataFrame({evil: [evil, 1.5]})
    picture = Picture("<svg></svg>", evil)
    page = Page(to_html(Report(evil, [evil], [picture], {evil: frame}, evil, evil, {evil: evil})))
    assert "script" not in page.tags and "img" not in page.tags and not page.handlers and not page.addresses
    assert page.text.count("alert(1)") >= 8, "and it is still there to be read"


def test_a_hostile_data_name_reaches_no_picture_unescaped(view: View, outcome: AblationProgress) -> None:
    evil = "text:</text><script>alert(1)</script>"
    result = replace(outcome.result, data=outcome.result.data | {"ref": evil})
    taken = ablation_exports(view, AblationProgress(result, FLOOR))
    assert "script" not in Page(taken.report()).tags
    title, chart = next(iter(taken.charts.items()))
    svg = export.to_svg(chart.draw(), f"{title} {evil}", f"{chart.alternative} {evil}")
    assert not [node for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("script")]


def test_every_chart_becomes_png_and_svg_with_its_title(view: View, outcome: AblationProgress) -> None:
    for taken in (ablation_exports(view, outcome), neuron_exports(view, 3, 2, 5)):
        for title, chart in taken.charts.items():
            svg = export.to_svg(chart.draw(), title, chart.alternative)
            words = "".join(ElementTree.fromstring(svg).itertext())
            assert title in words
        image = Image.open(io.BytesIO(export.to_png(chart.draw(), title, chart.alternative)))
        assert image.width > 2 * export.PICTURE_WIDTH * 0.9 and len(set(image.convert("L").tobytes())) > 20


@pytest.fixture(scope="module")
def kept(view: View, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    data, folder = load_data("python-docs", view.model, 250), tmp_path_factory.mktemp("runs")
    methods = (METHODS["zero"], METHODS["mean"])
    heads = ((0, 0), (1, 1), (2, 2), (3, 3))
    swept = finished(
        sweep_steps(view.model, data, SweepSpec(methods, heads=heads, random_sets=2), view.statistics, folder)
    )
    return swept, finished(
        curve_steps(view.model, data, CurveSpec(methods, seeds=(1, 2), percents=(0, 50, 90)), view.statistics, folder)
    )


def test_what_a_map_and_curves_give_along(kept: tuple) -> None:
    swept, curves = kept
    estimates = {head: (0.01 * number, 0.001) for number, head in enumerate(swept.wanted)}
    neurons = pd.DataFrame({"label": ["0.0:1"], "layer": 0, "head": 0, "neuron": 1, "estimate": 0.5, "error": 0.1})
    of_map = sweep_exports(swept, "mean", "loss", "1.1", estimates, neurons)
    of_curves = curve_exports(curves, "loss")
    assert (len(of_map.charts), len(of_map.tables)) == (4, 4) and (len(of_curves.charts), len(of_curves.tables)) == (
        1,
        4,
    )
    for taken in (of_map, of_curves):
        page = Page(taken.report())
        assert page.tags.count("svg") == len(taken.charts) and "script" not in page.tags
        assert len(page.ids) == len(set(page.ids)) and "**" not in page.text
        assert taken.command in page.text and taken.provenance["statistics digest"] in page.text
        for title, chart in taken.charts.items():
            assert title in "".join(ElementTree.fromstring(chart.svg(title)).itertext())
        for make in taken.tables.values():
            frame = make()
            document = json.loads(export.to_json(frame, taken.provenance))
            assert len(document["rows"]) == len(frame) > 0
            assert len(pd.read_csv(io.BytesIO(export.to_csv(frame, taken.provenance)), comment="#")) == len(frame)
    table = of_map.tables["Every head, by mean"]().set_index("head")
    assert table.loc["2.2", "value"] == swept.rows["2.2"]["mean"]["change"]["loss"]["mean"]
    points = of_curves.tables["Every point"]()
    row = points[(points["kind"] == "zero") & (points["seed"] == 2) & (points["percent"] == 90)]
    assert row["value"].item() == curves.points[2, 90]["zero"]["loss"]


def test_tables_are_read_back_with_their_provenance(view: View, outcome: AblationProgress) -> None:
    for taken in (ablation_exports(view, outcome), neuron_exports(view, 3, 2, 5)):
        for make in taken.tables.values():
            frame = make()
            content = export.to_csv(frame, taken.provenance)
            pd.testing.assert_frame_equal(
                pd.read_csv(io.BytesIO(content), comment="#", dtype=dict(frame.dtypes)), frame.reset_index(drop=True),
                check_exact=False, rtol=1e-6,
            )  # fmt: skip
            head = content.decode().split("\n\n")[0]
            assert f"# model fingerprint: {view.model.fingerprint}" in head and f"# statistics digest: {view.statistics.digest}" in head  # fmt: skip
            document = json.loads(export.to_json(frame, taken.provenance))
            assert document["provenance"] == json.loads(json.dumps(taken.provenance))
            assert len(document["rows"]) == len(frame) and list(document["rows"][0]) == list(frame.columns)
    assert {"torch", "python", "ablation-explorer"} <= set(taken.provenance)


def test_no_number_and_no_formula_slips_through() -> None:
    frame = pd.DataFrame({"token": ["=1+1", "@x", "-", "plain"], "value": [np.nan, np.inf, -1.0, np.float32(0.5)]})
    assert json.loads(export.to_json(frame, {}))["rows"][0] == {"token": "=1+1", "value": None}
    assert json.loads(export.to_json(frame, {}))["rows"][1]["value"] is None
    lines = export.to_csv(frame, {"a": "two\nlines"}).decode().splitlines()
    assert lines[0] == "# a: two lines" and lines[2].startswith("'=1+1,") and lines[3].startswith("'@x,")
    assert lines[4] == "'-,-1.0" and lines[5] == "plain,0.5", "numbers stay numbers"


def test_a_file_name_is_safe_for_any_file_system() -> None:
    assert export.file_name("neuron", "../../etc:passwd", "3.2:5", ending="png") == "neuron-etc-passwd-3.2-5.png"


def test_a_picture_asks_for_nothing_outside() -> None:
    import altair as alt

    chart = alt.Chart(alt.UrlData("https://example.org/data.json")).mark_point().encode(x="a:Q")
    with pytest.raises(ValueError):
        export.to_svg(chart, "title", "words")


def test_changes_without_an_interval_are_drawn(view: View) -> None:
    result = ablate(view.model, load_data("python-docs", view.model, 100), "3.2", "zero", statistics=view.statistics)
    assert result.results[0].change["loss"].low is None
    assert "<svg" in export.to_svg(
        method_charts.changes(frames.change_frame(result, "loss", "zero"), "change"), "t", "a"
    )
