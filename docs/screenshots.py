"""Take the pictures of every page, light and dark: `python -m docs.screenshots [ADDRESS]`.

Starts the app by itself where no address of a running one is given; Chromium must be installed. Pictures are reduced to
a palette, which makes them a third as large.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from benchmarks.browser import SETTLED, chromium, served

# name → address and height; the dark ones show another kind of model
LIGHT = {
    "distributions": ("/?model=opt-mini", 1120),
    "ablate": ("/ablate?model=opt-mini&select=1.3", 1000),
    "head-map": ("/head_map?model=opt-mini", 1500),
    "pruning-curves": ("/pruning_curves?model=opt-mini", 1200),
    "models-and-data": ("/models_and_data", 1300),
    "learn": ("/learn", 1400),
}
DARK = {
    "distributions": ("/?model=vit-mini", 1120),
    "ablate": ("/ablate?model=roberta-mini&select=2.*", 1000),
    "head-map": ("/head_map?model=vit-mini", 1500),
    "pruning-curves": ("/pruning_curves?model=vit-mini&images=fashion-mnist:full", 1200),
    "models-and-data": ("/models_and_data", 1300),
    "learn": ("/learn?kind=Two+humps", 1400),
}
COLOURS = 256
WIDTH = 1280


def settle(page: Page) -> None:
    """Wait until the page is drawn and no run is under way on it."""
    for _ in range(2):
        page.wait_for_selector(SETTLED, timeout=120_000)
        page.wait_for_function(
            "() => ![...document.querySelectorAll('button')].some(button => button.innerText.trim() === 'Stop')",
            timeout=120_000,
        )
        page.wait_for_timeout(1500)


def take(address: str, folder: Path = Path(__file__).parent) -> None:
    with chromium() as browser:
        for scheme, ending, views in (("light", "", LIGHT), ("dark", "-dark", DARK)):
            for name, (path, height) in views.items():
                page = browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme=scheme)
                page.goto(address + path)
                settle(page)
                picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
                picture.quantize(COLOURS, dither=Image.Dither.NONE).save(folder / f"{name}{ending}.png", optimize=True)
                page.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        take(sys.argv[1].rstrip("/"))
    else:
        with served() as own_address:
            take(own_address)
