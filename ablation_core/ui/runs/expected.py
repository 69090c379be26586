"""How long a run will take, said before it is begun: from one timed pass over the data's first batch.

A unit of a run resumes from the kept clean pass at its first ablated block (`engine.clean_passes`), so that the blocks
behind that one are what it costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

from ablation_core.selection import ModelShape
from ablation_core.server.lru import LRU
from ablation_core.server.turns import fair_lock

if TYPE_CHECKING:  # the first picture waits for no large library
    from ablation_core.data.dataset import Data
    from ablation_core.models.loaded import LoadedModel


@st.cache_resource
def _timed() -> LRU:
    """Seconds that a batch takes, by what is done with it, model and data."""
    return LRU(64)


def seconds_of(model: LoadedModel, data: Data, passes: float) -> float | None:
    """Seconds of so many whole passes over the data; None while another computation runs the model, which would be timed
    with it."""
    from ablation_core.engine.forward import record

    one = _seconds_per_batch("pass", model, data, lambda: record(model, data.rows(data.numbers(0))))
    return None if one is None else one * passes * len(data)


def seconds_of_statistics(model: LoadedModel, data: Data, passes: int = 1) -> float | None:
    """Seconds that the statistics over this data take, likewise; with the bins' whole range they take two passes."""
    from ablation_core.activations.collect import StatisticsRun

    one = _seconds_per_batch("statistics", model, data, lambda: StatisticsRun(model, data).step())
    return None if one is None else one * passes * len(data)


def _seconds_per_batch(what: str, model: LoadedModel, data: Data, run: Callable[[], object]) -> float | None:
    known, key = _timed(), f"{what} {model.fingerprint} {data.fingerprint} {data.batch_size}"
    one = known.get(key)
    if one is None:
        lock = fair_lock(model)
        if not lock.acquire(blocking=False):
            return None
        try:
            for _ in range(2):  # the first prepares what others reuse
                began = time.perf_counter()
                run()
                one = time.perf_counter() - began
        finally:
            lock.release()
        known.keep(key, one)
    return one


def say(seconds: float | None) -> None:
    """The forecast beside the button that starts it; nothing where there is none."""
    if seconds is not None:
        st.caption(f"Takes {about(seconds)}.")


def passes_of_heads(shape: ModelShape, heads: float) -> float:
    """Whole passes that this many heads cost, each ablated by itself by one method, on average over the model's heads."""
    shares = [count * passes_of_head(shape, layer) for layer, count in enumerate(shape.heads)]
    return heads * sum(shares) / max(sum(shape.heads), 1)


def passes_of_head(shape: ModelShape, layer: int) -> float:
    """The share of a whole pass that ablating a head of this layer costs: the blocks from there on, and the scoring."""
    return (shape.layers + 1 - layer) / (shape.layers + 1)


def about(seconds: float) -> str:
    """The duration in words, rounded to what such a forecast is worth.

    Example:
        >>> about(4), about(43), about(170), about(9000)
        ('a few seconds', 'about 40 seconds', 'about 3 minutes', 'about 2.5 hours')
    """
    if seconds < 10:
        return "a few seconds"
    if seconds < 55:
        return f"about {max(round(seconds, -1), 10):.0f} seconds"
    if seconds < 90 * 60:
        minutes = max(round(seconds / 60), 1)
        return f"about {minutes} minute{'s' * (minutes != 1)}"
    return f"about {seconds / 3600:.2g} hours"
