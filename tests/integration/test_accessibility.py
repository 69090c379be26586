"""Every page in a real browser, light and dark, visited once: little moves while it is drawn, every chart is drawn, and axe-core
finds no serious violation in what the project draws."""

from collections.abc import Iterator

import pytest

from benchmarks.browser import CHROMIUM, SHIFT, UNDRAWN, chromium
from tests.conftest import PATIENCE
from tests.integration.test_browser_layout import ADDRESSES, VIEW, calm

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
# Streamlit's own, not ours to mend: (rule, a part of the element).
STREAMLITS = (("scrollable-region-focusable", "stSidebarContent"),)


@pytest.fixture(scope="module", params=["light", "dark"])
def page(request: pytest.FixtureRequest) -> Iterator:
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 720}, color_scheme=request.param)
        context.add_init_script(SHIFT)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        yield page


def drawn(page, address: str) -> tuple[float, str]:
    """Opens a page, until nothing has run for a while; returns its layout shift, and what moved."""
    page.goto(address)
    page.wait_for_function(
        "() => document.querySelectorAll('[data-testid=stMain] [data-testid=stElementContainer]').length > 3"
    )
    calm(page)
    return page.evaluate("window.shift"), page.evaluate("JSON.stringify(window.shifted)")


@pytest.mark.parametrize("name", ADDRESSES.values())
def test_little_moves_and_nothing_is_a_serious_violation(page, address: str, name: str) -> None:
    shifts = [drawn(page, f"{address}/{name}?{VIEW}")]
    while shifts[-1][0] > 0.1 and len(shifts) < 6:  # a machine that is busy with other tests lets more parts come late
        shifts.append(drawn(page, f"{address}/{name}?{VIEW}"))
    assert shifts[-1][0] <= 0.1, shifts

    page.wait_for_function(f"() => {UNDRAWN} === 0")  # what Vega refuses it refuses without a word

    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed").Axe()
    found = axe.run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}).response["violations"]
    ours = [
        f"{violation['id']} ({violation['impact']}): {node['html'][:200]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
        if not any(violation["id"] == rule and part in node["html"] for rule, part in STREAMLITS)
    ]
    assert not ours, "\n".join(ours)
