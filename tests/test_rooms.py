"""The rooms of `ablation_core` in their order, and that nothing imports against it. The order is written here, once."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ablation_core"
ORDER = (  # each imports from those before it only
    "errors",
    "storage",
    "runtime",
    "selection",
    "presentation",
    "progress",
    "stats",
    "models",
    "bundled",
    "data",
    "engine",
    "loading",
    "activations",
    "methods",
    "experiments",
    "heads",
    "runs",
    "saved",
    "cluster",
    "training",
    "report",
    "server",
    "ui",
    "cli",
)
GROUND = {
    "__init__",
    "__main__",
    "errors",
    "storage",
    "runtime",
    "selection",
    "presentation",
    "progress",
}  # directly in the package
MOST_FILES = 16  # in a folder


def modules() -> dict[str, Path]:
    """`ablation_core.stats.intervals` → its file; a package by its own name."""
    files = {
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path for path in PACKAGE.rglob("*.py")
    }
    return {name.removesuffix(".__init__"): path for name, path in files.items()}


MODULES = modules()


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Every import of a file, with its line: lazy ones inside functions, and those for types only, too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path.name}:{node.lineno} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield node.lineno, inner if inner in MODULES else node.module


def room(module: str) -> str:
    return module.split(".")[1]


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 100 and "ablation_core.stats.intervals" in MODULES
    assert ("ablation_core.storage" in dict(map(reversed, imported(PACKAGE / "selection.py")))) is False
    assert "numpy" in {name for _, name in imported(PACKAGE / "selection.py")}  # one that is for types, and lazy


def test_every_room_has_its_place() -> None:
    rooms = {room(name) for name in MODULES if name not in ("ablation_core", "ablation_core.__main__")}
    assert rooms <= set(ORDER), rooms - set(ORDER)
    assert {path.stem for path in PACKAGE.glob("*.py")} == GROUND


def test_a_room_imports_from_earlier_ones_only() -> None:
    wrong = []
    for name, path in MODULES.items():
        if name in ("ablation_core", "ablation_core.__main__"):  # the public names, and the command line's entry
            continue
        for line, other in imported(path):
            if other == "ablation_core":
                wrong.append(f"{name}:{line} imports the public names, which lie above it")
            elif other in MODULES and ORDER.index(room(other)) > ORDER.index(room(name)):
                wrong.append(f"{name}:{line} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        name: {other for _, other in imported(path) if other in MODULES and other not in (name, "ablation_core")}
        for name, path in MODULES.items()
        if name != "ablation_core"
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_streamlit_is_for_the_pages() -> None:
    wrong = [
        f"{name}:{line}"
        for name, path in MODULES.items()
        for line, other in imported(path)
        if other.split(".")[0] == "streamlit" and room(name) != "ui"
    ]
    assert not wrong, wrong


def test_no_folder_is_crowded() -> None:
    crowded = {}
    for folder in {path.parent for path in MODULES.values()}:
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        if len(files) > MOST_FILES:
            crowded[folder.relative_to(ROOT).as_posix()] = len(files)
    assert not crowded, crowded
