"""Parts of the page Saved results: the list, one result as it was, several side by side, differences, export and import."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from ablation_core.data.references import is_images, is_task
from ablation_core.errors import AblationError, as_markdown
from ablation_core.report.present import presentation_of
from ablation_core.report.present.side_by_side import (
    MOST_RESULTS,
    MOST_ROWS,
    differences_table,
    figures_chart,
    figures_frame,
    figures_table,
)
from ablation_core.saved.archive import Saved, SavedEntry
from ablation_core.saved.figures import figures_of, unit_of
from ablation_core.saved.results import MOST_IMPORTED, delete, entries, export_results, find, import_results
from ablation_core.saved.shelves import Shelf
from ablation_core.saved.side_by_side import compare_results
from ablation_core.ui.page import PAGES
from ablation_core.ui.widgets import confirmed_delete, draw_once, file_box, page_link, sentence_markdown


def choose_shown(shelf: Shelf) -> list[Saved]:
    """The list of all, and the results that are chosen from it; by default the newest."""
    found, problems = entries(shelf)
    for problem in problems:
        st.warning(as_markdown(problem), icon="⚠️")
    if not found:
        st.info(
            "Nothing is kept yet. “Keep this result” is at the foot of the pages One head, Ablate, Head map, Pruning curves and Tasks; "
            "or import a colleague's file below."
        )
        return []
    rows = [
        {
            "name": one.name,
            "kind": one.label,
            "model": one.model,
            "data": one.data,
            "saved": one.saved[:16].replace("T", " "),
        }
        for one in found
    ]
    st.dataframe(rows, hide_index=True, width="stretch", height=min(35 * (len(rows) + 1) + 3, 283))
    names = [one.name for one in found]
    chosen = st.multiselect(
        "Show",
        names,
        default=names[:1],
        key="results",
        bind="query-params",
        max_selections=MOST_RESULTS,
        help="One result is shown as it was; two or more beside each other.",
    )
    return [find(shelf, name) for name in chosen]


def show_one(saved: Saved) -> None:
    """A result as it was: sentences, chart, table, and a link to its page."""
    entry, row = saved.entry, presentation_of(saved.result)
    st.subheader(as_markdown(entry.name), anchor=False)
    if entry.note:
        st.markdown(as_markdown(entry.note))
    st.markdown("  \n".join(sentence_markdown(sentence) for sentence in row.sentences(saved.result) if sentence))
    with st.container(horizontal=True):
        open_again(saved)
    chart_column, table_column = st.columns([3, 2], gap="large")
    with chart_column:
        try:
            draw_once(row.chart(saved.result), alt=f"{entry.label}: {entry.name}")
        except AblationError as error:  # nothing to draw in it
            st.caption(as_markdown(error))
    with table_column:
        tables = ({"to read": row.readable} if row.readable else {}) | dict(row.tables)
        table = st.selectbox("Table", list(tables), key=f"table of {entry.kind}", help="Each table of the result.")
        try:
            st.dataframe(_at_most(tables[table](saved.result)), hide_index=True, width="stretch", placeholder="–")
        except AblationError as error:  # a result that holds means only
            st.caption(as_markdown(error))


def _at_most(frame: pd.DataFrame, rows: int = 5000) -> pd.DataFrame:
    if len(frame) > rows:
        st.caption(f"The first {rows:,} of {len(frame):,} rows; all: load_result(…).to_frame(…).")
    return frame.head(rows)


def show_side_by_side(shown: Sequence[Saved]) -> None:
    """All figures in one chart and one table."""
    st.subheader("Side by side", anchor=False)
    units = {unit_of(saved.result) for saved in shown}
    if len(units) > 1:
        st.info("Pruning curves hold the loss itself, the others its change: show them without each other.")
        return
    figures = {saved.entry.name: figures_of(saved.result) for saved in shown}
    frame = figures_frame(figures)
    if frame["mean"].isna().all():
        st.info("These results hold no figures yet.")
        return
    alternative = ", ".join(figures)
    draw_once(figures_chart(frame, units.pop()), alt=f"Figures of {alternative}, with 95% intervals.")
    if (count := frame["what"].nunique()) > MOST_ROWS:
        st.caption(f"The {MOST_ROWS} largest of {count} figures; the table has all.")
    st.dataframe(figures_table(figures), hide_index=True, width="stretch", placeholder="–")
    with st.container(horizontal=True):
        for saved in shown:
            open_again(saved)


def show_differences(one: Saved, other: Saved) -> None:
    """Of two of one kind, the differences, paired where they can be."""
    st.subheader("Differences", anchor=False)
    try:
        found = compare_results(one.result, other.result, (one.entry.name, other.entry.name))
    except AblationError as error:
        st.caption(as_markdown(error))
        return
    st.markdown("  \n".join(sentence_markdown(sentence) for sentence in presentation_of(found).sentences(found)))
    st.dataframe(differences_table(found), hide_index=True, width="stretch", placeholder="–")


def open_again(saved: Saved) -> None:
    """A link to the page that shows a result, as it was."""
    path, params = page_of(saved)
    if path in PAGES:
        page_link(path, f"Open {saved.entry.name} on {PAGES[path]}", params)


_PAGES = {  # where a result that was not kept from a page can be seen
    "SweepResult": "pages/head_map.py",
    "AdaptiveResult": "pages/head_map.py",
    "EstimateResult": "pages/head_map.py",
    "ComparisonResult": "pages/head_map.py",
    "CurveResult": "pages/pruning_curves.py",
    "AblationResult": "pages/ablate.py",
    "InteractionResult": "pages/ablate.py",
    "HeadDescription": "pages/ablate.py",
}


def page_of(saved: Saved) -> tuple[str, dict[str, Any]]:
    """The path and the address of the page that shows a result: those it was kept with, else those of its settings."""
    entry, kept = saved.entry, saved.entry.page
    params = kept.get("params")
    if (
        kept.get("path") in PAGES
        and isinstance(params, dict)
        and all(isinstance(one, str | list) for one in params.values())
    ):
        return kept["path"], params
    path = _PAGES.get(entry.kind, "")
    return path, _settings(saved.result, entry) if path else {}


def _settings(result: Any, entry: SavedEntry) -> dict[str, str]:
    refs = entry.data.split(", ")
    if not entry.model or is_task(refs[0]):  # tasks have no page of this kind
        return {"model": entry.model} if entry.model else {}
    settings = {"model": entry.model, "images" if is_images(refs[0]) else "text": refs[0]}
    if len(refs) == 2:
        settings |= {"compare": "true", "with": refs[1]}
    select = getattr(result, "select", None) or " ".join(getattr(result, "singles", ())) or getattr(result, "head", "")
    return settings | ({"select": select} if select else {})


def export_and_import(shelf: Shelf) -> None:
    """All as one file; a file from a colleague; and what is no longer wanted."""
    names = [entry.name for entry in entries(shelf)[0]]
    out_column, in_column = st.columns(2, gap="large")
    with out_column:
        st.markdown("**Export**")
        st.download_button(
            "Export all as one file",
            partial(export_results, shelf, names),
            "saved-results.zip",
            "application/zip",
            on_click="ignore",
            disabled=not names,
            help="A zip archive that others can import here or with saved import on the command line.",
        )
        if names:
            gone = st.selectbox("A result to delete", names, help="Choose one, then confirm.")
            confirmed_delete("saved result", gone, lambda: delete(shelf, gone))
    with in_column:
        st.markdown("**Import**")

        def read(file: UploadedFile) -> str:
            found = import_results(shelf, file.getvalue())
            return f"Imported: {as_markdown(', '.join(found))}."

        file_box(
            "A file of exported results",
            "saved results import",
            read,
            MOST_IMPORTED,
            "Reading it runs nothing. What has a name that is taken gets a number behind it.",
            "zip",
        )
