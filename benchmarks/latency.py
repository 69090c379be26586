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


def timed(page: Page, act: Callable[[], object], sign: str) -> float:
    """Milliseconds from the action until `sign`, a JavaScript condition, holds and the script has ended."""
    started = time.perf_counter()
    act()
    page.wait_for_function(sign, polling=10, timeout=120_000)
    page.wait_for_selector(SETTLED, timeout=120_000)
    return 1000 * (time.perf_counter() - started)


def text_changes(page: Page, selector: str) -> str:
    before = json.dumps(page.inner_text(selector))
    return f"() => document.querySelector({json.dumps(selector)}).innerText !== {before}"


def main(address: str, model: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(30_000)
        figures: dict[str, list[float]] = defaultdict(list)
        main_text = '[data-testid="stMain"]'
        for run in range(RUNS):
            drawn = "() => document.querySelectorAll('[data-testid=stVegaLiteChart] svg, canvas').length >= 3"
            figures["first picture"].append(timed(page, lambda: page.goto(f"{address}/?model={model}"), drawn))
            page.wait_for_timeout(1000)
            cell = page.locator('[data-testid="stVegaLiteChart"]').nth(1).locator(".mark-rect path").nth(5 + run)
            changed = text_changes(page, main_text)
            figures["neuron shown"].append(timed(page, partial(cell.click, force=True), changed))
            page.wait_for_timeout(1000)
            slider = page.get_by_role("group", name="Bins for the peak").locator("input")
            slider.focus()
            changed = text_changes(page, main_text)
            figures["bins moved"].append(timed(page, lambda: page.keyboard.press("ArrowLeft"), changed))
        for run in range(RUNS):
            page.goto(f"{address}/ablate?model={model}&select=0.{run % 6}&predictions=1000")
            page.wait_for_selector(SETTLED)
            page.wait_for_timeout(1500)
            cells = page.locator('[data-testid="stVegaLiteChart"]').first.locator(".mark-rect path")
            changed = text_changes(page, main_text)
            click = partial(cells.nth(12 + run).click, force=True)
            figures["head ablated by all methods, with noise floor"].append(timed(page, click, changed))
        browser.close()
    print(json.dumps({name: round(statistics.median(values)) for name, values in figures.items()}, indent=2))


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), sys.argv[2] if len(sys.argv) > 2 else "opt-mini")
