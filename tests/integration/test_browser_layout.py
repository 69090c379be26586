"""In a real browser: nothing vanishes or jumps, no click is lost, the map is not drawn again, and Back leads back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ablation_core.ui.page import PAGES
from benchmarks.browser import CHROMIUM, SETTLED, chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
VIEW = "model=opt-mini&predictions=500&select=1.3&method=mean"
# Layout shift as Chromium counts it; what the page says, and where its map is, at every frame.
WATCH = """
window.shift = 0; window.frames_seen = [];
new PerformanceObserver(list => {
  for (const one of list.getEntries()) {
    // Sideways: the sidebar, when it first appears, pushes the page to the right; that is Streamlit's own frame.
    const sideways = one.sources.every(source => source.previousRect.y === source.currentRect.y);
    if (!one.hadRecentInput && !sideways) window.shift += one.value;
  }
}).observe({type: 'layout-shift', buffered: true});
window.watchFrames = (figures, map) => {
  window.frames_seen = [];
  const look = () => {
    const text = document.querySelector(figures)?.innerText ?? '', svg = document.querySelector(map);
    window.frames_seen.push([/→|With /.test(text), Math.round(svg?.getBoundingClientRect().top ?? -1), svg?.dataset.first ?? '']);
    window.watching = requestAnimationFrame(look);
  };
  document.querySelector(map).dataset.first = 'yes';
  look();
};
"""


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser, request: pytest.FixtureRequest) -> Iterator:
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.add_init_script(WATCH)
    page = context.new_page()
    page.set_default_timeout(90_000)
    yield page
    context.close()


def settled(page, words: str = "Copy as Python") -> None:
    page.wait_for_function("words => document.body.innerText.includes(words)", arg=words)
    page.wait_for_selector(SETTLED)
    page.wait_for_timeout(800)
    page.wait_for_selector(SETTLED)


def cell(page, key: str, number: int):
    return page.locator(f".st-key-{key} .mark-rect path").nth(number)


@pytest.mark.parametrize(
    ("name", "key", "figures"),
    [("ablate", "map", ".st-key-figures"), ("head_map", "effects", '[data-testid="stMain"]')],
)
def test_a_click_on_the_map_leaves_figures_and_map_where_they_are(
    page, address: str, name: str, key: str, figures: str
) -> None:
    page.goto(f"{address}/{name}?{VIEW}")
    settled(page)
    page.evaluate("([figures, map]) => watchFrames(figures, map)", [figures, f".st-key-{key} svg"])
    before = page.inner_text('[data-testid="stMain"]')
    cell(page, key, 14).click()
    page.wait_for_function("before => document.querySelector('[data-testid=stMain]').innerText !== before", arg=before)
    settled(page)
    seen = page.evaluate("window.frames_seen")
    assert len(seen) > 20
    assert all(stands for stands, _, _ in seen), "the figures are there at every moment"
    assert len({top for _, top, _ in seen}) == 1, "the map stays in its place"
    assert {first for _, _, first in seen} == {"yes"}, "the map is the one that was clicked, not drawn again"


def test_no_click_is_lost_and_a_second_one_takes_a_head_off(page, address: str) -> None:
    page.goto(f"{address}/ablate?{VIEW}")
    settled(page)
    for number in (0, 7, 21, 35):
        cell(page, "map", number).click()
    page.wait_for_function("() => document.body.innerText.includes('160 neurons')")
    settled(page)
    cell(page, "map", 7).click()
    page.wait_for_function("() => document.body.innerText.includes('128 neurons')")
    cell(page, "map", 7).click()
    page.wait_for_function("() => document.body.innerText.includes('160 neurons')")


def test_the_last_click_wins_on_the_head_map(page, address: str) -> None:
    page.goto(f"{address}/head_map?{VIEW}")
    settled(page)
    labels = []
    for number in (3, 20, 9, 20):
        cell(page, "effects", number).click()
        labels.append(cell(page, "effects", number).get_attribute("aria-label"))
    settled(page)
    layer, head = (part.split(": ")[1] for part in labels[-1].split("; ")[:2])
    assert page.get_by_role("textbox", name="Head", exact=True).input_value() == f"{layer}.{head}"


@pytest.mark.parametrize("name", ["", *(Path(path).stem for path in PAGES if path != "app.py")])
def test_little_moves_while_a_page_is_drawn(page, address: str, name: str) -> None:
    page.goto(f"{address}/{name}?{VIEW}")
    settled(page, "Ablation Explorer")
    page.wait_for_timeout(3000)
    assert page.evaluate("window.shift") <= 0.1


AGREE = """selected => {
  const title = document.querySelector('[data-testid=stMain] h2')?.innerText ?? '';
  return document.querySelector('.st-key-select input')?.value === selected
    && new URLSearchParams(location.search).get('select') === selected
    && (!title.startsWith('What changes') || title.endsWith(selected));
}"""


def shown(page, label: str, selected: str) -> None:
    """Wait until the page stands, and address, sidebar and, on Ablate, the heading say the same."""
    page.wait_for_function("label => document.title.startsWith(label)", arg=label)
    settled(page, "Ablation Explorer")
    if selected:
        page.wait_for_function(AGREE, arg=selected)


def test_one_entry_per_page_and_back_and_forward_show_what_it_was(page, address: str) -> None:
    page.goto(f"{address}/ablate?{VIEW}")
    shown(page, "Ablate", "1.3")
    start, chosen = page.evaluate("history.length"), {"Ablate": "1.3"}
    for number, label in enumerate((label for label in PAGES.values() if label != "Ablate"), start=1):
        page.get_by_test_id("stSidebar").get_by_role("link", name=label, exact=True).click()
        box = page.locator(".st-key-select input")
        shown(page, label, "")
        chosen[label] = f"{number}.0" if box.count() else ""
        if chosen[label]:  # a setting makes no entry of its own
            shown(page, label, [one for one in chosen.values() if one][-2])  # that of the page before
            box.fill(chosen[label])
            box.press("Enter")
            shown(page, label, chosen[label])
        assert page.evaluate("history.length") == start + number, f"one entry for {label}"
    order = list(chosen)
    for label in reversed(order[:-1]):
        page.go_back()
        shown(page, label, chosen[label])
    for label in order[1:]:
        page.go_forward()
        shown(page, label, chosen[label])
    assert page.evaluate("history.length") == start + number
    assert page.locator('[data-testid="stException"]').count() == 0
