"""The settings of all pages: they stay on the way to pages that do not have them, and a link can bring them.

Each is bound to the address under its name, by a widget or by `boxes`; a test holds that none is missing here. On a
change of page Streamlit drops from the address what is bound to the page that is left, and forgets it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import streamlit as st

from ablation_core.engine.metrics import METRICS
from ablation_core.ui import boxes
from ablation_core.ui.widgets import BROUGHT

Setting = str | int | float | bool | list[str]


def _word(values: list[str]) -> str:
    return values[-1]


def _words(values: list[str]) -> list[str]:
    return values


def _number(values: list[str]) -> int:
    if not (values[-1].isascii() and values[-1].isdigit() and len(values[-1]) < 10):
        raise ValueError("not a number that a slider has")
    return int(values[-1])


def _decimal(values: list[str]) -> float:
    return float(values[-1])


def _switch(values: list[str]) -> bool:
    return {"true": True, "false": False}[values[-1]]


def _metric(values: list[str]) -> str:
    """By its label, as its pills have it, or by its name, as addresses of earlier versions have it."""
    return {word: one.name for one in METRICS.values() for word in (one.name, one.label)}[values[-1]]


# How each is read from an address, as its widget has it.
SETTINGS: dict[str, Callable[[list[str]], Setting]] = {
    "model": _word, "text": _word, "images": _word, "labelled": _word, "predictions": _number, "method": _word,
    "bins": _number, "projector": _switch,
    "metric": _metric, "every": _switch,  # Ablate
    "methods": _words, "adaptive": _switch, "one": _word, "other": _word, "compare": _switch, "with": _word, "colour": _word,
    # Head map
    "seeds": _word, "step": _number, "whole": _switch,  # Pruning curves
    "task": _word, "prompts": _number, "positions": _word, "task_metric": _metric,  # Tasks
    "results": _words,  # Saved results
    "list": _word, "shown": _word, "density": _word, "log": _switch, "beside": _word, "odd": _word,  # Distributions
    "prompt": _word, "gaps": _word, "own text": _word,  # typed prompts
    "score": _word, "over": _word, "written": _word,  # the cards of the first page
    "kind": _word, "learn-bins": _number, "toy-place": _decimal, "toy-lean": _decimal, "toy-second": _decimal,
    "toy-distance": _decimal,  # Learn
}  # fmt: skip
# What a choice was called in addresses that people have kept: (parameter, old value) → new value.
_OLD_VALUES = {("odd", "unsure peak"): "uncertain peak", ("odd", "second mode"): "second hump"} | {
    (box, name): name for box in ("metric", "task_metric") for name in METRICS
}
_KEPT, _PAGE = "settings", "page that keeps its settings"


def keep_settings(page: str) -> None:
    """At the start of a page: settings are as they were on any page before, or as an address or a link says.

    Args:
        page: its title.
    """
    state, address = st.session_state, st.query_params
    kept = state.setdefault(_KEPT, {})
    if state.get(_PAGE) != page:
        state[_PAGE] = page
        boxes.follow_address()
    for name in boxes.NAMES:
        if BROUGHT + name in address:
            boxes.put(name, address.pop(BROUGHT + name))
    for (name, old), new in _OLD_VALUES.items():
        if address.get(name) == old and name not in state:
            state[name] = new
    for name, read in SETTINGS.items():
        if brought := address.get_all(BROUGHT + name):
            del address[BROUGHT + name]
            with suppress(ValueError, KeyError):  # nonsense
                state[name] = read(brought)
        if name in state:
            kept[name] = state[name]
        elif name in kept and name not in address:
            state[name] = kept[name]
