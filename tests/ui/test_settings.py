"""Settings: every widget that is bound to the address is one, and what a link or an address says is read."""

import ast

from streamlit.testing.v1 import AppTest

from ablation_core.ui.boxes import NAMES
from ablation_core.ui.settings import SETTINGS
from tests.conftest import ROOT
from tests.ui.test_pages import box

BINDERS = {"single_choice", "choose_metric"}  # of `widgets`, which bind under the key that they are given
# where the key is a variable → the names that it stands for
VARIABLE = {
    "data.py": {"text", "images", "labelled"},  # the kinds of data
    "own_input.py": {"prompt", "gaps", "own text"},
    "prompt.py": {"prompt", "gaps", "own text"},
    "learn.py": {"toy-place", "toy-lean", "toy-second", "toy-distance"},
    "cards.py": set(),  # which cards are open is the first page's own
    "widgets.py": set(),  # the binders themselves
    "controls.py": set(),
    "scores.py": {"colour"},
}


def bound_names() -> set[str]:
    """The keys of all calls that bind a widget to the address, read from the source."""
    found: set[str] = set()
    for path in (ROOT / "app.py", *(ROOT / "pages").glob("*.py"), *(ROOT / "ablation_core" / "ui").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            given = {one.arg: one.value for one in call.keywords}
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            if "bind" not in given and name not in BINDERS:
                continue
            key = given["key"] if "key" in given else call.args[3]  # of choose_metric
            if isinstance(key, ast.Constant):
                found.add(key.value)
            else:
                found |= VARIABLE[path.name]
    return found


def test_every_widget_that_is_bound_to_the_address_is_a_setting() -> None:
    assert bound_names() == set(SETTINGS), "in `settings.SETTINGS` and nowhere else, or the other way round"
    assert not set(NAMES) & set(SETTINGS), "boxes keep theirs themselves"


def test_a_metric_is_read_by_its_label_and_by_its_old_name() -> None:
    for said in ("top-1", "top1"):
        assert SETTINGS["metric"]([said]) == "top1"


def test_settings_survive_a_page_that_has_none_of_them() -> None:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    at.switch_page("pages/learn.py")
    for name, value in {"select": "1.3 2.0", "to-head": "2.2", "to-step": "25", "to-log": "true"}.items():
        at.query_params[name] = value
    at.run()
    at.switch_page("pages/saved.py").run()
    at.switch_page("pages/distributions.py").run()
    assert not at.exception
    assert box(at, "select").value == "1.3 2.0" and at.toggle(key="log").value is True
    assert at.session_state["step"] == 25
