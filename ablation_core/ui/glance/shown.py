"""What the first page shows: one head of the view, with what is known of it; and slots that keep their height."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import streamlit as st

from ablation_core.report.numbers import sample_unit
from ablation_core.selection import Head, Selection
from ablation_core.ui.glance.known import KnownEffects, known_effects
from ablation_core.ui.sidebar.view import View

# What fills a slot later must not move what stands below it: the least heights in pixels, by the slot's name.
SLOTS = {"map": 372, "verdict": 78, "figures": 264, "prompt": 210}
STYLE = f"""<style>
{"".join(f".st-key-slot-{name} {{min-height: {height}px}}" for name, height in SLOTS.items())}
.stMainBlockContainer h2 {{font-size: 1.45rem; padding: 0}}
[class*="st-key-slot-"], [class*="st-key-slot-"] [data-testid="stVerticalBlock"] {{gap: 0.35rem}}
[class*="st-key-slot-"] [data-testid="stMarkdownContainer"] {{margin-bottom: 0}}
[class*="st-key-slot-"] p {{margin-bottom: 0}}
[class*="st-key-slot-"] [data-testid="stElementToolbar"] {{top: 0}}
.st-key-unseen {{display: none}}
.st-key-new-here a, .st-key-deeper a {{text-decoration: underline; text-underline-offset: 3px}}
</style>"""

_FETCHED = "chart code fetched"


@contextmanager
def fetching_chart_code() -> Iterator[None]:
    """For imports: the browser fetches meanwhile what it draws charts by, half a second that would follow the first chart.

    An unseen chart of nothing makes it do so; it goes again before anything else comes.
    """
    place = st.empty()
    if not st.session_state.get(_FETCHED):
        with place.container(key="unseen"):
            st.vega_lite_chart({"mark": "point"})  # for data, also for none, Streamlit would import pandas first
        st.session_state[_FETCHED] = True
    yield
    place.empty()


@dataclass(frozen=True, eq=False)
class Glance:
    """The head on show.

    Attributes:
        view: the sidebar's choices, with this head as its selection.
        neuron: the neuron of it that is selected by itself; None where the whole head is, or several are.
        known: the saved sweep that has its effects, if there is one.
        picked: False where nothing is selected; the head is then only where the map begins.
    """

    view: View
    head: Head
    neuron: int | None
    known: KnownEffects | None
    picked: bool = True

    @property
    def unit(self) -> str:
        """What is counted."""
        return sample_unit(self.view.info.modality)

    @property
    def name(self) -> str:
        return f"{self.head[0]}.{self.head[1]}"


def glance_at(view: View) -> Glance:
    """The first head of the view's selection."""
    known, shape = known_effects(view.info, view.data_ref), view.info.shape
    chosen = view.selection.chosen or Selection.of_heads([(0, 0)], shape).chosen
    head, neurons = chosen[0]
    neuron = neurons[0] if len(neurons) == 1 < shape.size(head[0]) else None
    alone = replace(view, selection=Selection.of_heads([head], shape))
    return Glance(alone, head, neuron, known, picked=bool(view.selection.chosen))


@contextmanager
def slot(name: str) -> Iterator[None]:
    """A part of the page that is never lower than `SLOTS` says."""
    with st.container(key=f"slot-{name}"):
        yield
