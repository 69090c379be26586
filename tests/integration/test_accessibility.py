"""axe-core over every page in a real browser, light and dark: no serious violation in what the project draws."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.browser import CHROMIUM, SETTLED, chromium
from tests.conftest import PAGES

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.skipif(importlib.util.find_spec("axe_playwright_python") is None, reason="axe-core is not installed"),
]
# Streamlit's own, not ours to mend: (rule, a part of the element).
STREAMLITS = (("scrollable-region-focusable", "stSidebarContent"),)


@pytest.fixture(scope="module", params=["light", "dark"])
def page(request: pytest.FixtureRequest) -> Iterator:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 1000}, color_scheme=request.param)
        page.set_default_timeout(180_000)
        yield page


@pytest.mark.parametrize("name", ["", *(Path(page).stem for page in PAGES[1:])])
def test_no_serious_violation(page, address: str, name: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.goto(f"{address}/{name}")
    page.wait_for_selector(SETTLED)
    page.wait_for_timeout(2500)
    page.wait_for_selector(SETTLED)
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}).response["violations"]
    ours = [
        f"{violation['id']} ({violation['impact']}): {node['html'][:200]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
        if not any(violation["id"] == rule and part in node["html"] for rule, part in STREAMLITS)
    ]
    assert not ours, "\n".join(ours)
