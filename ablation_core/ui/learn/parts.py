"""Parts of the Learn page: its diagram, its small tables, and statistics without a model."""

import pandas as pd
import streamlit as st

from ablation_core.activations import files
from ablation_core.activations.made_from import FINE_BINS
from ablation_core.activations.neuron_summary import NeuronSummary
from ablation_core.activations.statistics import Statistics
from ablation_core.errors import StatisticsError
from ablation_core.report.charts.looks import mark_of
from ablation_core.server import inventory
from ablation_core.ui.learn.lessons import DATA_OF
from ablation_core.ui.learn.toy import Toy

_BOX = "border:1.5px solid currentColor;border-radius:10px;padding:0.7rem 1rem;text-align:center"
_NEURON = "display:inline-flex;width:2.1rem;height:2.1rem;border-radius:50%;align-items:center;justify-content:center;"
_FULL, _EMPTY = (
    f'<span style="{_NEURON}border:{line}">{letter}</span>'
    for line, letter in (("1.5px solid currentColor", ""), (f"3px dashed {mark_of('peak').color}", "<b>?</b>"))
)
_DIAGRAM = f"""
<div style="display:flex;flex-wrap:wrap;align-items:center;gap:0.8rem;margin:0.5rem 0">
  <div style="{_BOX}">an attention<br>head</div> <span aria-hidden="true">→</span>
  <div style="text-align:center"><div style="display:flex;gap:0.5rem;justify-content:center" role="img"
    aria-label="five neurons; the third is empty">{_FULL}{_FULL}{_EMPTY}{_FULL}{_FULL}</div>
    its neurons, one number each</div> <span aria-hidden="true">→</span>
  <div style="{_BOX}">output<br>projection</div> <span aria-hidden="true">→</span>
  <div style="{_BOX}">the next<br>layers</div>
</div>"""


def diagram() -> None:
    """What is ablated, and where: a head, its neurons, the output projection."""
    st.html(_DIAGRAM)


@st.cache_resource(max_entries=3, show_spinner=False)
def _statistics(path: str, changed: int) -> Statistics:
    return files.load_statistics(path)


def bundled_statistics(model: str) -> Statistics:
    """The statistics of a bundled model that come with the project; the model itself is not loaded.

    Raises:
        StatisticsError: they have been deleted.
    """
    entries, _ = files.list_statistics()
    fitting = [
        entry
        for entry in entries
        if (entry.provenance["model"], entry.provenance["data"]) == (model, DATA_OF[model])
        and entry.provenance["bins"] == FINE_BINS
    ]
    for entry in sorted(fitting, key=inventory.is_bundled, reverse=True)[:1]:
        return _statistics(str(entry.path), entry.path.stat().st_mtime_ns)
    raise StatisticsError(
        f"The statistics of {model} are no longer in the cache folder; 'python -m ablation_core stats {model}' computes "
        f"them again."
    )


def candidates(toy: Toy) -> pd.DataFrame:
    """The made-up neuron's candidates: value, distance from the peak, and how often it is near."""
    rows = [
        (kind, f"{value:.2f}", f"{(value - toy.peak) / toy.std:+.2f}", f"{toy.share_near(value):.1%}")
        for kind, value in toy.reading().values.items()
    ]
    columns = ["candidate", "value (activation units)", "distance from the peak (std)", "share of activations near it"]
    return pd.DataFrame(rows, columns=columns).set_index("candidate")


def values(reading: NeuronSummary) -> pd.DataFrame:
    """A real neuron's values and their distance from the mean."""
    rows = [
        (kind, f"{value:.4g}", f"{reading.distance_in_std(kind, 'mean'):+.2f}")
        for kind, value in reading.values.items()
    ]
    columns = ["candidate", "value (activation units)", "distance from the mean (std)"]
    return pd.DataFrame(rows, columns=columns).set_index("candidate")
