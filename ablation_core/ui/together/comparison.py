"""Comparison mode of the Head map: every head's effect on two data sets, or in two models on one.

What stands in the box "Compare with" is a data set, `model: REF` for a second model, or the model's random twin.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import streamlit as st

from ablation_core import bundled
from ablation_core.data.uploads import list_uploads, reference
from ablation_core.errors import AblationError, DataError, StatisticsError, as_markdown
from ablation_core.methods.registry import METHODS, USUAL
from ablation_core.models.info import ModelInfo
from ablation_core.models.loaded import LoadedModel
from ablation_core.report.charts import effect_maps
from ablation_core.report.present.comparisons import (
    comparison_chart,
    comparison_sentence,
    comparison_sentences,
    differing_frame,
    map_size,
)
from ablation_core.runs.compare import twin_steps
from ablation_core.runs.comparison import ComparisonProgress, ComparisonSpec, Side, check_alike, comparison_steps
from ablation_core.runs.comparison_result import ComparisonResult
from ablation_core.server import access
from ablation_core.server.lru import LRU
from ablation_core.server.turns import fair_lock
from ablation_core.ui import page
from ablation_core.ui.runs import choice as run_choice
from ablation_core.ui.runs import controls as run_controls
from ablation_core.ui.runs.expected import passes_of_heads, seconds_of
from ablation_core.ui.runs.watching import running, watched_run
from ablation_core.ui.shared import (
    SEED,
    find_shared_statistics,
    known_model_info,
    shared_data,
    shared_model,
    shared_statistics,
)
from ablation_core.ui.sidebar.data import DATA_KINDS, UPLOADED
from ablation_core.ui.sidebar.view import View
from ablation_core.ui.together.keep import keep_popover
from ablation_core.ui.widgets import dark_page, draw_once, sentence_markdown

RANDOM_TWIN = "random twin"


@st.cache_resource
def shared_comparisons() -> LRU:
    """Comparisons by what decides them."""
    return LRU(16)


@dataclass(frozen=True, eq=False)
class _Asked:
    """A comparison that can be begun. `other` None stands for the random twin."""

    view: View
    one: Side
    other: Side | None

    @property
    def spec(self) -> ComparisonSpec:
        return ComparisonSpec(METHODS[self.view.method], self.view.bins, seed=SEED)

    @property
    def own(self) -> Path:
        """A job's name, not a file."""
        sides = (part for side in (self.one, self.other) for part in _deciding(side))
        decides = " | ".join((*sides, self.view.method, str(self.view.bins)))
        return Path(f"comparison-{sha256(decides.encode()).hexdigest()[:12]}")

    @property
    def title(self) -> str:
        ref, one, other = self.view.info.ref, self.one, self.other
        if other is None or other.model is not one.model:
            return f"{ref} and {RANDOM_TWIN if other is None else other.model.ref} on {one.data.ref}"
        return f"{ref} on {one.data.ref} and {other.data.ref}"

    def steps(self) -> Generator[ComparisonProgress]:
        folder, store = run_controls.FOLDER, shared_comparisons()
        if self.other is None:
            begun = twin_steps(self.one, self.spec, folder)
        else:
            begun = comparison_steps(self.one, self.other, self.spec, folder)
        for step in begun:
            if step.result is not None:
                store.keep(self.own.name, step.result)
            yield step

    def look(self) -> float:
        """How much of it is saved; where that is all, the result is put into the store."""
        known = running(self.own) or shared_comparisons().get(self.own.name)
        if known or self.other is None or not access.ACCESS.keeps_runs:  # a twin has to be drawn first
            return 0.0
        with closing(self.steps()) as begun:
            return next(begun).share


def show_comparison(view: View) -> None:
    """The whole page below its title."""
    store = shared_comparisons()
    with page.show_errors():
        asked = _Asked(view, *_sides(view))
        saved = asked.look()
        instead = None if saved or store.get(asked.own.name) else _saved_by_another_method(asked)
    own, heads = asked.own, sum(view.info.shape.heads)

    def seconds(heads: float) -> float | None:
        passes = passes_of_heads(view.info.shape, heads)
        found = [seconds_of(side.model, side.data, passes) for side in (asked.one, asked.other or asked.one)]
        return None if None in found else sum(filter(None, found))

    @watched_run(own)
    def drawn() -> None:
        found = store.get(own.name)
        words = "Continue the comparison" if saved else "Compare"
        begin = None if found else f"{words}: {heads} heads on both by {view.method}"
        lock, left = fair_lock(view.model), (1 - saved) * heads
        run_controls.controls(
            own, asked.title, asked.steps, begin, lock, aside=instead is not None, seconds=lambda: seconds(left)
        )
        if found is not None:
            _show(found)
        elif instead is not None:
            st.caption(f"Shown: {instead.method}, which is saved. With {view.method} nothing has been measured yet.")
            _show(instead)
        else:
            st.info("Nothing has been measured with these settings yet. Each head is saved when it is finished.")

    drawn()


def _saved_by_another_method(asked: _Asked) -> ComparisonResult | None:
    """The whole comparison by another method, if one is saved."""
    if asked.other is None:
        return None
    for method in USUAL:
        if method == asked.view.method:
            continue
        with suppress(AblationError):  # it may need statistics that are not there
            view = replace(asked.view, method=method)
            one, other = (_side(side.model, side.data.ref, view) for side in (asked.one, asked.other))
            instead = _Asked(view, one, other)
            instead.look()
            if found := shared_comparisons().get(instead.own.name):
                return found
    return None


def _deciding(side: Side | None) -> tuple[str, ...]:
    if side is None:
        return (RANDOM_TWIN,)
    return side.model.fingerprint, side.data.fingerprint, "" if side.statistics is None else side.statistics.digest


def _sides(view: View) -> tuple[Side, Side | None]:
    """The sidebar's model and data, and what is chosen beside them; None stands for the random twin."""
    allowed = access.ACCESS
    kind, listed = DATA_KINDS[view.info.modality]
    uploads = {reference(one): one.name for one in list_uploads() if one.kind in UPLOADED[kind]}
    data = [ref for ref in allowed.offered_data(kind, (*listed, *uploads)) if ref != view.data_ref]
    models = [
        f"{access.SECOND_MODEL}{ref}" for ref in allowed.offered_models(bundled.NAMES) if _is_alike(ref, view.info)
    ]
    names = [*data, *models, *([] if allowed.shared else [RANDOM_TWIN])]  # a twin costs as much again as the model
    if not names:
        raise DataError(f"There is no second data set of {kind} to compare {view.data_ref} with; upload one.")
    ref = st.selectbox(
        f"Compare {view.info.ref} on {view.data_ref} with",
        names,
        key="with",
        bind="query-params",
        accept_new_options=not allowed.shared,
        format_func=lambda one: uploads.get(one, one),
        help="A second data set of the same kind; or a second model with the same tokenizer and shape on this data (type "
        f"{access.SECOND_MODEL}REF); or the model's random twin: the same architecture with random weights. Each is ablated with the "
        "values of its own statistics.",
    )
    ref = ref or names[0]  # where the box was emptied
    one = _side(view.model, view.data_ref, view)
    if ref == RANDOM_TWIN and not allowed.shared:
        return one, None
    if ref.startswith(access.SECOND_MODEL):
        other = shared_model(ref.removeprefix(access.SECOND_MODEL).strip())
        check_alike(view.model, other)
        return one, _side(other, view.data_ref, view)
    return one, _side(view.model, ref, view)


def _is_alike(ref: str, info: ModelInfo) -> bool:
    """Whether a model is known to be another one of the same kind and shape."""
    known = known_model_info(ref)
    return known is not None and ref != info.ref and (known.modality, known.shape) == (info.modality, info.shape)


def _side(model: LoadedModel, ref: str, view: View) -> Side:
    """A model and a data set, with their own statistics where the method needs some."""
    data = shared_data(model, ref, view.predictions, "evaluation")
    if not METHODS[view.method].needs_statistics:
        return Side(model, data, None)
    if model is view.model and ref == view.data_ref:
        return Side(model, data, view.statistics)
    entry = find_shared_statistics(model, ref)
    if entry is None:
        what = f"{model.ref} as Model" if model is not view.model else f"{ref} as Data"
        raise StatisticsError(
            f"There are no statistics of {model.ref} on {ref} yet: choose {what} in the sidebar once, and compute them there."
        )
    return Side(model, data, shared_statistics(model, entry))


def _show(found: ComparisonResult) -> None:
    metric = run_choice.choose_measure(found.metrics, "What is compared.")
    sentence = comparison_sentence(found, metric)
    st.markdown(sentence_markdown(sentence))
    one, other = found.names
    map_column, scatter_column = st.columns(2, gap="large")
    with map_column:
        st.markdown(f"**Every head: {as_markdown(other)} minus {as_markdown(one)}**")
        draw_once(comparison_chart(found, "map", metric, dark=dark_page()), alt=f"Map of the differences. {sentence}")
        layers, heads = map_size(found)
        st.caption(
            f"{effect_maps.significant_words(layers * heads)} Red: the larger change is on the second. Square-root colour scale."
        )
    with scatter_column:
        st.markdown(f"**{as_markdown(other)} against {as_markdown(one)}**")
        draw_once(
            comparison_chart(found, "scatter", metric, dark=dark_page()),
            alt=f"Each head's change on {one} against {other}. {sentence}",
        )
        st.caption(
            "One point per head with both 95% intervals; on the dashed line both change equally. Diamonds differ."
        )
    st.caption(as_markdown(comparison_sentences(found)[1]))
    with st.expander("Table of all heads"):
        st.dataframe(differing_frame(found), hide_index=True, width="stretch", row_height=28, placeholder="–")
    shared = found.sides[0]["data" if found.paired else "model"]["ref"]
    keep_popover(found, "pages/head_map.py", f"{one} and {other}, {shared}, by {found.method}")
