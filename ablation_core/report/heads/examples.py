"""Positions of the data where a head or a neuron takes certain values: a histogram to click, and the examples as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd

from ablation_core.report.charts.looks import BARS, CURVE
from ablation_core.report.numbers import number
from ablation_core.report.picks import one_pick

if TYPE_CHECKING:
    from PIL import Image

    from ablation_core.heads.examples import Example

BINS = 40


def value_bars(values: np.ndarray) -> pd.DataFrame:
    """A histogram of what is finite: columns bar, left, right, count."""
    counts, edges = np.histogram(values[np.isfinite(values)], BINS)
    return pd.DataFrame({"bar": np.arange(BINS), "left": edges[:-1], "right": edges[1:], "count": counts})


def value_chart(bars: pd.DataFrame, unit: str) -> alt.Chart:
    """Clickable as the selection `pick`; empty bars cannot be clicked."""
    pick = one_pick(["bar"])
    return (
        alt.Chart(bars[bars["count"] > 0])
        .mark_rect(cursor="pointer", stroke=BARS, strokeWidth=0.3)
        .encode(
            x=alt.X("left:Q", title=unit, scale=alt.Scale(zero=False, nice=False, padding=6)),
            x2="right:Q",
            y=alt.Y("count:Q", title="positions", scale=alt.Scale(type="sqrt")),
            y2=alt.datum(0),
            color=alt.condition(pick, alt.value(CURVE), alt.value(BARS), empty=False),
            tooltip=[
                alt.Tooltip("left:Q", title="from", format=".3f"),
                alt.Tooltip("right:Q", title="to", format=".3f"),
                alt.Tooltip("count:Q", title="positions", format=","),
            ],
        )
        .add_params(pick)
        .properties(height=240)
    )


def example_lines(examples: Sequence[Example]) -> str:
    """A line per example: its value, and its token in its context."""
    lines = []
    for one in examples:
        before, token, after = (escape(text).replace("\n", "⏎") for text in (one.before, one.token, one.after))
        lines.append(
            '<div style="display:grid;grid-template-columns:4.6rem 1fr;gap:.6rem;padding:.2rem 0;border-bottom:1px solid #80808026">'
            f'<span style="text-align:right;font-variant-numeric:tabular-nums">{number(one.value, ".3f")}</span>'
            f'<span style="font-family:monospace;font-size:.86rem;overflow-wrap:anywhere;white-space:pre-wrap">'
            f'<span style="opacity:.75">{before}</span><b style="background:#7048b644;border-radius:3px">{token}</b>'
            f'<span style="opacity:.75">{after}</span></span></div>'
        )
    return "".join(lines) or "<p>No position has such a value.</p>"


def example_images(examples: Sequence[Example], pictures: Sequence[Image.Image], grid: tuple[int, int]) -> str:
    """A picture per example, its patch outlined; a position that is no patch (CLS) is named."""
    from ablation_core.report.token_html import data_address

    rows, columns = grid
    cells = []
    for one, picture in zip(examples, pictures, strict=True):
        box, words = "", "CLS"
        if one.patch is not None:
            row, column = one.patch
            words = f"patch {row}, {column}"
            box = (
                f'<span style="position:absolute;left:{100 * column / columns:.2f}%;top:{100 * row / rows:.2f}%;'
                f'width:{100 / columns:.2f}%;height:{100 / rows:.2f}%;outline:3px solid {CURVE}"></span>'
            )
        cells.append(
            '<figure style="margin:0"><div style="position:relative">'
            f'<img alt="image {one.sequence + 1}, {words}" src="{data_address(picture)}" '
            f'style="width:100%;display:block;image-rendering:pixelated">{box}</div>'
            f'<figcaption style="font-size:.8rem">{words}: {number(one.value, ".3f")}</figcaption></figure>'
        )
    return (
        '<div style="display:grid;grid-template-columns:repeat(auto-fill,minmax(110px,1fr));gap:10px">'
        f"{''.join(cells)}</div>"
    )
