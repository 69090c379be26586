"""Charts whose structure is made once, so that a click costs only their data.

Altair builds and checks a chart in some 100 ms. Most charts are drawn again and again with other numbers: the first
time, the chart is built and its data replaced by names; from then on only the frames are exchanged. Knows no Streamlit.
"""

from collections.abc import Callable, Hashable, Iterator
from threading import Lock
from typing import Any

import altair as alt
import pandas as pd
from cachetools import LRUCache, cached

KEPT = 256


def chart_spec(
    make: Callable[..., alt.TopLevelMixin], *frames: pd.DataFrame | None, variant: Hashable = (), **fixed: Hashable
) -> dict[str, Any]:
    """The Vega-Lite specification of `make(*frames, **fixed)`, its frames as named datasets `data0`, `data1`, ….

    Args:
        make: may read of its frames, besides handing them to Altair, only what `variant` and the columns decide.
        frames: None stands for one that is left out.
        variant: what else the chart's structure depends on, such as the number of rows of a grid.
    """
    spec = _structure(make, frames, variant, tuple(sorted(fixed.items())))
    datasets = {f"data{place}": frame for place, frame in enumerate(frames) if frame is not None}
    return spec | {"datasets": spec.get("datasets", {}) | datasets}


def whole_spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The Vega-Lite specification of a chart that is made for one drawing, its frames as named datasets likewise."""
    frames: dict[int, pd.DataFrame] = {}
    _find_data(chart, frames)
    names = {key: f"data{place}" for place, key in enumerate(frames)}
    _name_data(chart, names)
    spec = chart.to_dict(validate=False)
    return spec | {"datasets": spec.get("datasets", {}) | {names[key]: frame for key, frame in frames.items()}}


def _key(make: Callable, frames: tuple[pd.DataFrame | None, ...], variant: Hashable, fixed: tuple) -> Hashable:
    """What a structure depends on: of the frames only their columns."""
    columns = tuple(None if frame is None else tuple(frame.columns) for frame in frames)
    return make, columns, variant, fixed


@cached(LRUCache(KEPT), key=_key, lock=Lock())
def _structure(
    make: Callable, frames: tuple[pd.DataFrame | None, ...], variant: Hashable, fixed: tuple
) -> dict[str, Any]:
    chart = make(*frames, **dict(fixed))
    names = {id(frame): f"data{place}" for place, frame in enumerate(frames) if frame is not None}
    _name_data(chart, names)
    return chart.to_dict(validate=False)  # checking takes as long as building; a test checks every chart


def _name_data(chart: Any, names: dict[int, str]) -> None:
    """Put a name in place of each of these frames wherever a part of the chart draws from it."""
    if id(getattr(chart, "data", None)) in names:
        chart.data = alt.NamedData(name=names[id(chart.data)])
    for part in _parts(chart):
        _name_data(part, names)


def _find_data(chart: Any, found: dict[int, pd.DataFrame]) -> None:
    """Every frame that a part of the chart draws from, by its identity."""
    if isinstance(data := getattr(chart, "data", None), pd.DataFrame):
        found[id(data)] = data
    for part in _parts(chart):
        _find_data(part, found)


def _parts(chart: Any) -> Iterator[Any]:
    for kind in ("layer", "hconcat", "vconcat", "concat"):
        parts = getattr(chart, kind, alt.Undefined)
        yield from parts if isinstance(parts, list) else ()
