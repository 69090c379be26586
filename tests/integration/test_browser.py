"""One journey in a real browser: the server starts, a head is clicked, the changed number is read."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.browser import CHROMIUM, SETTLED, chromium
from tests.conftest import PATIENCE

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def page(address: str) -> Iterator:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE)
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        yield page
    ours = (address, address.replace("http", "ws"), "data:", "blob:")
    outside = [url for url in requests if not url.startswith(ours)]
    assert not outside, f"the app asked the outside for {outside}"


def settled(page) -> str:
    """The page's text once its answer is whole: what can be taken along stands below that."""
    page.wait_for_selector(SETTLED)
    page.wait_for_function("() => document.body.innerText.includes('Copy as Python')")
    page.wait_for_timeout(1000)
    page.wait_for_selector(SETTLED)
    return page.inner_text('[data-testid="stMain"]')


def test_a_first_visit_shows_something_and_leads_on(page, address: str) -> None:
    page.goto(address)
    page.wait_for_selector('[data-testid="stVegaLiteChart"] .mark-rect path')
    page.wait_for_function("() => /Head \\d\\.\\d/.test(document.body.innerText)")  # a head is shown without a click
    page.get_by_role("link", name="Ablate", exact=True).click()
    page.wait_for_function("() => document.body.innerText.includes('random sets of as many neurons')")
    assert "2,000 predictions" in settled(page)
    assert page.locator('[data-testid="stException"]').count() == 0


def test_a_clicked_head_is_ablated_and_the_numbers_change(page, address: str) -> None:
    page.goto(f"{address}/ablate?model=opt-mini&predictions=1000&select=0.0")
    before = settled(page)
    assert "(0.0)" in before
    cells = page.locator('[data-testid="stVegaLiteChart"]').first.locator(".mark-rect path")
    cells.nth(20).click(force=True)  # any cell but the selected one
    page.wait_for_function("() => !document.body.innerText.includes('(0.0)')")
    after = settled(page)
    assert "64 neurons" in after
    losses = [re.search(r"Loss, nats\s+([\d.]+) → ([\d.]+)", text) for text in (before, after)]
    assert losses[0][1] == losses[1][1], "the baseline stays"
    assert losses[0][2] != losses[1][2], "the ablated loss changes"
    assert "select=" in page.url, "the address carries the selection"


def test_the_link_opens_the_same_view_afresh(page, address: str) -> None:
    link, before = page.url, settled(page)
    page.goto("about:blank")
    page.goto(link)
    after = settled(page)
    figures = [re.findall(r"[\d.]+ → [\d.]+", text) for text in (before, after)]
    assert figures[0] and figures[0] == figures[1]


def test_a_clicked_neuron_is_shown_large(page, address: str) -> None:
    page.goto(f"{address}/distributions?model=opt-mini&neuron=2.3")
    before = re.search(r"Neuron (2\.3:\d+)", settled(page))[1]
    cells = page.locator('[data-testid="stVegaLiteChart"]').nth(1).locator(".mark-rect path")
    cells.nth(9).click(force=True)
    page.wait_for_function(f"() => !document.body.innerText.includes('Neuron {before}')")
    assert re.search(r"Neuron 2\.3:\d+", settled(page))


def test_the_address_carries_a_neuron_clicked_within_the_fragment(page, address: str) -> None:
    page.goto(f"{address}/distributions?model=opt-mini&neuron=1.3")
    settled(page)
    before = page.locator('[data-testid="stMain"] h3').first.inner_text()
    page.locator('[data-testid="stVegaLiteChart"]').nth(1).locator(".mark-rect path").nth(11).click(force=True)
    page.wait_for_function(f"() => !document.body.innerText.includes({before!r})")
    assert "Neuron 1.3:" in settled(page)
    assert re.search(r"neuron=1\.3(:|%3A)\d+", page.url), "the address carries the neuron"


def test_an_own_prompt_is_answered(page, address: str) -> None:
    page.goto(f"{address}/ablate?model=opt-mini&predictions=500&select=2.*")
    assert "Continuation" in settled(page)
    field = page.locator("textarea").first
    field.fill("An <b>exception</b> is raised when")
    field.press("Control+Enter")
    page.wait_for_function("() => document.body.innerText.includes('<b>exception')")
    text = settled(page)
    assert "What comes next" in text and "<b>exception</b>" in text, "typed markup is shown as text"
    assert page.locator('[data-testid="stException"]').count() == 0


def test_an_own_image_is_classified_and_a_broken_one_refused(page, address: str, tmp_path: Path) -> None:
    from PIL import Image

    page.goto(f"{address}/ablate?model=vit-mini&predictions=500&select=2.*")
    text = settled(page)
    assert page.locator("figure img").count() == 12 and "✓" in text
    picture, broken = tmp_path / "own.png", tmp_path / "broken.png"
    Image.linear_gradient("L").save(picture)
    broken.write_bytes(picture.read_bytes()[:300])
    page.locator('input[type="file"]').set_input_files(picture)
    page.wait_for_function("() => document.body.innerText.includes('of the probability mass moves')")
    page.locator('input[type="file"]').set_input_files(broken)
    page.wait_for_function("() => document.body.innerText.includes('cannot be read as an image')")
    assert page.locator('[data-testid="stException"]').count() == 0
