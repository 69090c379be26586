"""The first picture waits for no large library, and shows the same as with the model loaded."""

import subprocess
import sys

from ablation_core import bundled, load_model
from ablation_core.activations.files import find_statistics, load_statistics
from tests.conftest import ROOT

_FIRST_VISIT = """
import sys
from streamlit.testing.v1 import AppTest

from ablation_core.ui import shared

shared.load_in_background = lambda ref, **_: print("background", ref)
page = AppTest.from_file("app.py", default_timeout=120).run()
assert not page.exception and not page.error
print("charts", len(page.get("vega_lite_chart")))
print("imported", [name for name in ("torch", "transformers", "timm") if name in sys.modules])
"""


def test_the_first_page_is_drawn_without_torch_or_a_model() -> None:
    done = subprocess.run([sys.executable, "-c", _FIRST_VISIT], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[:3] == ["background opt-mini", "charts 3", "imported []"], done.stdout


def test_a_known_model_finds_the_statistics_that_the_loaded_one_finds() -> None:
    for name, data in (("opt-mini", "python-docs"), ("vit-mini", "fashion-mnist")):
        info, model = bundled.CARDS[name], load_model(name)
        known, loaded = find_statistics(info, data), find_statistics(model, data)
        assert known is not None and known.path == loaded.path
        assert load_statistics(known.path, info).digest == load_statistics(loaded.path, model).digest
