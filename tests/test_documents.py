"""The documents: what they link to exists, the commands that they name work, and they use the project's words."""

import importlib.util
import re
from pathlib import Path

import pytest

from ablation_core.__main__ import main
from ablation_core.models.architectures import ARCHITECTURES

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "ablation_core").rglob("README.md")])
README_BYTES, LINES = 8192, 200
MADE = ("families.md",)  # tables that a command writes
LINK = re.compile(r"\]\(([^)\s]+)\)")
MODULE = re.compile(r"python -m ([\w.]+)")
COMMAND = re.compile(r"python -m ablation_core ([a-z][\w-]*)([^#`\n]*)")
SCRIPT = re.compile(r"python ((?:\w+/)+\w+\.py)")
PATH = re.compile(r"`((?:ablation_core|tests|benchmarks|docs|pages)/[\w/.-]*)`")
# What people would have to learn before they could read on, or what a native speaker would not write. Code is not searched.
UNWANTED = re.compile(
    r"\b(pre-outs?|donors?|told (?:from|apart)|not told|given up(?! to)|spared|anew|parcels?|goes on|go on|going on|hurts?|ha(?:s|ve) hurt"
    r"|(?<!there )is no (?!longer)|asked for by name|take it with you|kept pieces?|finished pieces?|looks at all heads"
    r"|(?:nats|seconds|bytes|tokens|lines|bins) an? \w+)\b",
    re.IGNORECASE,
)


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as code hosts make them: lower case, words joined by hyphens."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def document_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", DOCUMENTS, ids=document_id)
def test_links_and_pictures_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        there = (path.parent / target).resolve() if target else path
        assert there.is_file() and there.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=document_id)
def test_modules_and_files_that_are_named_exist(path: Path) -> None:
    """Modules after `python -m`, scripts after `python`, and paths of the project in code."""
    text = path.read_text(encoding="utf-8")
    for module in MODULE.findall(text):
        assert importlib.util.find_spec(module) is not None, module
    for name in SCRIPT.findall(text) + [name for name in PATH.findall(text) if "MODEL" not in name]:
        assert (ROOT / name).exists(), name


def test_commands_and_their_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    named: dict[str, set[str]] = {}
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for command, rest in COMMAND.findall(text):
            named.setdefault(command, set()).update(re.findall(r"--[a-z][a-z-]*", rest))
    assert {"ablate", "stats", "sweep", "curve"} <= set(named)
    for command, options in named.items():
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0, command
        assert options <= set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)), command


@pytest.mark.parametrize("path", DOCUMENTS, ids=document_id)
def test_words_and_length(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = UNWANTED.search(without_code(text))
    assert found is None, found
    assert len(text.splitlines()) <= LINES or path.name in MADE


def test_the_readme_is_short_and_has_one_picture() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= README_BYTES
    assert text.count("![") == 1


def test_every_picture_is_shown_and_every_page_can_be_reached() -> None:
    linked, wanted = set(), [ROOT / "README.md"]
    while wanted:
        path = wanted.pop()
        if path in linked or not path.is_file():
            continue
        linked.add(path)
        if path.suffix == ".md":
            targets = [link.partition("#")[0] for link in LINK.findall(path.read_text(encoding="utf-8"))]
            wanted += [(path.parent / target).resolve() for target in targets if target and "://" not in target]
    there = {path for ending in ("png", "md") for path in (ROOT / "docs").rglob(f"*.{ending}")}
    assert there <= linked, there - linked


def test_the_table_of_families_is_whole() -> None:
    works = {family for family, row in ARCHITECTURES.items() if row.verified}
    rows = re.findall(
        r"^\| ([\w-]+) \| (?:transformers|timm) \|", (ROOT / "docs/guide/families.md").read_text(), re.MULTILINE
    )
    assert sorted(rows) == sorted(works)
    assert f"{len(works)} families work" in (ROOT / "docs/guide/models.md").read_text(encoding="utf-8")
