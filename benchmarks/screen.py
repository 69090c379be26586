"""What a person at the screen gets, against what was promised: `python -m benchmarks.screen` writes `screen.json`.

    python -m benchmarks.screen             # 5 fresh servers of the app and 5 of a bare page, in turn; then one for the rest
    python -m benchmarks.screen --runs 2

`first picture` goes from opening the address of a server that has just answered its health check to the first chart's
marks; the bare page is a Streamlit page with one chart and nothing else, and both are measured in turn on fresh servers,
so that what changes on the machine meets both alike. `first page whole`: the verdict, the figures and the answered prompt.
`head clicked`: from the click on the first page's map to the verdict and the figures of that head. `layout shift` is
Chromium's, without what moves sideways only. `history`: entries that a visit of all pages makes, and whether Back shows
the selection that each page had. `console`: warnings and errors on all pages. Run it on a quiet machine, with
`PYTHONDONTWRITEBYTECODE` unset: else each fresh server compiles the package again.
"""

import argparse
import json
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Page

from ablation_core.ui.page import PAGES
from benchmarks.browser import SETTLED, SHIFT, chromium, served
from benchmarks.measure import write

MODELS = ("opt-mini", "roberta-mini", "vit-mini")
_BARE = """import altair, pandas, streamlit
frame = pandas.DataFrame({"layer": [one % 6 for one in range(36)], "head": [one // 6 for one in range(36)], "value": range(36)})
chart = altair.Chart(frame).mark_rect().encode(x="layer:O", y="head:O", color="value:Q")
streamlit.altair_chart(chart)
"""
_DRAWN = "() => document.querySelector('[data-testid=stVegaLiteChart] .mark-rect path')"
_WHOLE = """() => /matters|does better|changes/.test(document.querySelector('.st-key-slot-verdict')?.innerText ?? '')
  && document.querySelector('.st-key-slot-figures .mark-symbol path')
  && /Without head/.test(document.querySelector('.st-key-slot-prompt')?.innerText ?? '')"""
_VERDICT = "document.querySelector('.st-key-slot-verdict').innerText"
_BOX = "document.querySelector('.st-key-select input')"
WANTED = {
    "first picture, of a bare page's": 1.5,
    "first page whole, ms": 3000,
    "head clicked, ms": 500,
    "layout shift": 0.1,
    "entries per page": 1,
    "pages where Back shows another selection": 0,
    "warnings": 0,
}


def timed(page: Page, act: Callable[[], object], sign: str) -> float:
    """Milliseconds from the action until `sign`, a JavaScript condition, holds."""
    started = time.perf_counter()
    act()
    page.wait_for_function(sign, polling=10)
    return 1000 * (time.perf_counter() - started)


def new_page(browser: Browser) -> Page:
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.add_init_script(SHIFT)
    context.set_default_timeout(300_000)
    return context.new_page()


def rest(page: Page, milliseconds: int = 2000) -> None:
    page.wait_for_selector(SETTLED)
    page.wait_for_timeout(milliseconds)
    page.wait_for_selector(SETTLED)


def first_pictures(browser: Browser, runs: int) -> dict:
    """The app and a bare page, each on a fresh server, in turn; and when the app's first page is whole."""
    found: dict[str, list[float]] = {"app": [], "bare": [], "whole": []}
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(_BARE, encoding="utf-8")
        for _ in range(runs):
            with served(page=bare) as address:
                page = new_page(browser)
                found["bare"].append(timed(page, partial(page.goto, address, wait_until="commit"), _DRAWN))
                page.context.close()
            with served() as address:
                page = new_page(browser)
                drawn = timed(page, partial(page.goto, address, wait_until="commit"), _DRAWN)
                found["app"].append(drawn)
                found["whole"].append(drawn + timed(page, lambda: None, _WHOLE))
                page.context.close()
    median = {name: round(statistics.median(values)) for name, values in found.items()}
    return {
        "first picture, ms": median["app"],
        "first picture of a bare page, ms": median["bare"],
        "first picture, of a bare page's": round(median["app"] / median["bare"], 2),
        "first page whole, ms": median["whole"],
        "each, ms": {name: [round(one) for one in values] for name, values in found.items()},
    }


def clicked_heads(page: Page, address: str, runs: int) -> dict:
    """By model: the median time from a click on the first page's map to that head's verdict."""
    found = {}
    for model in MODELS:
        page.goto(f"{address}/?model={model}")
        page.wait_for_function(_WHOLE)
        rest(page, 4000)
        times = []
        for run in range(runs):
            before = page.evaluate(_VERDICT)
            cells = page.locator(".st-key-slot-map .mark-rect.role-mark").first.locator("path")
            cell = cells.nth((4 + 5 * run) % cells.count())  # another one each time
            layer, head = re.findall(r": (\d+)", cell.get_attribute("aria-label") or "")[:2]
            sign = f"() => {_VERDICT} !== {json.dumps(before)} && {_VERDICT}.includes('ead {layer}.{head}')"
            times.append(timed(page, partial(cell.click, force=True), sign))
            rest(page)
        found[model] = round(statistics.median(times))
    return {"head clicked, ms": max(found.values()), "by model, ms": found}


def shifts(page: Page, address: str) -> dict:
    """The layout shift of every page, opened by its address."""
    found = {}
    for path, label in PAGES.items():
        page.goto(f"{address}/{'' if path == 'app.py' else Path(path).stem}?model=opt-mini&predictions=500")
        rest(page, 4000)
        found[label] = round(page.evaluate("window.shift"), 3)
    return {"layout shift": max(found.values()), "by page": found}


def history(page: Page, address: str) -> dict:
    """A visit of all pages with another selection on each that has one, and Back through all of them."""
    page.goto(f"{address}/?model=opt-mini&predictions=500&select=1.3")
    rest(page)
    labels, chosen, start = list(PAGES.values()), ["1.3"], page.evaluate("history.length")
    for number, label in enumerate(labels[1:], start=1):
        page.get_by_test_id("stSidebar").get_by_role("link", name=label, exact=True).click()
        page.wait_for_function("label => document.title.startsWith(label)", arg=label)
        rest(page)
        chosen.append("")
        if page.evaluate(f"!!{_BOX}"):
            chosen[-1] = f"{number % 6}.0"
            page.locator(".st-key-select input").first.fill(chosen[-1])
            page.locator(".st-key-select input").first.press("Enter")
            rest(page)
    entries = page.evaluate("history.length") - start
    wrong = []
    for label, selected in list(zip(labels, chosen, strict=True))[-2::-1]:
        page.go_back()
        page.wait_for_function("label => document.title.startsWith(label)", arg=label)
        rest(page)
        if selected and (page.evaluate(f"{_BOX}?.value") != selected or f"select={selected}" not in page.url):
            wrong.append(label)
    return {
        "entries per page": entries / (len(labels) - 1),
        "pages where Back shows another selection": len(wrong),
        "which": wrong,
    }


def is_ours(message: ConsoleMessage) -> bool:
    """A warning or an error, but for Streamlit's own search for its server below the address of a page."""
    return message.type in ("warning", "error") and "/_stcore/" not in message.location["url"]


def measure(runs: int) -> dict:
    with chromium() as browser:
        found = {"first": first_pictures(browser, runs)}
        with served() as address:
            page, said = new_page(browser), set[str]()
            page.on("console", lambda message: said.add(message.text) if is_ours(message) else None)
            page.on("pageerror", lambda error: said.add(str(error)))
            found["clicks"] = clicked_heads(page, address, runs)
            found["shift"] = shifts(page, address)
            found["history"] = history(page, address)
            found["console"] = {"warnings": len(said), "which": sorted(said)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    load = os.getloadavg()[0]
    found = measure(parser.parse_args().runs)
    figures = {name: value for part in found.values() for name, value in part.items() if name in WANTED}
    missed = [name for name, wanted in WANTED.items() if figures[name] > wanted]
    machine = {"cores": os.cpu_count(), "load before": round(load, 1), "python": platform.python_version()}
    write("screen", {"wanted": WANTED, "missed": missed, **found, "machine": machine})


if __name__ == "__main__":
    main()
