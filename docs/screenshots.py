"""Take the README's pictures of a running app: `python docs/screenshots.py http://localhost:8501`.

The server must run already (`streamlit run app.py`); Chromium must be installed.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

READY = '[data-testid="stApp"][data-test-script-state="notRunning"]'
VIEWS = {
    "distributions": ("/?model=opt-mini", "light", 1120),
    "ablate": ("/ablate?model=opt-mini&select=1.3", "light", 1000),
    "head-map": ("/head_map?model=opt-mini", "light", 1300),
    "pruning-curves": ("/pruning_curves?model=opt-mini", "light", 1100),
    "distributions-dark": ("/?model=vit-mini", "dark", 1120),
    "ablate-dark": ("/ablate?model=roberta-mini&select=2.*", "dark", 1000),
    "learn": ("/learn", "light", 1400),
    "models-and-data": ("/models_and_data", "light", 1400),
}


def main(address: str, folder: Path = Path(__file__).parent) -> None:
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        for name, (path, scheme, height) in VIEWS.items():
            page = browser.new_page(viewport={"width": 1400, "height": height}, color_scheme=scheme)
            page.goto(address + path)
            page.wait_for_selector(READY, timeout=120_000)
            page.wait_for_timeout(1500)
            page.screenshot(path=folder / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://localhost:8501")
