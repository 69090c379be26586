"""How long a person waits in the browser: `python benchmarks/latency.py http://localhost:8501 [MODEL]`.

Times the journeys below in headless Chromium against a running server (`streamlit run app.py`), from the action until
the page has settled, five times each, and prints the medians in milliseconds as JSON.
"""

import json
import shutil
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial

from playwright.sync_api import Page, sync_playwright

SETTLED = '[data-testid="stApp"][data-test-script-state="notRunning"]'
RUNS = 5


def timed(page: Page, act: Callable[[], object], sign: str, settle: bool = True) -> float:
    """Milliseconds from the action until `sign`, a JavaScript condition, holds and the script has ended."""
    started = time.perf_counter()
    act()
    page.wait_for_function(sign, polling=10, timeout=120_000)
    if settle:
        page.wait_for_selector(SETTLED, timeout=120_000)
    return 1000 * (time.perf_counter() - started)


def text_changes(page: Page, selector: str) -> str:
    before = json.dumps(page.inner_text(selector))
    return f"() => document.querySelector({json.dumps(selector)}).innerText !== {before}"


def rest(page: Page, milliseconds: int = 1000) -> None:
    page.wait_for_selector(SETTLED, timeout=120_000)
    page.wait_for_timeout(milliseconds)


def distributions(page: Page, address: str, model: str, run: int, figures: dict[str, list[float]]) -> None:
    """First picture, a clicked neuron, the log switch, a moved bins slider, a clicked head."""
    main_text = '[data-testid="stMain"]'
    drawn = "() => document.querySelectorAll('[data-testid=stVegaLiteChart] svg, canvas').length >= 3"
    figures["first picture"].append(timed(page, lambda: page.goto(f"{address}/?model={model}"), drawn, settle=False))
    rest(page)
    cell = page.locator('[data-testid="stVegaLiteChart"]').nth(1).locator(".mark-rect path").nth(5 + run)
    changed = text_changes(page, main_text)
    figures["neuron shown"].append(timed(page, partial(cell.click, force=True), changed))
    rest(page)
    log = page.get_by_role("switch", name="Log").or_(page.get_by_role("checkbox", name="Log")).first
    changed = "() => document.body.innerText.includes('log scale')"
    figures["log switched"].append(timed(page, partial(log.click, force=True), changed))
    rest(page)
    slider = page.get_by_role("group", name="Bins for the peak").locator("input")
    slider.focus()
    changed = text_changes(page, main_text)
    figures["bins moved"].append(timed(page, lambda: page.keyboard.press("ArrowLeft"), changed))
    rest(page)
    cell = page.locator('[data-testid="stVegaLiteChart"]').first.locator(".mark-rect path").nth(12 + run)
    changed = text_changes(page, main_text)
    figures["head shown"].append(timed(page, partial(cell.click, force=True), changed))


def ablate(page: Page, address: str, model: str, run: int, figures: dict[str, list[float]]) -> None:
    """A clicked head ablated by all methods, and a typed prompt answered."""
    page.goto(f"{address}/ablate?model={model}&select=0.{run % 6}&predictions=1000")
    rest(page, 1500)
    cells = page.locator('[data-testid="stVegaLiteChart"]').first.locator(".mark-rect path")
    changed = (
        f"() => !document.body.innerText.includes('(0.{run % 6})') && document.body.innerText.includes('For scale')"
    )
    click = partial(cells.nth(12 + run).click, force=True)
    figures["head ablated by all methods, with noise floor"].append(timed(page, click, changed, settle=False))
    rest(page)
    if (field := page.locator("textarea")).count() == 0:
        return
    field.first.fill(f"What comes after line {run} of the statement")
    answer = '[data-testid="stMain"]'
    changed = text_changes(page, answer)
    figures["own prompt answered and continued"].append(
        timed(page, lambda: field.first.press("Control+Enter"), changed)
    )


def main(address: str, model: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(120_000)
        figures: dict[str, list[float]] = defaultdict(list)
        for journey in (distributions, ablate):
            for run in range(RUNS):
                journey(page, address, model, run, figures)
        browser.close()
    print(json.dumps({name: round(statistics.median(values)) for name, values in figures.items()}, indent=2))


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), sys.argv[2] if len(sys.argv) > 2 else "opt-mini")
