"""Results show themselves: frames have the documents' numbers, charts the frames', and the HTML asks for nothing."""

import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import altair as alt
import numpy as np
import pytest

from ablation_core import (
    ablate,
    compare,
    compare_results,
    curve,
    estimate,
    load_data,
    load_statistics,
    noise_floor,
    position_map,
    summarise_neuron,
    sweep,
)
from ablation_core.activations.files import find_statistics
from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data
from ablation_core.errors import ReportError
from ablation_core.experiments.displacement import Displacement
from ablation_core.experiments.interactions import interact
from ablation_core.experiments.results import AblationResult, MethodResult, Performance
from ablation_core.heads.describe import describe_head
from ablation_core.models.loaded import LoadedModel
from ablation_core.presentation import Presented
from ablation_core.report.present import PRESENTATIONS
from ablation_core.stats.intervals import Interval
from tests.report.test_html import Page

METHODS = ["mean", "zero"]


@pytest.fixture(scope="module")
def data(opt_mini: LoadedModel) -> Data:
    return load_data("python-docs", opt_mini, predictions=300, seq_len=32)


@pytest.fixture(scope="module")
def statistics(opt_mini: LoadedModel) -> Statistics:
    return load_statistics(find_statistics(opt_mini, "python-docs").path, opt_mini)


@pytest.fixture(scope="module")
def results(
    opt_mini: LoadedModel, data: Data, statistics: Statistics, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Presented]:
    """One of each kind, by the name of its class."""
    kept = {"statistics": statistics, "cache": tmp_path_factory.mktemp("runs")}
    heads = "5.0 5.1 4.2"
    made = [
        ablate(opt_mini, data, "5.2", METHODS, statistics=statistics),
        sweep(opt_mini, data, METHODS, heads=heads, random_sets=3, **kept),
        sweep(opt_mini, data, "mean", heads=heads, adaptive=True, **kept),
        position_map(opt_mini, data, "zero", select="5.0", positions="-1", cache=kept["cache"]),
        curve(opt_mini, data, METHODS, seeds=[1, 2], percents=[0, 50, 100], **kept),
        estimate(opt_mini, data, METHODS, statistics=statistics, passes=1),
        noise_floor(opt_mini, data, "5.2", statistics=statistics),
        interact(opt_mini, data, "5.0 5.1 4.2", statistics=statistics),
        describe_head(opt_mini, data, "5.2", ["mean"], statistics),
        compare(
            opt_mini, [data, load_data("python-code", opt_mini, 200, 32)], "zero", heads="5.0 5.1", cache=kept["cache"]
        ),
        compare_results(*(ablate(opt_mini, data, head, "zero") for head in ("5.0", "5.1"))),
        summarise_neuron(statistics, 3, 2, 5, bins=100),
        statistics,
    ]
    return {type(result).__name__: result for result in made}


def test_every_result_has_a_row_and_every_row_a_result(results: dict[str, Presented]) -> None:
    assert set(results) == set(PRESENTATIONS)


def test_an_ablations_frame_has_the_documents_numbers(results: dict[str, Presented]) -> None:
    result = results["AblationResult"]
    frame, document = result.to_frame().set_index("method"), result.to_dict()
    assert list(frame.index) == ["baseline", *METHODS]
    assert frame.loc["baseline", "loss"] == document["baseline"]["loss"]
    for row in document["results"]:
        for name in ("loss", "perplexity", "top1", "top10", "kl"):
            assert frame.loc[row["method"], name] == row[name]
        for bound in ("mean", "low", "high"):
            assert frame.loc[row["method"], f"change of loss ({bound})"] == row["change"]["loss"][bound]


def test_the_figures_of_every_prediction_average_to_the_documents(
    results: dict[str, Presented], data: Data, opt_mini: LoadedModel
) -> None:
    result = results["AblationResult"]
    frame, document = result.to_frame("predictions"), result.to_dict()
    assert len(frame) == 3 * 300
    means = frame.groupby("method")[["loss", "top1", "kl", "change of loss"]].mean()
    for row in document["results"]:
        for name in ("loss", "top1", "kl"):
            assert means.loc[row["method"], name] == pytest.approx(row[name], abs=1e-12)
        assert means.loc[row["method"], "change of loss"] == pytest.approx(row["change"]["loss"]["mean"], abs=1e-12)
    ids = {number: data.rows([number]).inputs["input_ids"][0].tolist() for number in range(data.sequences)}
    for row in frame.itertuples():
        assert ids[row.sequence][row.position] == row.target  # the token that stands there
    assert "predictions" not in json.dumps(document["results"]) and result == result


def test_sweeps_frames_have_the_documents_numbers(results: dict[str, Presented]) -> None:
    for name in ("SweepResult", "AdaptiveResult"):
        frame = results[name].to_frame().set_index(["head", "method"])
        rows = [(head["head"], row) for head in results[name].to_dict()["heads"] for row in head["results"]]
        assert len(frame) == len(rows) >= 3
        for head, row in rows:
            found = frame.loc[(head, row["method"])]
            assert found["p"] == row["p"] and found["q"] == row["q"]
            assert bool(found["told_from_no_effect"]) is row["told_from_no_effect"]
            for metric, span in row["change"].items():
                for bound, value in span.items():
                    assert found[f"change of {metric} ({bound})"] == value


def test_curves_frames_have_the_documents_numbers(results: dict[str, Presented]) -> None:
    result, document = results["CurveResult"], results["CurveResult"].to_dict()
    frame = result.to_frame().set_index(["seed", "percent", "method"])
    assert len(frame) == 2 * 3 * 2
    for point in document["points"]:
        for row in point["results"]:
            assert frame.loc[(point["seed"], point["percent"], row["method"]), "loss"] == row["loss"]
    table = result.to_frame("table").set_index(["percent", "method"])
    for row in document["table"]:
        assert table.loc[(row["percent"], row["method"]), "top1 (mean)"] == row["top1"]["mean"]


def test_estimates_frames_have_the_documents_numbers(results: dict[str, Presented]) -> None:
    result, document = results["EstimateResult"], results["EstimateResult"].to_dict()
    heads, neurons = (result.to_frame(name) for name in ("heads", "neurons"))
    assert len(heads) == 2 * 36 and len(neurons) == 2 * 36 * 32
    for made in document["results"]:
        mine = heads[heads["method"] == made["method"]].set_index("head")
        for row in made["heads"]:
            assert mine.loc[row["head"], "kl estimate"] == row["kl"]["estimate"]
            assert mine.loc[row["head"], "loss standard error"] == row["loss"]["standard_error"]
        listed = neurons[neurons["method"] == made["method"]].head(len(made["neurons"]))
        assert listed["neuron"].tolist() == [row["neuron"] for row in made["neurons"]]
        assert listed["loss estimate"].tolist() == [row["loss"]["estimate"] for row in made["neurons"]]


def test_interactions_and_heads_have_their_numbers_in_frames_and_charts(results: dict[str, Presented]) -> None:
    result, document = results["InteractionResult"], results["InteractionResult"].to_dict()
    pairs, heads = result.to_frame().set_index("pair"), result.to_frame("heads").set_index("head")
    rows = {row["kind"]: row for row in drawn(result.chart()) if "kind" in row}
    assert len(pairs) == len(rows) == 3 and len(heads) == 3
    for row in document["pairs"]:
        name = " + ".join(row["pair"])
        assert pairs.loc[name, "interaction (low)"] == row["interaction"]["low"]
        assert pairs.loc[name, "change of loss (mean)"] == row["joint"]["change"]["loss"]["mean"]
        assert rows[name]["mean"] == row["interaction"]["mean"]
    for row in document["singles"]:
        assert heads.loc[row["head"], "change of loss (mean)"] == row["change"]["loss"]["mean"]
    found = results["HeadDescription"]
    scores = found.to_frame().set_index("score")["mean"]
    assert scores.to_dict() == found.to_dict()["scores"]


def test_floors_summaries_and_statistics_have_their_numbers_in_frames(results: dict[str, Presented]) -> None:
    floor = results["NoiseFloor"]
    band = floor.to_frame().set_index(["method", "metric"]).loc[("mean", "loss")]
    assert (band["low"], band["high"], band["sets"]) == (floor.low, floor.high, 8)
    summary = results["NeuronSummary"]
    assert dict(zip(*summary.to_frame()[["value of", "activation"]].values.T, strict=True)) == summary.values
    statistics = results["Statistics"]
    frame = statistics.to_frame()
    assert len(frame) == 6 * 6 * 32
    one = frame.set_index(["layer", "head", "neuron"]).loc[(3, 2, 5)]
    assert one["peak"] == statistics.peak(100)[3, 2, 5] and one["std"] == statistics.std[3, 2, 5]


def drawn(chart: alt.TopLevelMixin) -> list[dict]:
    """Every row of data in a chart."""
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


def test_charts_draw_the_documents_numbers(results: dict[str, Presented]) -> None:
    document = results["AblationResult"].to_dict()
    rows = {row["kind"]: row for row in drawn(results["AblationResult"].chart("top1")) if "kind" in row}
    for row in document["results"]:
        assert rows[row["method"]]["mean"] == row["change"]["top1"]["mean"]
        assert rows[row["method"]]["low"] == row["change"]["top1"]["low"]
    for name in ("SweepResult", "AdaptiveResult"):
        cells = {row["label"]: row["value"] for row in drawn(results[name].chart(method="mean"))}
        for head in results[name].to_dict()["heads"]:
            change = next(row["change"] for row in head["results"] if row["method"] == "mean")
            assert cells[head["head"]] == change["loss"]["mean"]
    frame = results["CurveResult"].to_frame()
    for metric in ("loss", "top1"):
        points = [row["value"] for row in drawn(results["CurveResult"].chart(metric)) if "seed" in row]
        assert len(points) == 12 and sorted(points) == sorted(frame[metric])
    heads = results["EstimateResult"].to_dict()["results"][1]["heads"]
    cells = {row["label"]: row["value"] for row in drawn(results["EstimateResult"].chart("kl", "zero"))}
    assert cells == {row["head"]: row["kl"]["estimate"] for row in heads}
    (bar,) = [row for row in drawn(results["NoiseFloor"].chart()) if "high" in row]
    assert (bar["low"], bar["high"]) == (results["NoiseFloor"].low, results["NoiseFloor"].high)
    counts = [row["count"] for row in drawn(results["Statistics"].chart("3.2:5", bins=50)) if "count" in row]
    assert counts == results["Statistics"].histogram(3, 2, 5, 50)[1].tolist()


def test_what_a_result_does_not_have_is_a_sentence(results: dict[str, Presented]) -> None:
    for act, word in (
        (lambda: results["AblationResult"].to_frame("neurons"), "predictions"),
        (lambda: results["AblationResult"].chart("accuracy"), "top10"),
        (lambda: results["SweepResult"].chart(method="peak"), "zero"),
        (lambda: results["Statistics"].chart("3.2"), "3.2:5"),
    ):
        with pytest.raises(ReportError, match=word):
            act()


@pytest.mark.parametrize("name", PRESENTATIONS)
def test_the_html_is_self_contained_and_its_drawing_parses(results: dict[str, Presented], name: str) -> None:
    text = results[name]._repr_html_()
    page = Page(text)
    assert all(address.startswith("#") for address in page.addresses) and not page.handlers
    assert not {"script", "img", "iframe", "link", "style"} & set(page.tags)
    assert "url(http" not in text and "@import" not in text
    assert {"p", "figure", "svg", "table"} <= set(page.tags)
    drawing = text[text.index("<svg") : text.index("</svg>") + len("</svg>")]
    assert ElementTree.fromstring(drawing).tag.endswith("svg")
    assert "**" not in text


def test_the_html_says_what_the_pages_say(results: dict[str, Presented]) -> None:
    page = Page(results["AblationResult"]._repr_html_())
    assert "nats per prediction" in page.text and "5.2" in page.text
    assert "Noise floor" in Page(results["NoiseFloor"]._repr_html_()).text
    assert "Largest change: head" in Page(results["SweepResult"]._repr_html_()).text
    assert "24 of 1,152 rows" in Page(results["Statistics"]._repr_html_()).text


def test_what_comes_from_outside_is_escaped() -> None:
    attack = "<script>alert(1)</script>\"'&"
    performance = Performance({"loss": 3.0, "top1": 0.4, "top10": 0.7, "kl": 0.0})
    change = {name: Interval(0.1, 0.05, 0.15) for name in ("loss", "top1", "top10", "kl")}
    rows = (MethodResult(attack, performance, change, Displacement(1.0, 0.0)),)
    data = {"ref": attack, "sequences": 60, "predictions": 1234}
    result = AblationResult({"ref": attack}, data, None, attack, 32, 100, 0, performance, rows, None)
    page = Page(result._repr_html_())
    assert "script" not in page.tags and not page.handlers
    assert attack in page.text


def test_two_results_on_a_page_share_no_ids(results: dict[str, Presented]) -> None:
    ids = [set(Page(results[name]._repr_html_()).ids) for name in ("EstimateResult", "SweepResult")]
    assert ids[0] and ids[1] and not ids[0] & ids[1]


def test_a_bar_is_shown_where_it_is_asked_for(
    opt_mini: LoadedModel, data: Data, statistics: Statistics, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    ablate(opt_mini, data, "5.2", "mean", statistics=statistics, progress=True)
    sweep(opt_mini, data, "mean", statistics=statistics, heads="5.0", random_sets=0, cache=tmp_path, progress=True)
    shown = capsys.readouterr()
    assert "ablation: 100%" in shown.err and "sweep: 100%" in shown.err and not shown.out
    seen: list[tuple[int, int]] = []
    result = ablate(
        opt_mini, data, "5.2", "mean", statistics=statistics, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(number, len(data)) for number in range(1, len(data) + 1)]
    assert not capsys.readouterr().err
    buffer = io.StringIO()
    result.chart().save(buffer, format="json")
    assert np.isfinite(result.to_frame()["loss"]).all() and buffer.getvalue().startswith("{")
