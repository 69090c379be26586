"""Take a picture of every page for docs/images: `python -m docs.screenshots [ADDRESS]`.

Starts the app unless the address of a running one is given; Chromium must be installed.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from benchmarks.browser import SETTLED, chromium, served

VIEWS = {  # name → address and height
    "one-head": ("/?model=opt-mini", 900),
    "distributions": ("/distributions?model=opt-mini", 1120),
    "ablate": ("/ablate?model=opt-mini&select=1.3", 1000),
    "head-map": ("/head_map?model=opt-mini", 1500),
    "pruning-curves": ("/pruning_curves?model=opt-mini", 1200),
    "tasks": ("/tasks?model=opt-mini&method=zero", 1500),
    "models-and-data": ("/models_and_data", 1300),
    "learn": ("/learn", 1400),
}
WIDTH = 1280


def settle(page: Page) -> None:
    """Wait until the page is drawn and no run is in progress on it."""
    for _ in range(2):
        page.wait_for_selector(SETTLED, timeout=120_000)
        page.wait_for_function("() => !document.body.innerText.includes('The model is being loaded')", timeout=120_000)
        page.wait_for_function(
            "() => ![...document.querySelectorAll('button')].some(button => button.innerText.trim() === 'Stop')",
            timeout=120_000,
        )
        page.wait_for_timeout(1500)


def take(address: str, folder: Path = Path(__file__).parent / "images") -> None:
    with chromium() as browser:
        for name, (path, height) in VIEWS.items():
            page = browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme="light")
            page.goto(address + path)
            settle(page)
            Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(folder / f"{name}.png", optimize=True)
            page.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        take(sys.argv[1].rstrip("/"))
    else:
        with served() as own_address:
            take(own_address)
