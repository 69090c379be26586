"""The sidebar has a page's controls and no others; what is out of sight keeps its value."""

import pytest
from streamlit.testing.v1 import AppTest

from tests.conftest import ROOT
from tests.ui.test_pages import box, opened

USED = {
    "distributions": {"model", "text", "bins", "select"},
    "head_map": {"model", "text", "bins", "predictions", "method"},
    "pruning_curves": {"model", "text", "bins", "predictions"},
    "tasks": {"model", "text", "bins", "method"},
    "ablate": {"model", "text", "bins", "predictions", "method", "select"},
}
SIDEBAR = set.union(*USED.values())


def controls(at: AppTest) -> set[str]:
    kinds = (at.sidebar.selectbox, at.sidebar.select_slider, at.sidebar.text_input)
    return SIDEBAR & {one.key.split()[0] for kind in kinds for one in kind if one.key}


@pytest.mark.parametrize("page", [name for name in USED if name != "ablate"])
def test_a_page_has_the_controls_that_it_uses(page: str) -> None:
    at = opened(page, model="opt-mini", predictions="500", prompts="100", method="zero", select="2.1")
    assert not at.exception and controls(at) == USED[page]


def test_what_a_page_does_not_show_is_as_it_was() -> None:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=300)
    at.switch_page("pages/distributions.py")
    for name, value in {"model": "opt-mini", "predictions": "500", "method": "mean", "select": "2.1"}.items():
        at.query_params[name] = value
    at.run()
    at.switch_page("pages/ablate.py").run()
    assert not at.exception and controls(at) == USED["ablate"]
    assert at.select_slider(key="predictions").value == 500 and at.selectbox(key="method").value == "mean"
    assert box(at, "select").value == "2.1"
