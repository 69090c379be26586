"""The first page waits for no large library, is whole without a model, and shows the same as with the model loaded."""

import subprocess
import sys
import threading

import pytest

from ablation_core import bundled, load_model
from ablation_core.activations.files import find_statistics, load_statistics
from ablation_core.ui import shared
from tests.conftest import ROOT
from tests.ui.test_pages import HEAVY

_FIRST_VISIT = """
import sys
from streamlit.testing.v1 import AppTest

from ablation_core.ui import shared

shared.load_in_background = lambda ref, **_: print("background", ref)
page = AppTest.from_file("app.py", default_timeout=120)
page.query_params["model"] = sys.argv[1]
page.run()
assert not page.exception and not page.error
print("charts", len(page.get("vega_lite_chart")))
print("imported", [name for name in ("torch", "transformers", "timm", "scipy.stats", "scipy.special") if name in sys.modules])
said = " ".join(one.value for one in page.markdown) + " ".join(one.value for one in page.caption)
html = " ".join(one.proto.body for one in page.get("html"))
print("verdict", "**Head " in said or "does better" in said, "answered", "Without head" in html and "The first guess" in said)
"""
_SIDEBAR = """
import sys
import ablation_core.ui.page, ablation_core.ui.glance.shown, ablation_core.ui.glance.links
print([name for name in ("altair", "pandas", "PIL", "scipy.special", "torch") if name in sys.modules])
with ablation_core.ui.glance.shown.fetching_chart_code():  # its chart is sent
    print([name for name in ("altair", "pandas") if name in sys.modules])
"""


def printed(program: str, *arguments: str) -> list[str]:
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.parametrize("model", HEAVY)
def test_the_first_page_is_whole_without_torch_or_a_model(model: str) -> None:
    lines = printed(_FIRST_VISIT, model)
    assert lines == [f"background {model}", "charts 3", "imported []", "verdict True answered True"]


def test_no_sidebar_waits_for_what_draws_charts() -> None:
    assert printed(_SIDEBAR) == ["[]", "[]"]


def test_a_model_is_loaded_once_the_page_is_drawn_or_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # other tests load nothing in the background
    begun = threading.Event()
    monkeypatch.setattr(shared, "shared_model", lambda ref: begun.set())
    monkeypatch.setattr(shared, "is_loaded", lambda ref: False)
    shared._loading_may_begin().clear()
    shared.load_in_background("a model", patience=60.0)
    assert not begun.wait(0.5)
    shared.let_loading_begin()
    assert begun.wait(5)


def test_a_known_model_finds_the_statistics_that_the_loaded_one_finds() -> None:
    for name, data in (("opt-mini", "python-docs"), ("vit-mini", "fashion-mnist")):
        info, model = bundled.CARDS[name], load_model(name)
        known, loaded = find_statistics(info, data), find_statistics(model, data)
        assert known is not None and known.path == loaded.path
        assert load_statistics(known.path, info).digest == load_statistics(loaded.path, model).digest
