"""Several heads together, on the Ablate page: what each two of them do beyond their single effects."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import streamlit as st

from ablation_core.data.dataset import Data
from ablation_core.experiments.interaction_result import InteractionResult
from ablation_core.experiments.interactions import MOST_HEADS, InteractionRun
from ablation_core.methods.registry import METHODS
from ablation_core.report.present.interactions import interaction_matrix, meaning_sentence, pairs_table
from ablation_core.report.present.words import interaction_sentences
from ablation_core.server.lru import LRU
from ablation_core.server.turns import fair_lock
from ablation_core.ui.runs import controls as run_controls
from ablation_core.ui.runs.expected import seconds_of
from ablation_core.ui.runs.watching import watched_run
from ablation_core.ui.shared import SEED
from ablation_core.ui.sidebar.view import View
from ablation_core.ui.together.keep import keep_popover
from ablation_core.ui.widgets import dark_page, draw_once


@dataclass(frozen=True)
class _Share:
    """How far a run is, for its progress bar."""

    share: float


@st.cache_resource
def shared_interactions() -> LRU:
    """Interactions by what decides them."""
    return LRU(16)


def show_interactions(view: View, data: Data) -> None:
    """The section, where two heads or more are selected."""
    heads = len(view.selection.chosen)
    if heads < 2:
        return
    st.divider()
    st.subheader("Do these heads cover for each other?", anchor=False)
    if heads > MOST_HEADS:
        st.caption(f"Interactions are measured of up to {MOST_HEADS} heads; {heads} are selected.")
        return
    parts = (view.info.fingerprint, data.fingerprint, view.statistics.digest, view.selection, view.bins, view.method)
    own = Path(
        f"interactions-{sha256(' | '.join(map(str, parts)).encode()).hexdigest()[:12]}"
    )  # a job's name, not a file
    pairs = heads * (heads - 1) // 2

    @watched_run(own)
    def section() -> None:
        found = shared_interactions().get(own.name)
        name = f"Interactions of {view.selection} in {view.info.ref}"
        begin = None if found else f"Measure {pairs} interaction{'s' * (pairs != 1)} by {view.method}"
        run_controls.controls(
            own, name, lambda: _steps(view, data, own.name), begin, fair_lock(view.model), saves=False,
            seconds=lambda: seconds_of(view.model, data, heads + pairs + (heads > 2)),
        )  # fmt: skip
        if found is None:
            st.caption(
                "The interaction of two heads is the change of ablating both minus both single changes: above 0 they are "
                "redundant, below 0 synergistic."
            )
        else:
            _show(found)

    section()


def _steps(view: View, data: Data, key: str) -> Generator[_Share]:
    run = InteractionRun(
        view.model, data, view.selection, METHODS[view.method], statistics=view.statistics, bins=view.bins, seed=SEED
    )
    yield _Share(0.0)
    for done in run.steps():
        if done == run.ablations:
            shared_interactions().keep(key, run.result())
        yield _Share(done / run.ablations)


def _show(found: InteractionResult) -> None:
    st.markdown(meaning_sentence(found))
    matrix_column, table_column = st.columns([2, 3], gap="large")
    with matrix_column:
        draw_once(
            interaction_matrix(found, dark_page()),
            alt=f"Matrix of the interactions of {', '.join(found.singles)}: {meaning_sentence(found)}",
        )
        st.caption("**Bold**: significant (FDR 5%). *Italic*, on the diagonal: the head's own change of loss.")
    with table_column:
        st.markdown(interaction_sentences(found)[0])
        st.dataframe(pairs_table(found), hide_index=True, width="stretch", placeholder="–")
        keep_popover(found, "pages/ablate.py", as_name(found))


def as_name(found: InteractionResult) -> str:
    return f"interactions of {' '.join(found.singles)} by {found.method}"
