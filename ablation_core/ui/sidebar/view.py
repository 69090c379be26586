"""What is chosen in the sidebar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

from ablation_core.activations.statistics import Statistics
from ablation_core.errors import as_markdown
from ablation_core.models.info import ModelInfo
from ablation_core.selection import Selection
from ablation_core.ui.shared import is_loaded, shared_model

if TYPE_CHECKING:
    from ablation_core.models.loaded import LoadedModel


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
        return loaded(self.info.ref)


def loaded(ref: str) -> LoadedModel:
    if is_loaded(ref):
        return shared_model(ref)
    with st.spinner(f"Loading and checking {as_markdown(ref)} …", show_time=True):
        return shared_model(ref)
