"""The app in a real browser: a server of its own on a free port, and Chromium. Shared by benchmarks, pictures and tests."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SETTLED = '[data-testid="stApp"][data-test-script-state="notRunning"]'  # the page's script has ended
# How many charts have no picture.
UNDRAWN = "[...document.querySelectorAll('[data-testid=stVegaLiteChart]')].filter(chart => !chart.querySelector('svg, canvas')).length"
# For a page's start: `window.shift` is then its cumulative layout shift as Chromium counts it, `window.shifted` what moved.
# Without what moves sideways only: the sidebar, when it first appears, pushes the page to the right, as it does anywhere.
SHIFT = """
window.shift = 0; window.shifted = [];
new PerformanceObserver(list => {
  for (const one of list.getEntries()) {
    const sideways = one.sources.every(source => source.previousRect.y === source.currentRect.y);
    if (one.hadRecentInput || sideways) continue;
    window.shift += one.value;
    window.shifted.push([one.value, ...one.sources.map(source =>
      [(source.node?.parentElement ?? source.node)?.innerText?.slice(0, 40), source.previousRect.y, source.currentRect.y])]);
  }
}).observe({type: 'layout-shift', buffered: true});
"""
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
_PATIENCE = 90.0  # seconds until a server must answer


@contextmanager
def served(environment: dict[str, str] | None = None, page: Path = ROOT / "app.py") -> Iterator[str]:
    """A fresh `streamlit run app.py`; yields its address the moment it is up.

    Args:
        environment: variables beside those of this process.
        page: another page to serve.

    Raises:
        TimeoutError: it does not answer.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(page), "--server.headless", "true"]
    command += ["--server.address", "127.0.0.1", "--server.port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ | (environment or {}), stdout=subprocess.DEVNULL)
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + _PATIENCE
    try:
        while not _answers(address):
            if time.monotonic() > until or server.poll() is not None:
                raise TimeoutError("the server does not answer")
            time.sleep(0.01)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:  # a busy machine: nothing of it is wanted any more
            server.kill()
            server.wait()


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def chromium() -> "Iterator[Browser]":
    """A headless Chromium that asks the outside for nothing."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()
