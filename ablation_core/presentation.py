"""How a result comes to its own table, chart and picture in a notebook: `to_frame()`, `chart()`, `_repr_html_()`.

    result = ablate(model, data, "3.2", ["mean", "peak"], statistics="python-docs")
    result.to_frame()     # pandas, one row per method
    result.chart("top1")  # Altair, the change with its intervals
    result                # in a notebook: the sentence, the chart, the table

Results lie in rooms that know nothing of frames and charts; what draws them lies in `report`, which knows all results.
So a result inherits `Presented`, and `Presented` looks up its row of `report/present.py` by the name of its class when it
is asked to show itself. This is the only import that runs against the order of the rooms, and it waits until then: a run
that prints JSON needs neither pandas nor Altair.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

_REGISTRY = "ablation_core.report.present"


class Presented:
    """A result with a row in `report.present.PRESENTATIONS`."""

    def to_frame(self, table: str | None = None) -> pd.DataFrame:
        """One of the result's tables, with the figures of its document; floats as they are, NaN where there is none.

        >>> from ablation_core import NoiseFloor
        >>> NoiseFloor(-0.001, 0.002, 8).to_frame().to_dict("records")
        [{'method': None, 'metric': 'loss', 'low': -0.001, 'high': 0.002, 'sets': 8}]

        Args:
            table: its name, such as `"predictions"`; by default the result's main table.

        Raises:
            ReportError: it has no table of this name.
        """
        frame: pd.DataFrame = import_module(_REGISTRY).frame_of(self, table)
        return frame

    def chart(self, *choice: Any, **settings: Any) -> alt.Chart | alt.LayerChart:
        """The result drawn by Altair, to show, to change, or to save with `chart.save("figure.svg")`; needs no network.

        Args:
            choice, settings: what is drawn where a result has several pictures: mostly `metric` and `method`; see the
                functions of `report/present.py`.

        Raises:
            ReportError: the result has no such metric or method.
        """
        chart: alt.Chart | alt.LayerChart = import_module(_REGISTRY).chart_of(self, *choice, **settings)
        return chart

    def _repr_html_(self) -> str:
        """What a notebook shows: the sentences, the chart as SVG, the table. It asks for nothing and runs nothing."""
        text: str = import_module(_REGISTRY).html_of(self)
        return text
