"""Fixtures that several test modules share."""

import contextlib
import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

import ablation_core
from ablation_core.runtime import limit_openmp_spin
from benchmarks.browser import served

if TYPE_CHECKING:
    from ablation_core.models.loaded import LoadedModel

# Before anything large is imported, which none of the above does: pytest-xdist's controller needs no torch.
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the outside for anything
limit_openmp_spin()
if "PYTEST_XDIST_WORKER" in os.environ:  # the cores are taken by the workers
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]
PAGES = ("app.py", *sorted(f"pages/{path.name}" for path in (ROOT / "pages").glob("*.py")))  # found, not listed

# The same examples in every run, so that a red run is about the change; a deeper fuzz draws fresh ones each time.
settings.register_profile("repeatable", derandomize=True)
if "ABLATION_FUZZ" not in os.environ:
    settings.load_profile("repeatable")

# content of a text file, and a word of the sentence that it gets everywhere
UNUSABLE_TEXT = [
    (b"", "empty"),
    (b" \n\t \n", "empty"),
    (b"\x89PNG\x00\x01\x02", "binary"),
    (b"caf\xe9 " * 100, "not UTF-8"),
    (b"too short", "shorter than one window"),
]


def numbers(result: Any) -> dict:
    """A result's document without when and where it was made."""
    return {name: part for name, part in result.to_dict().items() if name != "provenance"}


PATIENCE = 300_000  # milliseconds until a browser gives up: nothing waits longer than it must, on a busy machine either
_SLOW_LEFT_OUT = pytest.StashKey[int]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A worker per core where folders are asked for; none for single files, which start sooner without. One more takes no
    less time, though browsers wait: everything then takes a quarter longer.
    """
    whole = all(os.path.isdir(argument) for argument in config.args)
    return min(os.cpu_count() or 1, 4) if whole else 0  # a worker takes two gigabytes


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """All that importing makes stays: looking through it for garbage is a sixth of what collecting takes."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _group(file: str) -> str:
    """The tests of a group stay with one worker: those of a file; and what starves on a busy machine (browsers) with what
    makes it busy (many threads), so that they come one after the other.
    """
    name = file.rpartition("/")[2]
    one_by_one = name.startswith("test_browser") or name in ("test_accessibility.py", "test_load.py")
    return "one by one" if one_by_one else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest group begins first."""
    items.sort(key=lambda item: _group(item.path.name) != "one by one")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """By name: `--dist loadgroup` finds no group of a marker with pytest 9.2, and then cuts files into pieces unnoticed."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid.partition("::")[0])

    return ByGroup(config, log)


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow"):
            item.config.stash[_SLOW_LEFT_OUT] = item.config.stash.get(_SLOW_LEFT_OUT, 0) + 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # in a worker, which speaks to nobody else
        session.config.workeroutput["slow left out"] = session.config.stash.get(_SLOW_LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Each worker has seen all tests."""
    left_out = getattr(node, "workeroutput", {}).get("slow left out", 0)
    node.config.stash[_SLOW_LEFT_OUT] = max(left_out, node.config.stash.get(_SLOW_LEFT_OUT, 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if number := config.stash.get(_SLOW_LEFT_OUT, 0):
        what = "slow test was" if number == 1 else "slow tests were"
        line = f'{number} {what} left out; python -m pytest -m "" runs all.'
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture(scope="session", autouse=True)
def _nothing_kept_of_other_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What methods replace values by is made by the code that is tested, not read from what other code has kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ablation_core.methods.kept._FOLDER", str(tmp_path_factory.mktemp("replacements")))
        patch.setattr("ablation_core.methods.kept._PUBLISHED", "none")
        yield


@pytest.fixture(scope="session", autouse=True)
def _packages_scanned_once() -> Iterator[None]:
    """Streamlit's test harness reads what all installed packages say of themselves, 0.4 s, for each session anew."""
    if "streamlit.testing.v1" not in sys.modules:
        yield
        return
    from streamlit.components.v2 import manifest_scanner

    with pytest.MonkeyPatch.context() as patch:
        scan = functools.cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", scan)
        yield


@pytest.fixture(scope="session", params=["opt-mini", "roberta-mini", "vit-mini"])
def bundled_model(request: pytest.FixtureRequest) -> "LoadedModel":
    return ablation_core.load_model(request.param)


# for tests that take seconds a model: the other two are left to the whole run
others_slow = pytest.mark.parametrize(
    "bundled_model",
    ["opt-mini", *(pytest.param(name, marks=pytest.mark.slow) for name in ("roberta-mini", "vit-mini"))],
    indirect=True,
)


@pytest.fixture(scope="session")
def opt_mini() -> "LoadedModel":
    return ablation_core.load_model("opt-mini")


@pytest.fixture(scope="session")
def vit_mini() -> "LoadedModel":
    return ablation_core.load_model("vit-mini")


@pytest.fixture(scope="module")
def few_learned_from() -> Iterator[None]:
    """Means by position, and learned constants, are over a few predictions of the statistics part: not over 8,000."""
    with pytest.MonkeyPatch.context() as patch:
        few = {"causal": 200, "masked": 200, "vision": 40, "text-classification": 40}
        patch.setattr("ablation_core.methods.optimal.TRAINING_PREDICTIONS", few)
        yield


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The app, as anybody starts it, for the tests in a browser."""
    with served() as address:
        yield address


@pytest.fixture(autouse=True)
def pages_looked_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Streamlit's test harness runs a page once: it waits there for the whole answer, and nothing is loaded behind it.

    What a page began ends with its test: an estimate that nobody looks at would go on beside the next ones.
    """
    if request.path.parent.name not in ("ui", "integration"):
        yield
        return  # no page runs there, and Streamlit need not be imported
    monkeypatch.setattr("ablation_core.ui.ablation.job.PROMPT", 200.0)
    monkeypatch.setattr("ablation_core.ui.ablation.job.FLOOR_PROMPT", 200.0)
    monkeypatch.setattr("ablation_core.ui.ablation.job.SETS", 2)  # eight are most of what a page measures
    monkeypatch.setattr("ablation_core.methods.optimal.TRAINING_PROMPTS", 40)  # so are 500, for means by position
    monkeypatch.setattr("ablation_core.ui.shared.load_in_background", lambda *_, **__: None)
    monkeypatch.setattr("ablation_core.ui.page._HEAD_START", 0.0)  # of the style, which nobody sees here
    yield
    from ablation_core.ui.shared import shared_ablations, shared_jobs

    for jobs in (shared_ablations(), shared_jobs()):
        for key, job in jobs.running().items():
            job.stop()
            job.wait(60)
            jobs.forget(key)


_watched: list[Callable[[str, tuple], None]] = []
sys.addaudithook(lambda event, args: [watch(event, args) for watch in _watched] and None)


@contextlib.contextmanager
def watching() -> Iterator[SimpleNamespace]:
    """What is opened, listed or changed on the disk meanwhile: names of files, and of those written."""
    seen = SimpleNamespace(touched=[], written=[])
    changing = (
        "os.mkdir",
        "os.rename",
        "os.remove",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
        "shutil.rmtree",
    )

    def watch(event: str, args: tuple) -> None:
        if not args or not isinstance(args[0], str | bytes | os.PathLike):
            return  # by a handle, whose file was opened by its name before
        path = os.path.abspath(os.fsdecode(args[0]))
        if event == "open":
            seen.touched.append(path)
            if (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                seen.written.append(path)
        elif event in ("os.listdir", "os.scandir"):
            seen.touched.append(path)
        elif event in changing and not (
            event in ("os.remove", "os.rmdir") and args[1] != -1
        ):  # below a folder's handle
            seen.written += [path, *([os.path.abspath(os.fsdecode(args[1]))] if event == "os.rename" else [])]

    _watched.append(watch)
    try:
        yield seen
    finally:
        _watched.remove(watch)
