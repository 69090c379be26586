"""Maps of measured and estimated effects, heads by layers or by positions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd

from ablation_core.engine.metrics import Metric
from ablation_core.report.charts.axes import OUTLIER
from ablation_core.report.charts.looks import HARM, HELP, cell_ink, faded, ink
from ablation_core.report.numbers import is_points
from ablation_core.report.picks import ONE, one_pick
from ablation_core.report.run_frames import STATES

MOST_LABELLED = 200  # cells with their values written in them


def _in_points(base: alt.Chart, form: str, *columns: str) -> tuple[alt.Chart, str, float]:
    """Differences of shares in percentage points, with their format and factor; everything else as it is."""
    if not is_points(form):
        return base, form, 1.0
    points = {name: f"isValid(datum['{name}']) ? 100 * datum['{name}'] : null" for name in columns}
    return base.transform_calculate(**points), form[:-1] + "f", 100.0


def deepest(frame: pd.DataFrame, factor: float = 1.0) -> float:
    """The change that gets the deepest colour of `effect_map`: the largest but for outliers, which get it too."""
    sizes = factor * frame["value"].abs()
    return max(min(sizes.max(), OUTLIER * sizes.quantile(0.75)), 1e-12) if len(frame) else 1.0


def effect_map(
    frame: pd.DataFrame,
    title: str,
    metric: Metric,
    layers: int,
    heads: int,
    dark: bool = False,
) -> alt.LayerChart:
    """Every head's change, layer on the x axis and head on the y axis, clickable as the selection `pick`.

    Args:
        frame: as `run_frames.map_frame` makes it.
        metric: what is drawn; changes for the worse are red.
        dark: whether it is drawn on a dark page.
    """
    axes = (Axis("layer", range(layers)), Axis("head", range(heads)[::-1]))
    return effect_cells(frame, title, metric, *axes, {"label": "head"}, layers * heads <= MOST_LABELLED, dark)


def marks_words(cells: int) -> str:
    """How a map of so many cells marks what is significant and what is estimated; in Markdown."""
    if cells <= MOST_LABELLED:
        return "**Bold**: significant (FDR 5%). *Italic*: an instant estimate, not measured yet."
    return "Dot: significant (FDR 5%). Ring: an instant estimate, not measured yet."


def significant_words(cells: int) -> str:
    """The same where all is measured."""
    return marks_words(cells).partition(". ")[0] + "."


@dataclass(frozen=True)
class Axis:
    """An axis of a map: the column that it shows, which is also its title, and the column's values in their order."""

    column: str
    values: Sequence[int | str]


def effect_cells(
    frame: pd.DataFrame,
    title: str,
    metric: Metric,
    x: Axis,
    y: Axis,
    named: Mapping[str, str],
    labelled: bool,
    dark: bool = False,
) -> alt.LayerChart:
    """A map of changes, each a cell, clickable as the selection `pick`.

    The colour is the value, always, on a square-root scale, so that small changes show beside large ones. Significant
    ones are bold or, on a map too large for numbers, have a dot; estimates are italic or have a ring. (Vega drops dashes
    and, on discrete fields, opacity from rectangles.)

    Args:
        frame: the axes' columns, value, low, high, q, state, picked, estimate.
        named: columns that say what a cell is, with the words for them.
        labelled: whether there is room for numbers.
    """
    base, form, factor = _in_points(alt.Chart(frame), metric.cell_format, "value", "low", "high", "estimate")
    most = deepest(frame, factor)
    below, above = (HELP, HARM) if metric.worse > 0 else (HARM, HELP)
    domain = [0, most] if metric.divergence else [-most, -1e-9 * most, 1e-9 * most, most]
    colours = [faded(above), above] if metric.divergence else [below, faded(below), faded(above), above]
    base = base.encode(
        x=alt.X(
            f"{x.column}:O",
            title=x.column,
            scale=alt.Scale(domain=list(x.values)),
            axis=alt.Axis(labelAngle=0, domain=False, ticks=False, labelOverlap=True),
        ),
        y=alt.Y(
            f"{y.column}:O",
            title=y.column,
            scale=alt.Scale(domain=list(y.values)),
            axis=alt.Axis(domain=False, ticks=False, labelOverlap=True),
        ),
    )
    pick = one_pick([x.column, y.column])
    cells = (
        base.mark_rect(cornerRadius=3, cursor="pointer", stroke="#80808090", strokeWidth=1)
        .encode(
            color=alt.Color(
                "value:Q",
                scale=alt.Scale(type="sqrt", domain=domain, range=colours, clamp=True),
                legend=alt.Legend(
                    title=title,
                    orient="top",
                    gradientLength=220,
                    titleLimit=300,
                    labelExpr=f"datum.value == 0 ? '0' : format(datum.value, '{form}')",
                    tickCount=3,
                ),
            ),
            tooltip=[
                *(alt.Tooltip(f"{column}:N", title=words) for column, words in named.items()),
                alt.Tooltip("value:Q", title=title, format=form),
                alt.Tooltip("low:Q", title="95% interval from", format=form),
                alt.Tooltip("high:Q", title="to", format=form),
                alt.Tooltip("q:Q", title="q over the map", format=".3f"),
                alt.Tooltip("state:N", title="is"),
                *(
                    [alt.Tooltip("estimate:Q", title="instant estimate", format=form)]
                    if frame["estimate"].notna().any()
                    else []
                ),
            ],
        )
        .add_params(pick)
    )
    outline = base.transform_filter(ONE).mark_rect(
        fill=None, stroke=ink(dark), strokeWidth=3, cornerRadius=3, tooltip=None
    )
    share = f"sqrt(min(abs(datum.value) / {most}, 1))"
    written = alt.expr(f"datum.value > 0 ? {cell_ink(share, above, dark)} : {cell_ink(share, below, dark)}")
    if labelled:
        shown = base.transform_calculate(
            shown=f"format(datum.value, '{form}')"
        ).transform_calculate(
            shown="test(/[1-9]/, datum.shown) ? datum.shown : replace(datum.shown, /[+−-]/, '')"  # no sign before a zero
        )
        marks = shown.mark_text(
            fontSize=11,
            fontWeight=alt.expr(f"datum.state === '{STATES[0]}' ? 'bold' : 'normal'"),
            fontStyle=alt.expr(f"datum.state === '{STATES[2]}' ? 'italic' : 'normal'"),
            cursor="pointer",
            tooltip=None,
            color=written,
        ).encode(text=alt.Text("shown:N"))
    else:
        marks = base.transform_filter(f"datum.state !== '{STATES[1]}'").mark_point(
            size=12,
            strokeWidth=1,
            fillOpacity=alt.expr(f"datum.state === '{STATES[0]}' ? 1 : 0"),
            filled=True,
            strokeOpacity=1,
            cursor="pointer",
            tooltip=None,
            fill=written,
            stroke=written,
        )
    chart = alt.LayerChart(layer=[cells, outline, marks])
    return chart.properties(height=110 + max(150, min(34 * len(y.values), 480)))
