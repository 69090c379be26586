"""In a real browser: a click redraws and moves no map, no click is lost, and Back leads back. Everything waits for what
it needs to see, however long a busy machine takes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ablation_core.ui.page import PAGES
from benchmarks.browser import CHROMIUM, SETTLED, chromium
from tests.conftest import PATIENCE

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
VIEW = "model=opt-mini&predictions=500&select=1.3&method=mean"
ADDRESSES = {label: "" if path == "app.py" else Path(path).stem for path, label in PAGES.items()}
MAPS = {"ablate": "map", "head_map": "effects", "tasks": "task-heads", "distributions": "heads"}
# On the page, however far that is scrolled.
PLACE = """map => {
  const box = map.getBoundingClientRect(), main = document.querySelector('[data-testid=stMain]');
  return [box.x, box.y + main.scrollTop, box.width, box.height];
}"""


@pytest.fixture(scope="module")
def page(address: str) -> Iterator:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.set_default_timeout(PATIENCE)
        yield page


def calm(page) -> None:
    """Wait until nothing has run for a while."""
    page.evaluate("window.calmSince = performance.now()")
    page.wait_for_function(
        """settled => {
          if (!document.querySelector(settled)) window.calmSince = performance.now();
          return performance.now() - window.calmSince > 1500;
        }""",
        arg=SETTLED,
    )


def opened(page, address: str, name: str) -> Any:
    """A page with its map drawn; returns the map's cells."""
    page.goto(f"{address}/{name}?{VIEW}&head=1.3&neuron=1.3")
    svg = f"[class*='st-key-{MAPS[name]}-'] svg.marks"
    page.wait_for_selector(f"{svg} .mark-rect path")
    calm(page)
    page.eval_on_selector(svg, "map => { map.dataset.drawn = 'once' }")
    return page.locator(svg).locator(".mark-rect.role-mark").first.locator("path")


def named(cell) -> str:
    """The head of a map's cell."""
    layer, head = (part.split(": ")[1] for part in cell.get_attribute("aria-label").split("; ")[:2])
    return f"{layer}.{head}"


def there(page, box: str, text: str) -> None:
    page.wait_for_function(
        "([box, text]) => document.querySelector(`.st-key-${box} input`)?.value === text", arg=[box, text]
    )


@pytest.mark.parametrize(
    ("name", "box"), [("ablate", "select"), ("head_map", "head"), ("tasks", "head"), ("distributions", "neuron")]
)
def test_quick_clicks_are_all_taken_and_the_map_stays_as_it_is(page, address: str, name: str, box: str) -> None:
    cells = opened(page, address, name)
    drawing = page.locator(f"[class*='st-key-{MAPS[name]}-'] svg.marks")
    before, text = drawing.evaluate(PLACE), page.inner_text('[data-testid="stMain"]')
    clicked = []
    for number in (0, 7, 21, 35, 14):
        cells.nth(number).click()
        clicked.append(named(cells.nth(number)))
    wanted = " ".join(sorted([*clicked, "1.3"])) if name == "ablate" else clicked[-1]
    there(page, box, wanted)
    page.wait_for_function("text => document.querySelector('[data-testid=stMain]').innerText !== text", arg=text)
    calm(page)
    there(page, box, wanted)
    assert drawing.get_attribute("data-drawn") == "once", "the map is the one that was clicked"
    assert drawing.evaluate(PLACE) == pytest.approx(before, abs=1), "where it was"
    outlines = drawing.locator(".mark-rect.role-mark").nth(1).locator("path")
    assert {named(one) for one in outlines.all()} == set(wanted.split())


def test_a_head_can_be_typed_between_clicks(page, address: str) -> None:
    cells = opened(page, address, "ablate")
    cells.nth(7).click()
    there(page, "select", f"{named(cells.nth(7))} 1.3")
    calm(page)
    typed = page.locator(".st-key-select input").first
    typed.fill("2.2")
    cells.nth(0).click()  # which leaves the box, so that both arrive at once
    there(page, "select", f"{named(cells.nth(0))} 2.2")
    calm(page)
    there(page, "select", f"{named(cells.nth(0))} 2.2")
    cells.nth(0).click()
    there(page, "select", "2.2")


AGREE = """([label, selected]) => {
  const title = document.querySelector('[data-testid=stMain] h2')?.innerText ?? '';
  const box = document.querySelector('.st-key-select input');
  return document.title.startsWith(label) && (!selected || (box?.value === selected
    && new URLSearchParams(location.search).get('select') === selected
    && (label !== 'Ablate' || title.endsWith(selected))));
}"""


def test_one_entry_per_page_and_back_and_forward_show_what_it_was(page, address: str) -> None:
    def shown(label: str) -> None:
        """Wait until title, address, sidebar and, on Ablate, the figures' heading say the same."""
        page.wait_for_function(AGREE, arg=[label, chosen[label]])

    page.goto(f"{address}/ablate?{VIEW}")
    chosen = {"Ablate": "1.3"}
    shown("Ablate")
    calm(page)
    start = page.evaluate("history.length")
    for number, label in enumerate((label for label in ADDRESSES if label != "Ablate"), start=1):
        page.get_by_test_id("stSidebar").get_by_role("link", name=label, exact=True).click()
        chosen[label] = ""
        shown(label)
        calm(page)
        box = page.locator(".st-key-select input")
        if box.count():  # a setting makes no entry of its own
            chosen[label] = f"{number % 6}.0"
            box.first.fill(chosen[label])
            box.first.press("Enter")
            shown(label)
            calm(page)
        assert page.evaluate("history.length") == start + number, f"one entry for {label}"
    order = list(chosen)
    for label in reversed(order[:-1]):
        page.go_back()
        shown(label)
        calm(page)
    for label in order[1:]:
        page.go_forward()
        shown(label)
        calm(page)
    assert page.evaluate("history.length") == start + len(order) - 1
    assert page.locator('[data-testid="stException"]').count() == 0
