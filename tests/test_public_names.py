"""What scripts import: all there, each with an example that runs; nothing is imported, nor changed, before it is asked for."""

import ast
import doctest
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ablation_core
from ablation_core import (
    AblationError,
    Selection,
    ablate,
    as_statistics,
    load_data,
    load_statistics,
    noise_floor,
    sweep,
)
from ablation_core.activations.files import find_statistics
from ablation_core.models.loaded import LoadedModel
from ablation_core.report import code

FUNCTIONS = sorted(name for name in ablation_core.__all__ if inspect.isfunction(getattr(ablation_core, name)))
DONE_BY_OTHERS = {"load_data", "load_model", "comparison", "verdict", "summarise_neuron"}  # documented in their rooms


def test_every_name_is_there_and_completed() -> None:
    assert set(ablation_core.__all__) == set(ablation_core._HOMES) <= set(dir(ablation_core))
    assert all(getattr(ablation_core, name) is not None for name in ablation_core.__all__)
    for_types = {
        alias.name
        for node in ast.walk(ast.parse(Path(ablation_core.__file__).read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ablation_core.")
        for alias in node.names
    }
    assert set(ablation_core.__all__) == for_types - {"project_version"}  # what editors and mypy see
    with pytest.raises(AttributeError, match="no attribute 'abalte'"):
        _ = ablation_core.abalte


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - DONE_BY_OTHERS))
def test_the_docstring_has_an_example_that_runs(name: str) -> None:
    function = getattr(ablation_core, name)
    (example,) = doctest.DocTestFinder(recurse=False).find(function, name, globs={})
    assert len(example.examples) >= 2, f"{name} shows no example"
    assert (
        example.docstring.index(">>>")
        < example.docstring.index("Raises:" if "Raises:" in example.docstring else ">>>") + 1
    )
    found = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
    assert found.failed == 0, f"{found.failed} of {found.attempted} examples of {name} give something else"


def test_settings_are_named() -> None:
    """Behind the model, the data and what is done to them, everything is keyword-only."""
    for name in ("ablate", "estimate", "sweep", "curve", "noise_floor", "compute_statistics", "describe_neurons"):
        parameters = inspect.signature(getattr(ablation_core, name)).parameters.values()
        assert sum(p.kind is not p.KEYWORD_ONLY for p in parameters) <= 4, name
        assert all(p.annotation is not p.empty for p in parameters), name


def test_statistics_and_selections_however_they_are_written(opt_mini: LoadedModel) -> None:
    path = find_statistics(opt_mini, "python-docs").path
    known = load_statistics(path, opt_mini)
    data = load_data("python-docs", opt_mini, predictions=60)
    losses = {
        ablate(opt_mini, data, select, "mean", statistics=statistics).results[0].performance.loss
        for select in ("3.2", [(3, 2)], Selection.parse("3.2", opt_mini.shape))
        for statistics in ("python-docs", path, str(path), known)
    }
    assert len(losses) == 1
    assert as_statistics(None, opt_mini) is None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model, data: ablate(model, data, "3.2", "mean"), "statistics='python-docs'"),
        (lambda model, data: sweep(model, data, "peak", heads="0.0"), "statistics='python-docs'"),
        (lambda model, data: ablate(model, data, "3.2", "mean", statistics="text:none.txt"), "compute_statistics\\("),
        (lambda model, data: ablate(model, data, [3, 2], "zero"), "as pairs"),
        (lambda model, data: sweep(model, data, "zero", heads=[(9, 9)]), "no layer 9"),
        (lambda model, data: sweep(model, data, "zero", precision=0.1), "adaptive=True"),
        (lambda model, data: noise_floor(model, data, "*.*", statistics="python-docs"), "as many others"),
        (lambda model, data: noise_floor(model, data, "", statistics="python-docs"), "at least one neuron"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(opt_mini: LoadedModel, call: object, words: str, tmp_path: Path) -> None:
    data = load_data("python-docs", opt_mini, predictions=60)
    with pytest.raises(AblationError, match=words):
        call(opt_mini, data)


def test_copied_scripts_import_public_names_alone() -> None:
    templates = [value for name, value in vars(code).items() if name.endswith("_SCRIPT")]
    assert len(templates) == 3
    for template in templates:
        filled = template.replace("{function}", "sweep").replace("{{", "{").replace("}}", "}")
        lines = [line for line in filled.splitlines() if "ablation_core" in line and "import" in line]
        assert lines and all(line.startswith("from ablation_core import") for line in lines)


def test_importing_changes_nothing() -> None:
    script = "import os, sys; before = dict(os.environ); import ablation_core; "
    script += (
        "assert dict(os.environ) == before; print(*(set(sys.modules) & {'torch', 'numpy', 'scipy', 'transformers'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, timeout=60)
    assert done.returncode == 0 and done.stdout.strip() == "", done.stderr
