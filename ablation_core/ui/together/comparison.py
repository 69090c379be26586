"""Comparison mode of the Head map: every head's effect on two data sets, or in the model and its random twin."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import streamlit as st

from ablation_core.data.uploads import list_uploads, reference
from ablation_core.errors import DataError, StatisticsError, as_markdown
from ablation_core.methods.registry import METHODS
from ablation_core.report.present.comparisons import (
    comparison_chart,
    comparison_sentence,
    comparison_sentences,
    differing_frame,
)
from ablation_core.runs.comparison import (
    ComparisonProgress,
    ComparisonSpec,
    Side,
    comparison_steps,
)
from ablation_core.runs.comparison_result import ComparisonResult
from ablation_core.server import access
from ablation_core.server.lru import LRU
from ablation_core.server.turns import fair_lock
from ablation_core.ui import page, run_controls
from ablation_core.ui.expected import passes_of_heads, seconds_of
from ablation_core.ui.shared import SEED, find_shared_statistics, shared_data, shared_statistics
from ablation_core.ui.sidebar import DATA_KINDS, UPLOADED, View
from ablation_core.ui.together.keep import keep_popover
from ablation_core.ui.widgets import dark_page, sentence_markdown


@st.cache_resource
def shared_comparisons() -> LRU:
    """Comparisons by what decides them."""
    return LRU(16)


def show_comparison(view: View) -> None:
    """The whole page below its title."""
    with page.show_errors():
        one, other = _sides(view)
    spec = ComparisonSpec(METHODS[view.method], view.bins, seed=SEED)
    parts = (view.info.fingerprint, *(p for side in (one, other) for p in _deciding(side)), view.method, view.bins)
    own = Path(
        f"comparison-{sha256(' | '.join(map(str, parts)).encode()).hexdigest()[:12]}"
    )  # a job's name, not a file
    folder, store = run_controls.FOLDER, shared_comparisons()

    def steps() -> Generator[ComparisonProgress]:
        for step in comparison_steps(one, other, spec, folder):
            if step.result is not None:
                store.keep(own.name, step.result)
            yield step

    with page.show_errors():
        kept = 0.0 if run_controls.is_running(own) or store.get(own.name) else _look(steps())

    def seconds(heads: float) -> float | None:
        passes = passes_of_heads(view.info.shape, heads)
        found = [seconds_of(view.model, side.data, passes) for side in (one, other)]
        return None if None in found else sum(filter(None, found))

    @run_controls.watched_run(own)
    def drawn() -> None:
        found = store.get(own.name)
        words = "Continue the comparison" if kept else "Compare"
        begin = None if found else f"{words}: {sum(view.info.shape.heads)} heads on both by {view.method}"
        name = f"{view.info.ref} on {one.data.ref} and {other.data.ref}"
        left = (1 - kept) * sum(view.info.shape.heads)
        run_controls.controls(own, name, steps, begin, fair_lock(view.model), seconds=lambda: seconds(left))
        if found is None:
            st.info("Nothing has been measured with these settings yet. Each head is saved when it is finished.")
        else:
            _show(found)

    drawn()


def _deciding(side: Side) -> tuple[str, str]:
    return side.data.fingerprint, "" if side.statistics is None else side.statistics.digest


def _look(steps: Generator[ComparisonProgress]) -> float:
    """How much of it is kept; where that is all, the result is put into the store."""
    if not access.ACCESS.keeps_runs:
        return 0.0
    with closing(steps) as begun:
        return next(begun).share


def _sides(view: View) -> tuple[Side, Side]:
    """The sidebar's data with its statistics, and the chosen other data with its own."""
    allowed = access.ACCESS
    kind, listed = DATA_KINDS[view.info.modality]
    uploads = {reference(one): one.name for one in list_uploads() if one.kind in UPLOADED[kind]}
    names = [ref for ref in allowed.offered_data(kind, (*listed, *uploads)) if ref != view.data_ref]
    if not names:
        raise DataError(f"There is no second data set of {kind} to compare {view.data_ref} with; upload one.")
    ref = st.selectbox(
        f"Compare {view.data_ref} with",
        names,
        key="with",
        bind="query-params",
        accept_new_options=not allowed.shared,
        format_func=lambda one: uploads.get(one, one),
        help="A second data set of the same kind. Each is ablated with the values of its own statistics.",
    )
    ref = ref or names[0]  # where the box was emptied
    one, other = (shared_data(view.model, each, view.predictions, "evaluation") for each in (view.data_ref, ref))
    statistics = view.statistics
    if METHODS[view.method].needs_statistics:
        entry = find_shared_statistics(view.model, ref)
        if entry is None:
            raise StatisticsError(
                f"There are no statistics of {view.info.ref} on {ref} yet: choose it as Data in the sidebar once, and compute "
                f"them there."
            )
        return Side(view.model, one, statistics), Side(view.model, other, shared_statistics(view.model, entry))
    return Side(view.model, one, None), Side(view.model, other, None)


def _show(found: ComparisonResult) -> None:
    metric = run_controls.choose_measure(found.metrics, "What is compared.")
    sentence = comparison_sentence(found, metric)
    st.markdown(sentence_markdown(sentence))
    one, other = found.names
    map_column, scatter_column = st.columns(2, gap="large")
    with map_column:
        st.markdown(f"**Every head: {as_markdown(other)} minus {as_markdown(one)}**")
        st.altair_chart(
            comparison_chart(found, "map", metric, dark=dark_page()), alt=f"Map of the differences. {sentence}"
        )
        st.caption(
            "**Bold**: significant (FDR 5 %). Red: the larger change is on the second. Square-root colour scale."
        )
    with scatter_column:
        st.markdown("**One data set against the other**")
        st.altair_chart(
            comparison_chart(found, "scatter", metric, dark=dark_page()),
            alt=f"Each head's change on {one} against {other}. {sentence}",
        )
        st.caption(
            "One point per head with both 95 % intervals; on the dashed line both change equally. Diamonds differ."
        )
    st.caption(as_markdown(comparison_sentences(found)[1]))
    with st.expander("Table of all heads"):
        st.dataframe(differing_frame(found), hide_index=True, width="stretch", row_height=28, placeholder="–")
    keep_popover(found, "pages/head_map.py", f"{one} and {other} in {found.sides[0]['model']['ref']} by {found.method}")
