"""The choice of data, and its statistics."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import streamlit as st

from ablation_core.activations.statistics import Statistics
from ablation_core.data.references import DEFAULT_DATA, IMAGE_NAMES, TEXT_NAMES, is_task
from ablation_core.data.uploads import list_uploads, named, reference
from ablation_core.errors import DataError
from ablation_core.models.info import Modality, ModelInfo
from ablation_core.server import access
from ablation_core.ui import statistics_job
from ablation_core.ui.boxes import last_usable
from ablation_core.ui.shared import find_shared_statistics, shared_statistics
from ablation_core.ui.sidebar.view import loaded

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator


# the box of data that goes with a kind of model, and what it lists
DATA_KINDS: dict[Modality, tuple[str, tuple[str, ...]]] = {
    "causal": ("text", TEXT_NAMES),
    "masked": ("text", TEXT_NAMES),
    "vision": ("images", IMAGE_NAMES),
    "text-classification": ("labelled", ()),
}
_RECORDS = ("csv", "jsonl", "parquet")
UPLOADED = {"text": ("text", *_RECORDS), "images": ("images",), "labelled": _RECORDS}


def choose_data(info: ModelInfo, partial_too: bool, main: DeltaGenerator) -> tuple[Statistics, str, bool]:
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


def _statistics_or_offer(info: ModelInfo, data_ref: str, partial_too: bool) -> tuple[Statistics, bool]:
    """The cached statistics; where there are none, those being computed, or a button that starts that; and whether they
    are whole.

    Args:
        partial_too: whether the page can show partial statistics.
    """
    entry = find_shared_statistics(info, data_ref)
    if entry is not None:
        return shared_statistics(info, entry), True
    counted = statistics_job.offer(info, data_ref, loaded(info.ref))
    if counted is None or not partial_too:
        st.stop()
    return counted, False


def statistics_sentence(statistics: Statistics, whole: bool, measured: bool = True) -> str:
    """What the replacement values come from, and where the ablation acts.

    Args:
        measured: whether the page measures effects on the data.
    """
    made, skipped = statistics.provenance, statistics.provenance["positions_left_out"]
    one = "sequence" if made["seq_len"] is not None else "image"
    without = {0: "all positions", 1: f"without each {one}'s first position"}.get(
        skipped, f"without each {one}'s first {skipped} positions"
    )
    return (
        f"Statistics{'' if whole else ' so far'}: {made['tokens']:,} positions of {named(made['data'])} (statistics part), "
        f"{without}."
        + (" Effects are measured on the evaluation part, with the ablation at every position." if measured else "")
    )
