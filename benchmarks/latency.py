"""How long a person waits in the browser: `python -m benchmarks.latency` starts its own servers and writes `latency.json`.

    python -m benchmarks.latency                      # the three bundled models, 5 runs of each journey
    python -m benchmarks.latency --models opt-mini --runs 3

Every time goes from the action, in headless Chromium, to the moment when what was asked for stands on the page: the
first chart's marks drawn, the neuron's or the bins' new numbers, an ablated head's new numbers by all usual methods.
`server up` is when a fresh `streamlit run app.py` first answers its health check; its caches are empty then, and so is
the browser's. Medians of the runs, with the least and the greatest, in milliseconds.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from playwright.sync_api import Browser, Page

from benchmarks.browser import SETTLED, chromium, served
from benchmarks.measure import FOLDER

WITHIN = {"first picture, fresh server": 3000, "neuron clicked": 300, "bins moved": 300, "head ablated": 1000}
_DRAWN = "() => document.querySelector('[data-testid=stVegaLiteChart] .mark-rect path, [data-testid=stVegaLiteChart] canvas')"
_WHOLE = "() => document.querySelectorAll('[data-testid=stVegaLiteChart] svg').length >= 3"
_ANSWERED = "() => document.body.innerText.includes('Copy as Python')"  # stands below a whole answer
_CHARTS = '[data-testid="stVegaLiteChart"]'

Figures = dict[str, list[float]]


@contextmanager
def new_page(browser: Browser) -> Iterator[Page]:
    """A page with an empty cache."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(120_000)
    try:
        yield context.new_page()
    finally:
        context.close()


def timed(page: Page, act: Callable[[], object], sign: str) -> float:
    """Milliseconds from the action until `sign`, a JavaScript condition, holds."""
    started = time.perf_counter()
    act()
    page.wait_for_function(sign, polling=10)
    return 1000 * (time.perf_counter() - started)


def rest(page: Page, milliseconds: int = 1000) -> None:
    page.wait_for_selector(SETTLED)
    page.wait_for_timeout(milliseconds)


def answer_changes(page: Page) -> str:
    """The sentence below the probabilities of what was typed, which stands there once they are drawn, is another one."""
    sentence = "document.body.innerText.match(/The most moved is [^%]*%/)?.[0]"
    before = json.dumps(page.evaluate(f"() => {sentence}"))
    return f"() => {sentence} && {sentence} !== {before}"


def chart_changes(page: Page, number: int) -> str:
    """The chart of this number is drawn with other marks."""
    drawing = f"document.querySelectorAll({json.dumps(_CHARTS)})[{number}]?.querySelector('svg')?.innerHTML.length"
    before = page.evaluate(f"() => {drawing}")
    return f"() => {drawing} && {drawing} !== {before}"


def open_first(browser: Browser, model: str, figures: Figures) -> None:
    """A fresh server's first visitor, from the moment it is up, and its second."""
    query = "" if model == "opt-mini" else f"?model={model}"
    with new_page(browser) as first, new_page(browser) as second, served() as address:
        for page, words in ((first, "fresh server"), (second, "warm server")):
            drawn = timed(page, partial(page.goto, f"{address}/{query}", wait_until="commit"), _DRAWN)
            figures[f"first picture, {words}"].append(drawn)
            figures[f"all pictures, {words}"].append(drawn + timed(page, lambda: None, _WHOLE))
            rest(page, 8000)  # the model is loaded in the background meanwhile


def distributions(page: Page, address: str, model: str, run: int, figures: Figures) -> None:
    """A clicked neuron, the bins slider, the log switch, a clicked head."""
    page.goto(f"{address}/distributions?model={model}&neuron=1.{run % 6}")
    page.wait_for_function(_WHOLE)
    rest(page)
    cell = page.locator(_CHARTS).nth(1).locator(".mark-rect path").nth(5 + run)
    figures["neuron clicked"].append(timed(page, partial(cell.click, force=True), chart_changes(page, 2)))
    rest(page)
    slider = page.get_by_role("group", name="Bins for the peak").locator("input")
    slider.focus()
    figures["bins moved"].append(timed(page, partial(page.keyboard.press, "ArrowLeft"), chart_changes(page, 2)))
    rest(page)
    log = page.get_by_role("switch", name="Log").or_(page.get_by_role("checkbox", name="Log")).first
    figures["log switched"].append(timed(page, partial(log.click, force=True), chart_changes(page, 2)))
    rest(page)
    cell = page.locator(_CHARTS).first.locator(".mark-rect path").nth(12 + run)
    figures["head clicked"].append(timed(page, partial(cell.click, force=True), chart_changes(page, 1)))


def ablate(page: Page, address: str, model: str, run: int, figures: Figures) -> None:
    """A clicked head ablated by all usual methods on 1,000 predictions, then its noise floor; a typed prompt answered."""
    page.goto(f"{address}/ablate?model={model}&select=0.{run % 6}&predictions=1000")
    page.wait_for_function(_ANSWERED)
    rest(page)
    cell = page.locator(_CHARTS).first.locator(".mark-rect path").nth(12 + run)
    whole = rf"/Ablating \d+ neurons \((?!0\.{run % 6}\))[^)]*\) by [^]*1,000 predictions/"
    ablated = f"() => {whole}.test(document.querySelector('[data-testid=stMain]').innerText)"
    started = time.perf_counter()
    figures["head ablated"].append(timed(page, partial(cell.click, force=True), ablated))
    page.wait_for_selector(SETTLED)
    page.wait_for_function(_ANSWERED, polling=10)
    figures["head ablated, with noise floor"].append(1000 * (time.perf_counter() - started))
    rest(page)
    if (field := page.locator("textarea")).count():
        field.first.fill(f"What comes after line {run} of the statement ___ is")
        enter = partial(field.first.press, "Control+Enter")
        figures["own prompt answered"].append(timed(page, enter, answer_changes(page)))


def measure(models: list[str], runs: int) -> dict:
    found: dict[str, Figures] = {model: defaultdict(list) for model in models}
    with chromium() as browser:
        for model in models:
            for _ in range(runs):
                open_first(browser, model, found[model])
        with served() as address:
            for model in models:
                for journey in (distributions, ablate):
                    for run in range(runs):
                        with new_page(browser) as page:
                            journey(page, address, model, run, found[model])
    return {model: {name: _summary(name, values) for name, values in one.items()} for model, one in found.items()}


def _summary(name: str, values: list[float]) -> dict:
    summary = {"median": round(statistics.median(values)), "least": round(min(values)), "most": round(max(values))}
    return summary | ({"wanted": WITHIN[name]} if name in WITHIN else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="opt-mini,roberta-mini,vit-mini")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=FOLDER / "latency.json")
    parsed = parser.parse_args()
    figures = measure(parsed.models.split(","), parsed.runs)
    document = {
        "milliseconds": figures,
        "runs": parsed.runs,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    parsed.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for model, rows in figures.items():
        print(model)
        for name, row in rows.items():
            wanted = f"  (wanted {row['wanted']:,})" if "wanted" in row else ""
            print(f"  {name:34}{row['median']:7,} ms  {row['least']:,} to {row['most']:,}{wanted}")


if __name__ == "__main__":
    main()
