"""Export, at the end of a page: its numbers as script and command, its charts and tables as files, all as a report.

Files are made when they are downloaded, in the download's own thread, so that the row costs a page nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Self

import altair as alt
import pandas as pd
import streamlit as st

from ablation_core.activations.neuron_summary import summarise_neuron
from ablation_core.data.uploads import named
from ablation_core.engine.metrics import Metric, metrics_in
from ablation_core.presentation import Presented
from ablation_core.report import code, export, frames
from ablation_core.report.charts import head_maps, method_charts, neuron_charts
from ablation_core.report.html import Picture, Report, result_table, to_html
from ablation_core.report.numbers import is_points
from ablation_core.report.sentences import comparison, verdict
from ablation_core.server import access
from ablation_core.ui.sidebar.view import View
from ablation_core.ui.together.keep import keep_popover
from ablation_core.ui.widgets import copy_buttons

if TYPE_CHECKING:
    from ablation_core.ui.ablation.job import AblationProgress


@dataclass(frozen=True)
class Chart:
    """A chart to export: how it is drawn, and its alternative text."""

    draw: Callable[[], alt.TopLevelMixin]
    alternative: str

    def svg(self, title: str) -> str:
        return export.to_svg(self.draw(), title, self.alternative)

    def png(self, title: str) -> bytes:
        return export.to_png(self.draw(), title, self.alternative)


@dataclass(frozen=True)
class ExportContent:
    """What a page exports.

    Attributes:
        name: the beginning of every file's name.
        charts, tables: by title; frames are made when asked for.
        report: makes the HTML page; None where a page has none.
        keeps: the result that can be kept under a name, and the path of the page that shows it again.
    """

    name: str
    script: str
    command: str
    charts: dict[str, Chart]
    tables: dict[str, Callable[[], pd.DataFrame]]
    provenance: dict
    report: Callable[[], str] | None = None
    keeps: tuple[Presented, str] | None = None

    def with_report(self, title: str, findings: Sequence[str], tables: Callable[[], dict[str, pd.DataFrame]]) -> Self:
        """The same with a report of these sentences and tables, and all charts."""

        def report() -> str:
            pictures = [Picture(chart.svg(words), chart.alternative) for words, chart in self.charts.items()]
            shown = tables()
            return to_html(Report(title, findings, pictures, shown, self.script, self.command, self.provenance))

        return replace(self, report=report)


def row(content: ExportContent) -> None:
    """Draw the row."""
    st.divider()
    st.markdown("**Export**")
    with st.container(horizontal=True):
        copy_buttons({"Copy as Python": content.script, "Copy as command": content.command})
        with st.popover("Show the code", help="A script and a command line that print the numbers of this page."):
            st.caption("Run them in the project's folder; the script prints JSON, and so does the command with --json.")
            st.code(content.script, language="python", wrap_lines=True)
            st.code(content.command, language="bash", wrap_lines=True)
        with st.popover("Charts", help="Every chart of this page as a PNG or SVG file."):
            for title, chart in content.charts.items():
                _downloads(content, title, {"PNG": partial(chart.png, title), "SVG": partial(chart.svg, title)})
        with st.popover("Tables", help="Every table of this page as a CSV or JSON file, with its provenance."):
            for title, frame in content.tables.items():
                files = {"CSV": _table(export.to_csv, frame, content), "JSON": _table(export.to_json, frame, content)}
                _downloads(content, title, files)
        if content.keeps:
            keep_popover(*content.keeps, suggested=content.name)
        if content.report:
            st.download_button(
                "Report",
                content.report,
                export.file_name(content.name, "report", ending="html"),
                "text/html",
                on_click="ignore",
                key=f"report {content.name}",
                help="One HTML page with the findings, charts, tables and how to reproduce the numbers.",
            )


_TYPES = {"PNG": "image/png", "SVG": "image/svg+xml", "CSV": "text/csv", "JSON": "application/json"}


def _downloads(content: ExportContent, title: str, files: Mapping[str, Callable[[], bytes | str]]) -> None:
    st.markdown(title)
    with st.container(horizontal=True):
        for kind, make in files.items():
            st.download_button(
                kind,
                make,
                export.file_name(content.name, title.split(",")[0].lower(), ending=kind.lower()),
                _TYPES[kind],
                on_click="ignore",
                key=f"{kind} {title} {content.name}",
                help=f"{title} as {kind}",
            )


def _table(
    write: Callable[[pd.DataFrame, dict], bytes], frame: Callable[[], pd.DataFrame], content: ExportContent
) -> Callable[[], bytes]:
    return lambda: write(frame(), content.provenance)


def of_ablation(view: View, outcome: AblationProgress) -> None:
    """The row of the Ablate page."""
    row(ablation_exports(view, outcome))


def ablation_exports(view: View, outcome: AblationProgress) -> ExportContent:
    """The exports of the Ablate page, once something is measured."""
    result, floor = outcome.result, outcome.floor
    assert result is not None
    title = f"{result.model['ref']} without {result.select or 'any neurons'}, on {named(result.data['ref'])}"

    def changes(metric: Metric) -> alt.LayerChart:
        frame = frames.change_frame(result, metric.name, view.method, floor)
        return method_charts.changes(frame, metric.change_title, is_points(metric.change_format))

    drawn = {}
    for metric in metrics_in(result.baseline.means):
        words = metric.change_title[0].upper() + metric.change_title[1:]
        drawn[words] = Chart(partial(changes, metric), f"{words} by method, with 95% intervals: {title}.")
    if result.neurons:
        drawn["Replacement values"] = Chart(
            lambda: method_charts.replaced_values(frames.replaced_frame(view.statistics, view.selection, view.bins)),
            "Each method's values in standard deviations from the neurons' means.",
        )
    script = access.ACCESS.public(code.ablation_script(result, view.statistics, view.method))
    command = access.ACCESS.public(code.ablation_command(result, view.statistics))
    provenance = export.result_provenance(result)

    tables = {
        "All methods": lambda: frames.result_frame(result),
        "Replacement values": lambda: frames.replaced_frame(view.statistics, view.selection, view.bins),
    }
    name = export.file_name("ablation", result.model["ref"], result.select, ending="").rstrip(".")
    keeps = (result, "pages/ablate.py")
    return ExportContent(name, script, command, drawn, tables, provenance, keeps=keeps).with_report(
        title,
        [verdict(result, view.method, floor), comparison(result)],
        lambda: {"All methods, on the same predictions": result_table(result)},
    )


def of_neuron(view: View, layer: int, head: int, neuron: int) -> None:
    """The row of the Distributions page."""
    row(neuron_exports(view, layer, head, neuron))


def neuron_exports(view: View, layer: int, head: int, neuron: int) -> ExportContent:
    """The exports of the Distributions page: one neuron, its head, and the map."""
    statistics, bins, select = view.statistics, view.bins, f"{layer}.{head}:{neuron}"
    reading = summarise_neuron(statistics, layer, head, neuron, bins)
    unit = f"activation of neuron {select}"

    def histogram(log: bool) -> alt.LayerChart:
        bars = frames.histogram_frame(statistics, layer, head, neuron, bins)
        return neuron_charts.neuron_histogram(bars, frames.mark_frame(reading, bars), unit, log)

    def heads() -> pd.DataFrame:
        return frames.head_frame(frames.head_distances(statistics, bins), view.info.shape, {(layer, head)})

    def neurons() -> pd.DataFrame:
        frame = frames.neuron_frame(statistics, layer, head, bins)
        return frame.rename(columns={"distance_in_std": "peak minus mean, in std"})

    words = f"Histogram of neuron {select} of {view.info.ref}"
    drawn = {
        words: Chart(lambda: histogram(False), f"{words}. {reading.sentence}"),
        f"{words}, logarithmic": Chart(lambda: histogram(True), f"{words}, counts logarithmic. {reading.sentence}"),
        "Map of the heads": Chart(
            lambda: head_maps.head_map(heads(), "|peak − mean| in std"),
            "Every head, coloured by the distance between peak and mean.",
        ),
    }
    script = access.ACCESS.public(code.neuron_script(view.info, statistics, select, bins))
    command = access.ACCESS.public(code.neuron_command(view.info, statistics, select, bins))
    provenance = export.statistics_provenance(view.info, statistics, bins) | {"neuron": select}

    tables = {
        f"Neuron {select}": lambda: frames.histogram_frame(statistics, layer, head, neuron, bins),
        f"Head {layer}.{head}": neurons,
        "All heads": lambda: heads()[["layer", "head", "value"]].rename(
            columns={"value": "mean of |peak minus mean| in std"}
        ),
    }
    name = export.file_name("neuron", view.info.ref, select, ending="").rstrip(".")
    return ExportContent(name, script, command, drawn, tables, provenance).with_report(
        f"Neuron {select} of {view.info.ref}",
        [reading.sentence],
        lambda: {
            "Its values, in activation units": pd.DataFrame(reading.values.items(), columns=["kind", "value"]),
            f"All neurons of head {layer}.{head}, those with the peak farthest from the mean first": neurons(),
        },
    )
