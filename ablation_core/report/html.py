"""A result as one self-contained HTML page: findings, charts, tables, and how to reproduce them.

Everything that comes from outside is escaped, pictures are inline SVG, and the page's own policy forbids scripts and
any request.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ablation_core.engine.metrics import metrics_in
from ablation_core.experiments.results import AblationResult
from ablation_core.report.numbers import interval_text, number
from ablation_core.stats.intervals import Interval

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b2733; background: #fff; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.finding { font-size: 1.1rem; border-left: 4px solid #dd6315; padding-left: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.25rem 1rem 0.25rem 0; border-bottom: 1px solid #dfe5ea; }
.wide { overflow-x: auto; }
svg { max-width: 100%; height: auto; }
pre { background: #f3f6f9; padding: 0.8rem; overflow-x: auto; white-space: pre-wrap; word-break: break-word; }
"""


@dataclass(frozen=True)
class Picture:
    """A chart for the page: its SVG and its alternative text."""

    svg: str
    alternative: str


@dataclass(frozen=True)
class Report:
    """The content of the page.

    Attributes:
        findings: sentences, the main result first.
        tables: caption → frame; floats are shown to five digits.
        script, command: how to reproduce the numbers.
        provenance: what the numbers were measured with.
    """

    title: str
    findings: Sequence[str]
    pictures: Sequence[Picture]
    tables: dict[str, pd.DataFrame]
    script: str
    command: str
    provenance: dict


def to_html(report: Report) -> str:
    """The page."""
    escaped = html.escape
    findings = "".join(f"<p>{escaped(sentence)}</p>" for sentence in report.findings if sentence)
    pictures = "".join(
        f'<figure role="img" aria-label="{escaped(picture.alternative)}">{own_ids(picture.svg, f"p{number}")}</figure>'
        for number, picture in enumerate(report.pictures)
    )
    tables = "".join(f"<h2>{escaped(name)}</h2>{table_html(frame)}" for name, frame in report.tables.items())
    made = "".join(
        f'<tr><th scope="row">{escaped(str(name))}</th><td>{escaped(str(value))}</td></tr>'
        for name, value in report.provenance.items()
        if value is not None
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escaped(report.title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escaped(report.title)}</h1>
<div class="finding">{findings}</div>
{pictures}
{tables}
<h2>How to reproduce these numbers</h2>
<p>In the project's folder, with its requirements installed:</p>
<pre>{escaped(report.command)}</pre>
<p>or this script:</p>
<pre>{escaped(report.script)}</pre>
<h2>Provenance</h2>
<div class="wide"><table>{made}</table></div>
</main>
</body>
</html>
"""


def result_table(result: AblationResult) -> pd.DataFrame:
    """A result as text with units: the baseline, then one row per method, changes with their 95% intervals."""

    rows = []
    for name, performance, change in (
        ("baseline", result.baseline, None),
        *((row.method, row.performance, row.change) for row in result.results),
    ):
        row, metrics = {"method": name}, metrics_in(performance.means)
        for metric in metrics:
            value = performance[metric.name]
            row[metric.heading] = f"{value:{metric.format}}" if change or not metric.divergence else ""
            row |= {one.label: f"{one.function(value):{one.format}}" for one in metric.derived}
        for metric in metrics:
            if metric.tested:
                heading = f"change of {metric.label}, {metric.unit or 'share'} [95% interval]"
                row[heading] = _change(change[metric.name], metric.change_format) if change else ""
        rows.append(row)
    return pd.DataFrame(rows)


def _change(change: Interval, form: str) -> str:
    return interval_text(change.mean, change.low, change.high, form)


def table_html(frame: pd.DataFrame) -> str:
    """A frame as an HTML table, everything escaped; floats to five digits."""
    head = "".join(f'<th scope="col">{html.escape(str(name))}</th>' for name in frame.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_shown(value))}</td>" for value in row) + "</tr>"
        for row in frame.itertuples(index=False)
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _shown(value: object) -> str:
    return number(value, ".5g") if isinstance(value, float) or value is None else str(value)


def own_ids(svg: str, name: str) -> str:
    """The drawing with its ids made its own by a name: those of several drawings on a page would clash."""
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    return re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
