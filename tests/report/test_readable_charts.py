"""What is written on charts can be read, and an outlier hides nothing: read off the drawn SVG, by WCAG's own formula."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from ablation_core.engine.metrics import METRICS
from ablation_core.report import distribution_frames, export
from ablation_core.report.charts import axes, effect_maps, head_maps, method_charts, run_charts

PAGE = {False: (255, 255, 255), True: (0x11, 0x16, 0x1C)}
NAMED = {"black": (0, 0, 0), "white": (255, 255, 255)}


def shade(colour: str, dark: bool) -> tuple[float, ...]:
    """A colour of an SVG on the page, 0 to 255."""
    if colour in NAMED:
        return NAMED[colour]
    if colour.startswith("#"):
        return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))
    *tones, opacity = [float(one) for one in re.findall(r"[\d.]+", colour)] + ([] if "rgba" in colour else [1.0])
    return tuple(opacity * tone + (1 - opacity) * below for tone, below in zip(tones, PAGE[dark], strict=True))


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio"""

    def light(tones: tuple[float, ...]) -> float:
        linear = [t / 12.92 if t <= 0.03928 else ((t + 0.055) / 1.055) ** 2.4 for t in (tone / 255 for tone in tones)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def cells_and_texts(chart) -> list[tuple[str, str]]:
    """The colours of each cell and of the number on it."""
    svg = export.to_svg(chart, "t", "a")
    cells, texts = (
        re.findall(rf"<{tag} [^>]*>", re.search(rf'class="mark-{kind} role-mark.*?</g>', svg, re.DOTALL)[0])
        for kind, tag in (("rect", "path"), ("text", "text"))
    )
    assert len(cells) == len(texts) > 10
    fills = [re.search(r'fill="([^"]+)"', one)[1] for one in (*cells, *texts)]
    return list(zip(fills[: len(cells)], fills[len(cells) :], strict=True))


def grid(values: np.ndarray) -> pd.DataFrame:
    rows = [{"layer": n // 10, "head": n % 10, "value": value} for n, value in enumerate(values)]
    frame = pd.DataFrame(rows).assign(picked=False, low=0.0, high=0.0, q=None, state="significant", estimate=0.0)
    return frame.assign(label=frame["layer"].astype(str) + "." + frame["head"].astype(str))


def matrix() -> pd.DataFrame:
    methods = "abcdefg"
    rhos = np.linspace(-1, 1, 49)
    rows = [{"one": one, "other": other} for one in methods for other in methods]
    return pd.DataFrame(rows).assign(rho=rhos, low=rhos, high=rhos, heads=9)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda dark: head_maps.head_map(grid(np.linspace(0, 3, 100)), "t", dark=dark),
        lambda dark: effect_maps.effect_map(grid(np.linspace(-3, 3, 100)), "t", METRICS["loss"], 10, 10, dark),
        lambda dark: effect_maps.effect_map(grid(np.linspace(-0.3, 0.3, 100)), "t", METRICS["top1"], 10, 10, dark),
        lambda dark: run_charts.agreement_matrix(matrix(), "abcdefg", dark),
    ],
)
def test_numbers_on_cells_can_be_read(make, dark: bool) -> None:
    found = cells_and_texts(make(dark))
    assert min(contrast(shade(cell, dark), shade(text, dark)) for cell, text in found) >= 4.5


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_dark_page_the_greatest_value_is_the_lightest(dark: bool) -> None:
    for chart in (
        head_maps.head_map(grid(np.linspace(0, 3, 100)), "t", dark=dark),
        effect_maps.effect_map(grid(np.linspace(0, 3, 100)), "t", METRICS["loss"], 10, 10, dark),
    ):
        cells = [shade(cell, dark) for cell, _ in cells_and_texts(chart)]
        light = [contrast(cell, (0, 0, 0)) for cell in cells]
        assert int(np.argmax(light)) == (99 if dark else 0)


def symlog(value: float, span: axes.Span) -> float:
    """Where a value stands on the axis, from 0 to 1 (d3-scale's symlog)."""
    low, at, high = (math.copysign(math.log1p(abs(x) / span.bend), x) for x in (span.low, value, span.high))
    return (at - low) / (high - low)


def test_an_outlier_flattens_nothing() -> None:
    usual = [0.011, 0.014, -0.008, 0.02]
    span = axes.span_of([*usual, 6.0])
    assert span is not None and span.low < -0.008 and span.high > 6
    places = sorted(symlog(value, span) for value in usual)
    assert places[-1] - places[0] > 0.15, "on a linear axis the four would share half a per cent of it"
    assert axes.span_of(usual) is None and axes.span_of([float("nan"), 0.0]) is None
    frame = pd.DataFrame({"kind": list("abcd"), "mean": [*usual[:3], 6.0], "low": 0.0, "high": 0.0, "chosen": False})
    spec = method_charts.changes(frame, "change").to_dict()
    scales = [layer["encoding"]["x"]["scale"] for layer in spec["layer"]]
    assert {scale["type"] for scale in scales} == {"symlog"}
    assert "logarithmic beyond" in spec["layer"][0]["encoding"]["x"]["title"][1], "and the axis says so"


def test_an_outlier_leaves_the_others_their_colours() -> None:
    frame = grid(np.array([*np.linspace(0.01, 0.02, 99), 50.0]))
    assert effect_maps.deepest(frame) == pytest.approx(20 * 0.0175, rel=0.02)
    assert effect_maps.deepest(grid(np.linspace(0, 1, 100))) == 1


@pytest.mark.parametrize("largest", [1.0, 300.0])
def test_where_a_diagonal_means_equality_both_axes_are_the_same(largest: float) -> None:
    frame = pd.DataFrame({"label": list("abcde"), "x": [0.1, 0.2, 0.3, 0.4, largest], "y": [0.1, 0.1, 0.2, -0.3, 0.5]})
    for layer in run_charts.pair_scatter(frame, "mean", "zero", "nats", "+.3f").to_dict()["layer"]:
        x, y = (layer["encoding"][name]["scale"] for name in "xy")
        assert x == y and x["domain"][0] < -0.3 and x["domain"][1] > largest


def test_patches_stand_in_their_rows_and_columns() -> None:
    positions = pd.DataFrame({"position": range(10), "mean": np.arange(10.0)})  # a class token and 3 × 3 patches
    found = distribution_frames.patch_frame(positions)
    assert found["mean"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert found["row"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and found["column"].tolist() == [0, 1, 2] * 3
