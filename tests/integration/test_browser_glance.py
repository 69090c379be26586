"""The first page in a real browser, on a small screen: what lies above the fold, a clicked head, no warnings."""

import re
from collections.abc import Iterator

import pytest

from benchmarks.browser import CHROMIUM, SETTLED, UNDRAWN, chromium
from tests.conftest import PATIENCE

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
WIDTH, HEIGHT = 1280, 720
VERDICT, FIGURES, PROMPT, MAP = (f".st-key-slot-{name}" for name in ("verdict", "figures", "prompt", "map"))
CHARTS = "document.querySelectorAll('[data-testid=stVegaLiteChart]').length"


@pytest.fixture(scope="module")
def visit(address: str) -> Iterator[tuple]:
    """The page once all its answers are there, and what the browser's console said."""
    said: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: said.append(message.text) if message.type in ("warning", "error") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{address}/?model=opt-mini")
        page.wait_for_selector(f'{PROMPT} :text("Without head")')
        page.wait_for_selector(f"{FIGURES} .mark-symbol path")
        page.wait_for_selector(SETTLED)
        page.wait_for_timeout(1000)
        yield page, said


def test_the_answer_lies_above_the_fold(visit: tuple) -> None:
    page, _ = visit
    for part in (VERDICT, f"{FIGURES} [data-testid=stVegaLiteChart] >> nth=0", f"{PROMPT} :text('Without head')"):
        box = page.locator(part).first.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= HEIGHT, part
    assert re.search(r"Head \d\.\d (matters|hardly matters)", page.inner_text(VERDICT))
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTH


def test_a_clicked_head_changes_figures_and_address_and_the_map_stays(visit: tuple) -> None:
    page, _ = visit
    before = page.inner_text(VERDICT), page.inner_text(PROMPT)
    page.eval_on_selector(f"{MAP} svg.marks", "map => { map.dataset.drawn = 'once' }")
    top = page.locator(PROMPT).bounding_box()["y"]
    page.locator(f"{MAP} .mark-rect.role-mark path").nth(30).click(force=True)
    page.wait_for_function(
        "([part, text]) => document.querySelector(part).innerText !== text && /Without head/.test(document.body.innerText)",
        arg=[VERDICT, before[0]],
    )
    page.wait_for_selector(SETTLED)
    head = re.search(r"[Hh]ead (\d\.\d)", page.inner_text(VERDICT))[1]
    page.wait_for_function(f"() => location.search.includes('select={head}')")
    assert f"Without head {head}" in page.inner_text(PROMPT) != before[1]
    assert page.eval_on_selector(f"{MAP} svg.marks", "map => map.dataset.drawn") == "once", "the map is drawn once"
    assert page.locator(PROMPT).bounding_box()["y"] == pytest.approx(top, abs=1), "nothing below moves"


def test_the_console_says_nothing(visit: tuple) -> None:
    assert visit[1] == []


@pytest.mark.parametrize("model", ["opt-mini", "roberta-mini", "vit-mini"])
def test_every_chart_of_every_card_is_drawn(visit: tuple, address: str, model: str) -> None:
    """Whatever the tokens of the prompt are: Vega refuses a picture without a word."""
    page, said = visit
    page.goto(f"{address}/?model={model}")
    page.wait_for_selector(f'{PROMPT} :text("Without")')
    cards = page.locator("[data-testid=stExpander]")
    cards.nth(3).wait_for()
    before = page.locator("[data-testid=stVegaLiteChart]").count()
    for card in cards.all():
        card.locator("summary").click()
        page.wait_for_selector(SETTLED)
    page.wait_for_function(f"before => {CHARTS} > before && {UNDRAWN} === 0", arg=before + 1)
    assert page.locator("[data-testid=stException]").count() == 0 and said == []
