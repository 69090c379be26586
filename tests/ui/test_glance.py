"""The first page: one head at a glance, on all three bundled models; its cards; and the addresses that once opened Distributions."""

import re
import time
from collections.abc import Iterator

import pytest
from streamlit.testing.v1 import AppTest

from ablation_core import attention_pattern, find_statistics, load_data, load_statistics
from ablation_core.engine.clean_passes import constant_replacements
from ablation_core.selection import Selection
from ablation_core.ui.page import asks_for_distributions
from ablation_core.ui.shared import shared_ablations, shared_model
from tests.conftest import ROOT
from tests.ui.test_pages import HEAVY, box, charts, pages_html, text_of

MODELS = ("opt-mini", "roberta-mini", "vit-mini")
CARDS = ("looks", "scores", "examples", "writes")


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> Iterator[None]:
    """The page waits for no model: it is loaded behind it, and here before."""
    for name in MODELS:
        shared_model(name)
    yield
    for job in shared_ablations().running().values():
        job.stop()
        job.wait(60)


def opened(**params: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for name, value in params.items():
        at.query_params[name] = value
    return at.run()


def answered(at: AppTest) -> AppTest:
    """Looked at again, as a browser does, until there are figures and a map: a sweep that is saved has them at once."""
    for _ in range(200):
        if "is being measured" not in text_of(at) and "Click a head" in text_of(at):
            break
        time.sleep(0.2)
        at.run()
    return at


@pytest.mark.parametrize("model", HEAVY)
def test_a_head_is_answered_without_a_click_and_every_card_opens(model: str) -> None:
    at = answered(
        opened(model=model, predictions="1000", **dict.fromkeys(CARDS, "true"))
    )  # of 500 there are no intervals
    assert not at.exception and not at.error
    assert at.header[0].value == "Take an attention head out of a model and see what it gets wrong"
    said = text_of(at)
    assert re.search(r"\*\*(Head \d\.\d|The model does better)", said), "a verdict"
    if model == "opt-mini":
        assert "**Head 2.3 matters**: without it the loss rises by" in said, "one that is known to matter is first"
    assert "With all heads" in pages_html(at) and "Without head" in pages_html(at) and "The first guess" in said
    links = {link.proto.label for link in at.get("page_link")}
    assert "New here? Three minutes" in links and any(label.startswith("Ablate ") for label in links)
    assert ("looked at" in said) == (model != "vit-mini") and ("Hover over a patch" in said) == (model == "vit-mini")
    assert "positions. Click a bar" in said and "Click a point to see that head" in said
    assert ("Promotes" in pages_html(at)) == (model != "roberta-mini")
    assert ("does not reach the end unchanged" in said) == (model == "roberta-mini"), "refused in a sentence"
    drawn = (
        3 + (model != "vit-mini") + 2 + (model != "roberta-mini")
    )  # the answer's, the pattern, scatters and histogram
    assert len(charts(at)) == drawn


def test_a_head_picked_elsewhere_is_shown_and_cards_stay_shut() -> None:
    at = opened(model="opt-mini", select="4.2", method="mean")
    assert not at.exception and "**Head 4.2 hardly matters**" in text_of(at) and len(charts(at)) == 3
    box(at, "select").set_value("1.3:5 2.0").run()
    assert not at.exception and "Head 1.3" in text_of(at) and len(charts(at)) == 3
    assert "**Values of neuron 1.3:5** (of 32)" in text_of(at), "the neuron asked for"
    box(at, "select").set_value("").run()
    assert not at.exception and "**Pick a head**" in text_of(at)


def test_another_prompt_is_answered_and_a_bad_one_refused_in_its_place() -> None:
    at = opened(model="roberta-mini")
    before = pages_html(at)
    at.text_input(key="gaps").set_value("Raise a ___ if the key is not found.").run()
    assert not at.exception and not at.error and pages_html(at) != before
    at.text_input(key="gaps").set_value("no gap").run()
    assert not at.exception and "three underscores" in at.error[0].value and len(charts(at)) == 3


def test_a_pattern_is_shown_without_other_heads_over_a_window_of_the_data() -> None:
    """5.1 finds its place by what 3.3 writes (Learn, experiment 4): the change of its pattern, by a plain loop."""
    model = shared_model("opt-mini")
    at = opened(
        model="opt-mini", select="5.1", method="mean", predictions="500", looks="true", over="a window of the data"
    )
    assert not at.exception and "lies elsewhere" not in text_of(at)
    at.text_input(key="looks without").set_value("3.3").run()
    statistics = load_statistics(find_statistics(model, "python-docs").path, model)
    ids = load_data("python-docs", model, predictions=500).rows([0]).inputs["input_ids"][0]
    means = constant_replacements(Selection.parse("3.3", model.shape), statistics.mean, model)
    one, other = (attention_pattern(model, ids, "5.1", swaps) for swaps in (None, means))
    moved = sum(abs(one[row] - other[row]).sum() / 2 for row in range(len(ids))) / len(ids)
    assert not at.exception and f"Without 3.3, {moved:.0%} of this head's attention lies elsewhere" in text_of(at)
    assert moved > 0.05


def test_an_address_that_once_opened_distributions_opens_it() -> None:
    at = opened(model="opt-mini", neuron="3.1:7", density="smoothed")
    assert not at.exception and at.header[0].value == "What values a head's neurons take"
    assert "Neuron 3.1:7" in text_of(at) and len(charts(at)) == 3
    assert all(asks_for_distributions({"model", name}) for name in ("list", "odd", "shown", "log", "beside"))
    assert not asks_for_distributions({"model", "select", "method", "bins", "text", "predictions", "head", "metric"})
