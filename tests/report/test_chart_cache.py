"""A chart from a template is the chart that is built anew."""

import json

import altair as alt
import pandas as pd
import pytest

from ablation_core import load_model, load_statistics
from ablation_core.activations.files import find_statistics
from ablation_core.activations.neuron_summary import summarise_neuron
from ablation_core.report import frames
from ablation_core.report.charts import (
    distribution_charts,
    head_maps,
    looks,
    method_charts,
    neuron_charts,
    user_input_charts,
)
from ablation_core.report.charts.chart_cache import chart_spec
from ablation_core.report.distribution_frames import density_frame, two_sets_frames

MODEL = load_model("opt-mini")
STATISTICS = load_statistics(find_statistics(MODEL, "python-docs").path, MODEL)


def drawings(layer: int, head: int, neuron: int, bins: int) -> dict[str, tuple]:
    """name → (make, frames, variant, fixed), as the pages call them."""
    neurons = frames.neuron_frame(STATISTICS, layer, head, bins)
    grid = frames.grid_frames(STATISTICS, layer, head, neurons, neuron, 8)
    bars = frames.histogram_frame(STATISTICS, layer, head, neuron, bins)
    marks = frames.mark_frame(summarise_neuron(STATISTICS, layer, head, neuron, bins), bars)
    distances = frames.head_distances(STATISTICS, bins)
    at = (STATISTICS, layer, head, neuron, bins)
    answers = pd.DataFrame({"kind": "mean", "name": ["a", "b"], "order": [0, 1], "share": [0.1 * neuron, 0.2]})
    kinds = tuple(grid[1]["kind"].unique())
    return {
        "map": (head_maps.head_map, (frames.head_frame(distances, MODEL.shape, {(layer, head)}),), MODEL.shape, {"title": "t"}),
        "grid": (neuron_charts.neuron_grid, grid, (len(grid[2]), kinds), {"columns": 8}),
        "histogram": (neuron_charts.neuron_histogram, (bars, marks), len(marks), {"unit": "u", "log": bins > 50}),
        "density": (
            distribution_charts.histogram_with_density,
            (bars, marks, density_frame(*at, "smoothed")),
            len(marks),
            {"unit": "u", "log": False},
        ),
        "two sets": (
            distribution_charts.two_sets,
            two_sets_frames(STATISTICS, *at),
            (),
            {"unit": "u", "first": "python-docs", "second": "python-code"},
        ),
        "answers": (user_input_charts.probabilities, (answers, answers.assign(kind="peak")), 2, {"kinds": ("mean",)}),
    }  # fmt: skip


def plain(spec: dict) -> dict:
    """A specification with its data written out and Altair's counters left out."""
    datasets = spec.get("datasets", {})

    def fill(part):
        if isinstance(part, dict):
            if set(part) == {"name"} and part["name"] in datasets:
                data = datasets[part["name"]]
                return data.to_dict("records") if isinstance(data, pd.DataFrame) else data
            return {key: fill(value) for key, value in part.items() if key not in ("views", "datasets")}
        return [fill(one) for one in part] if isinstance(part, list) else part

    return json.loads(json.dumps(fill(spec), default=lambda value: value.item()))


def without_view_names(spec: dict) -> str:
    """Altair numbers the views of charts with a selection; the numbers are of no meaning."""
    import re

    return re.sub(r"view[_0-9a-f]+", "view", json.dumps(spec, sort_keys=True))


@pytest.mark.parametrize("name", drawings(0, 0, 0, 40))
def test_a_template_filled_anew_is_the_chart_built_anew(name: str) -> None:
    for at in ((0, 0, 0, 100), (3, 2, 17, 100), (5, 5, 31, 100)):
        make, data, variant, fixed = drawings(*at)[name]
        with alt.data_transformers.enable("default", max_rows=None):
            built = make(*(frame.copy() for frame in data), **fixed).to_dict()
        filled = chart_spec(make, *data, variant=variant, **fixed)
        assert without_view_names(plain(filled)) == without_view_names(plain(built)), at
        assert [f"data{place}" in filled["datasets"] for place in range(len(data))] == [True] * len(data)


def test_the_data_of_one_chart_never_shows_in_another() -> None:
    first = pd.DataFrame({"x": [1, 2]})
    second = pd.DataFrame({"x": [3]})

    def make(frame: pd.DataFrame) -> alt.Chart:
        return alt.Chart(frame).mark_point().encode(x="x:Q")

    one, two = chart_spec(make, first), chart_spec(make, second)
    assert one["datasets"]["data0"] is first and two["datasets"]["data0"] is second
    assert {k: v for k, v in one.items() if k != "datasets"} == {k: v for k, v in two.items() if k != "datasets"}


def test_a_kind_without_a_row_has_a_mark() -> None:
    frame = pd.DataFrame({"kind": ["mean", "brand-new"], "mean": [0.1, 0.2], "low": [0, 0.1], "high": [0.2, 0.3], "chosen": [True, False]})  # fmt: skip
    spec = method_charts.changes(frame, "t").to_dict()
    assert "brand-new" in json.dumps(spec)
    assert looks.mark_of("brand-new") == looks.mark_of("brand-new") != looks.mark_of("mean")
    assert len({(mark.color, mark.dash, mark.shape) for mark in looks.MARKS.values()}) == len(looks.MARKS)
