"""A head's effect on one input, and its neuron's values, as HTML. Everything that comes from data is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ablation_core.report.charts.looks import BARS, HARM, HELP, mark_of
from ablation_core.report.numbers import number
from ablation_core.report.white_space import visible

if TYPE_CHECKING:
    from PIL import Image

    from ablation_core.heads.writes import Written

LISTED = 8  # of what is promoted, and as many of what is suppressed
Guesses = Sequence[tuple[str, float]]  # token or class, its probability


def line_sample(kind: str, width: int) -> str:
    """A piece of the line that charts draw for a kind of values, so many pixels wide. A gradient: pages drop inline SVG."""
    mark = mark_of(kind)
    ends = list(accumulate(mark.dash))
    stops = ", ".join(
        f"{mark.color if place % 2 == 0 else 'transparent'} {end - length}px {end}px"
        for place, (length, end) in enumerate(zip(mark.dash, ends, strict=True))
        if length
    )
    return (
        f'<span style="display:inline-block;width:{width}px;height:3px;vertical-align:middle;'
        f'background:repeating-linear-gradient(to right, {stops})"></span>'
    )


def value_legend(values: Sequence[tuple[str, float]]) -> str:
    """Each marked value with its line and its figure."""
    parts = "".join(
        f'<span style="margin-right:.55em;white-space:nowrap">{line_sample(kind, 18)} {kind} {number(value, ".2g")}</span>'
        for kind, value in values
    )
    return f'<div style="font-size:.76rem">{parts}</div>'


def before_after(before: Guesses, after: Guesses, without: str, method: str) -> str:
    """The most probable answers before and after, side by side, each with a bar.

    Args:
        without: what is taken out, for the second heading.
    """
    known = {text for text, _ in before}
    columns = (
        _column("With all heads", before, BARS, ()),
        _column(
            f"Without {without} ({method})", after, mark_of(method).color, tuple(t for t, _ in after if t not in known)
        ),
    )
    return (
        '<div style="display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));gap:.4rem 1.6rem">'
        f"{''.join(columns)}</div>"
    )


def _column(title: str, guesses: Guesses, colour: str, fresh: Sequence[str]) -> str:
    rows = []
    for text, share in guesses:
        shown = escape(visible(text))
        shown = f"<b>{shown}</b>" if text in fresh else shown
        rows.append(
            '<div style="display:grid;grid-template-columns:minmax(5rem,7.5rem) 1fr 3rem;gap:.5rem;align-items:center">'
            f'<span style="overflow:hidden;text-overflow:ellipsis;white-space:nowrap">{shown}</span>'
            f'<span style="height:.75rem;background:#80808022;border-radius:3px"><span style="display:block;height:100%;'
            f'width:{100 * share:.1f}%;background:{colour};border-radius:3px"></span></span>'
            f'<span style="text-align:right;font-variant-numeric:tabular-nums">{share:.0%}</span></div>'
        )
    return (
        f'<div style="font-size:.88rem;line-height:1.75"><div style="font-weight:600">{escape(title)}</div>'
        f"{''.join(rows)}</div>"
    )


def promoted(promotes: Sequence[Written], suppresses: Sequence[Written]) -> str:
    """Both ends of what is added to the logits, side by side."""
    raised = [one for one in promotes if one.logit > 0][:LISTED]  # a classifier's list may be of all its classes
    lowered = [one for one in suppresses if one.logit < 0][:LISTED]
    most = max([abs(one.logit) for one in (*raised, *lowered)], default=1.0)
    columns = []
    for title, ends, colour in (("Promotes", raised, HELP), ("Suppresses", lowered, HARM)):
        rows = "".join(
            '<div style="display:grid;grid-template-columns:minmax(5rem,8rem) 1fr 3.4rem;gap:.5rem;align-items:center">'
            f'<span style="overflow:hidden;text-overflow:ellipsis;white-space:nowrap">{escape(visible(one.text))}</span>'
            f'<span style="height:.7rem"><span style="display:block;height:100%;width:{100 * abs(one.logit) / most:.1f}%;'
            f'background:{colour};border-radius:3px"></span></span>'
            f'<span style="text-align:right;font-variant-numeric:tabular-nums">{number(one.logit, "+.2f")}</span></div>'
            for one in ends
        )
        columns.append(f'<div><div style="font-weight:600">{title}</div>{rows}</div>')
    return (
        '<div style="display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:.4rem 1.6rem;'
        f'font-size:.88rem;line-height:1.75">{"".join(columns)}</div>'
    )


def patch_overlay(picture: Image.Image, weights: np.ndarray) -> str:
    """A picture with each patch shaded by its weight, the largest deepest.

    Args:
        weights: (rows, columns).
    """
    from ablation_core.report.token_html import data_address

    rows, columns = weights.shape
    most = max(float(weights.max()), 1e-12)
    cells = "".join(
        f'<span title="patch {row}, {column}: {weights[row, column]:.1%}" '
        f'style="background:rgba(112,72,182,{0.85 * float(weights[row, column]) / most:.3f});outline:1px solid #80808055"></span>'
        for row in range(rows)
        for column in range(columns)
    )
    image = f'<img alt="the image" src="{data_address(picture)}" style="width:100%;display:block;image-rendering:pixelated">'
    grid = (
        f'<div style="position:absolute;inset:0;display:grid;grid-template-columns:repeat({columns},1fr);'
        f'grid-template-rows:repeat({rows},1fr)">{cells}</div>'
    )
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:1rem">'
        f'<div style="width:min(300px,100%)">{image}</div><div style="position:relative;width:min(300px,100%)">{image}{grid}</div></div>'
    )


def strongest_looks(frame: pd.DataFrame, most: int = 8) -> str:
    """The largest weights of a pattern, those on the first position left out: from, to, weight.

    Args:
        frame: as `patterns.pattern_frame` makes it.
    """
    rows = frame[frame["column"] > 0].nlargest(most, "weight")
    lines = "".join(
        f'<tr><td style="padding:.1rem .8rem .1rem 0">{escape(row["from"])}</td><td style="padding-right:.8rem">→ '
        f'{escape(row["to"])}</td><td style="text-align:right;font-variant-numeric:tabular-nums">{row["weight"]:.1%}</td></tr>'
        for row in rows.to_dict("records")
    )
    return f'<table style="font-size:.88rem;border-collapse:collapse">{lines}</table>'
