"""In a real browser, on the Ablate page: keyboard, token details, copying, undo, the projector view, printing."""

from collections.abc import Iterator

import pytest

from benchmarks.browser import CHROMIUM, SETTLED, chromium
from tests.conftest import PATIENCE
from tests.report.test_readable_charts import contrast

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
VIEW = "model=opt-mini&predictions=500&select=1.3&method=mean"
PAGE = {"light": (255, 255, 255), "dark": (0x11, 0x16, 0x1C)}
FILLS = """() => [...document.querySelectorAll('.stVegaLiteChart .role-axis text, .stVegaLiteChart .role-legend text')]
  .filter(one => one.textContent).map(one => getComputedStyle(one).fill.match(/[0-9.]+/g).map(Number))"""


@pytest.fixture(scope="module", params=["light", "dark"])
def look(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def page(address: str, look: str) -> Iterator:
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=look)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"{address}/ablate?{VIEW}")
        settled(page)
        yield page


def settled(page, words: str = "Copy as Python") -> None:
    page.wait_for_function("words => document.body.innerText.includes(words)", arg=words)
    page.wait_for_selector(SETTLED)
    page.wait_for_timeout(800)
    page.wait_for_selector(SETTLED)


def test_axes_and_legends_can_be_read(page, look: str) -> None:
    fills = page.evaluate(FILLS)
    assert len(fills) > 20
    assert min(contrast(tuple(fill[:3]), PAGE[look]) for fill in fills) >= 4.5


def test_a_token_shows_its_details_by_keyboard_and_by_click(page) -> None:
    tokens = page.locator("[data-details]")
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    details = page.locator(".token-details")
    assert details.inner_text() == tokens.nth(1).get_attribute("data-details") and "before:" in details.inner_text()
    page.keyboard.press("Escape")
    assert not details.is_visible()
    tokens.nth(5).click()
    assert details.inner_text() == tokens.nth(5).get_attribute("data-details")
    page.keyboard.press("Escape")


def test_link_script_and_command_are_copied_at_once(page) -> None:
    for label, part in (
        ("Copy link", "select=1.3"),
        ("Copy as Python", "load_model("),
        ("Copy as command", "--select"),
    ):
        page.get_by_role("button", name=label).click()
        page.get_by_role("button", name="Copied").wait_for()
        assert part in page.evaluate("navigator.clipboard.readText()")
        page.get_by_role("button", name=label).wait_for()


def test_a_head_is_picked_by_keyboard_and_the_selection_is_undone(page) -> None:
    cell = page.locator("[class*='st-key-map-'] .mark-rect path[tabindex='0']")
    cell.focus()
    before = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") != before
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.body.innerText.includes('64 neurons')")
    settled(page)
    page.get_by_role("button", name="Undo").click()
    page.wait_for_function("() => document.querySelector('.st-key-select input').value === '1.3'")
    page.wait_for_function("() => document.body.innerText.includes('32 neurons')")


def test_the_projector_view_and_print_have_no_sidebar(page) -> None:
    page.emulate_media(media="print")
    assert not page.get_by_test_id("stSidebar").is_visible()
    page.emulate_media(media="screen")
    size = "parseFloat(getComputedStyle(document.querySelector('[data-testid=stMain] h2')).fontSize)"
    before = page.evaluate(size)
    settled(page)  # what an earlier click still draws would move the switch away under this one
    page.get_by_test_id("stSidebar").get_by_text("Projector view").click()
    page.get_by_role("button", name="Leave the projector view").wait_for()
    assert not page.get_by_test_id("stSidebar").is_visible() and page.evaluate(size) > 1.2 * before
    page.get_by_role("button", name="Leave the projector view").click()
    page.get_by_test_id("stSidebar").wait_for()
