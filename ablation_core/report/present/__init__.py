"""Every result's tables, chart and sentences, by one row each (`registry.py`), and the HTML that a notebook shows of it.

`presentation.Presented` calls these three functions; nothing else need.
"""

from __future__ import annotations

import html
import re
import zlib
from typing import Any

import altair as alt
import pandas as pd

from ablation_core.errors import AblationError, ReportError
from ablation_core.report.export import to_svg
from ablation_core.report.html import own_ids, table_html
from ablation_core.report.present.registry import PRESENTATIONS, Presentation

MOST_ROWS = 24  # of a table in a notebook


def presentation_of(result: object) -> Presentation:
    """The row of a result's class, or of the one that it is derived from."""
    return next(PRESENTATIONS[kind.__name__] for kind in type(result).__mro__ if kind.__name__ in PRESENTATIONS)


def frame_of(result: object, table: str | None = None) -> pd.DataFrame:
    tables = presentation_of(result).tables
    if table is None:
        table = next(iter(tables))
    if table not in tables:
        raise ReportError(f"{type(result).__name__} has no table {table!r}; choose from {', '.join(tables)}.")
    return tables[table](result)


def chart_of(result: object, *choice: Any, **settings: Any) -> alt.LayerChart | alt.Chart:
    return presentation_of(result).chart(result, *choice, **settings)


def html_of(result: object) -> str:
    row = presentation_of(result)
    sentences = [sentence for sentence in row.sentences(result) if sentence]
    words = "".join(f"<p>{_marked_up(sentence)}</p>" for sentence in sentences)
    alternative = html.escape(re.sub(r"\*\*", "", " ".join(sentences)), quote=True)
    try:
        svg = to_svg(row.chart(result), "", alternative="")
    except AblationError as error:  # nothing to draw yet: the sentence says so
        picture = f"<p>{html.escape(str(error))}</p>"
    else:
        name = f"r{zlib.crc32(svg.encode()):08x}"  # a notebook page holds many drawings
        picture = f'<figure role="img" aria-label="{alternative}" style="margin:0">{own_ids(svg, name)}</figure>'
    frame = row.shown(result)
    more = f"<p>{MOST_ROWS} of {len(frame):,} rows; all: <code>.to_frame()</code></p>" if len(frame) > MOST_ROWS else ""
    return f'<div style="max-width:60rem">{words}{picture}{table_html(frame.head(MOST_ROWS))}{more}</div>'


def _marked_up(sentence: str) -> str:
    """Escaped, with what is between double asterisks bold."""
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(sentence))
