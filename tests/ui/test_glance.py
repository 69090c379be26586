"""The first page: one head at a glance, on all three bundled models; its cards; and the addresses that once opened Distributions."""

import re

import pytest
from streamlit.testing.v1 import AppTest

from ablation_core.ui.shared import shared_model
from tests.conftest import ROOT
from tests.ui.test_pages import charts, pages_html, text_of

MODELS = ("opt-mini", "roberta-mini", "vit-mini")


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """The page waits for no model: it is loaded behind it, and here before."""
    for name in MODELS:
        shared_model(name)


def opened(**params: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for name, value in params.items():
        at.query_params[name] = value
    return at.run()


def heading(at: AppTest) -> str:
    return at.header[0].value


@pytest.mark.parametrize("model", MODELS)
def test_a_head_is_answered_without_a_click(model: str) -> None:
    at = opened(model=model, predictions="500")
    assert not at.exception and not at.error
    assert heading(at) == "Take an attention head out of a model and see what it gets wrong"
    assert len(charts(at)) == 3, "the map, the methods, a neuron's values"
    assert re.search(r"\*\*(Head \d\.\d|The model does better without head \d\.\d)", text_of(at)), "a verdict"
    assert "With all heads" in pages_html(at) and "Without head" in pages_html(at) and "The first guess" in text_of(at)
    links = {link.proto.label for link in at.get("page_link")}
    assert "New here? Three minutes" in links and any(label.startswith("Ablate") for label in links)


@pytest.mark.parametrize("name", ["neuron", "list", "odd", "shown", "density", "log", "beside"])
def test_an_address_that_once_opened_distributions_opens_it(name: str) -> None:
    value = {"neuron": "3.1:7", "list": "whole model", "odd": "skew", "shown": "by position", "density": "normal"}
    at = opened(model="opt-mini", **{name: value.get(name, "true")})
    assert not at.exception and heading(at) == "What values a head's neurons take"
    if name == "neuron":
        assert "Neuron 3.1:7" in text_of(at)
