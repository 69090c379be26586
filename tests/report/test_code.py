"""The copied script and command give the page's numbers, to the last digit.

Most run as a person would run them, in a process of their own. What keeps nothing in the cache folder, whose place is read once
per process, may run in this one, which saves ten seconds of imports each.
"""

import contextlib
import io
import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ablation_core import (
    METHODS,
    ablate,
    describe_neurons,
    find_statistics,
    load_data,
    load_model,
    load_statistics,
    noise_floor,
)
from ablation_core.__main__ import main
from ablation_core.activations.statistics import Statistics
from ablation_core.cli.text.experiments import format_result
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import finished
from ablation_core.report import code
from ablation_core.report.sentences import comparison, verdict
from ablation_core.runs.adaptive import AdaptiveSpec, adaptive_steps
from ablation_core.runs.pruning import CurveSpec, curve_steps
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from ablation_core.selection import Selection
from tests.conftest import ROOT


@dataclass(frozen=True)
class Printed:
    stdout: str
    stderr: str


def in_own_process(command: list[str]) -> Printed:
    assert command[0] == "python"
    done = subprocess.run([sys.executable, *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return Printed(done.stdout, done.stderr)


def here(act: Callable[[], object]) -> Printed:
    """What a call prints."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        act()
    return Printed(out.getvalue(), errors.getvalue())


def run_command(command: list[str]) -> Printed:
    assert command[:3] == ["python", "-m", "ablation_core"]
    return here(lambda: main(command[3:]))


def run_script(text: str, folder: Path) -> Printed:
    script = folder / "script.py"
    script.write_text(text, encoding="utf-8")
    return here(lambda: runpy.run_path(str(script)))


def documents(text: str) -> list[dict]:
    """The JSON documents that a process printed one after the other."""
    found, rest = [], text.strip()
    while rest:
        document, end = json.JSONDecoder().raw_decode(rest)
        found.append(document)
        rest = rest[end:].strip()
    return found


def agree(one: object, other: object) -> bool:
    """Equal but for float rounding, which depends on where a process has its memory, and for when they were made."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() - {"provenance"}
        return one.keys() == other.keys() and all(agree(one[key], other[key]) for key in keys)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(agree, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=1e-5, abs=1e-6)
    return one == other


def printed(text: str) -> tuple[list[str], list[float]]:
    """A text's words without its numbers, and its numbers."""
    number = r"[+-]?\d+\.\d+"
    return re.sub(number, "#", text).split(), [float(found) for found in re.findall(number, text)]


def loaded(name: str, data: str) -> tuple[LoadedModel, Statistics]:
    model = load_model(name)
    return model, load_statistics(find_statistics(model, data).path, model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data_ref", "select", "predictions", "bins"),
    [("opt-mini", "python-docs", "3.2 5.0:1-4", 500, 60), ("vit-mini", "fashion-mnist", "2.1", 100, 100)],
)
def test_script_and_command_of_an_ablation(
    name: str, data_ref: str, select: str, predictions: int, bins: int, tmp_path: Path
) -> None:
    model, statistics = loaded(name, data_ref)
    data = load_data(data_ref, model, predictions)
    result = ablate(model, data, select, "all", statistics=statistics, bins=bins)
    floor = noise_floor(model, data, select, statistics=statistics, seed=0)

    script = code.ablation_script(result, statistics, "mean")
    done = in_own_process(["python", "-c", script]) if name == "opt-mini" else run_script(script, tmp_path)
    document = json.loads(done.stdout)
    shown = json.loads(json.dumps(result.to_dict()))
    assert agree({key: document[key] for key in shown}, shown)
    assert agree(document["noise_floor"], {"low": floor.low, "high": floor.high, "sets": 8})
    assert printed(document["verdict"])[0] == printed(verdict(result, "mean", floor))[0]
    assert printed(document["comparison"])[0] == printed(comparison(result))[0]
    assert "note:" not in done.stderr

    command = shlex.split(code.ablation_command(result, statistics))
    (words, numbers), (expected, values) = printed(run_command(command).stdout), printed(format_result(result))
    assert words == expected and numbers == pytest.approx(values, abs=2e-4)
    assert agree(json.loads(run_command([*command, "--json"]).stdout), shown)


@pytest.mark.slow
def test_script_and_command_of_a_neuron(tmp_path: Path) -> None:
    model, statistics = loaded("roberta-mini", "python-docs")
    expected = json.loads(
        json.dumps(describe_neurons(model, statistics, Selection.parse("1.2:3", model.shape), bins=50))
    )
    done = run_script(code.neuron_script(model, statistics, "1.2:3", 50), tmp_path)
    assert json.loads(done.stdout) == expected
    command = shlex.split(code.neuron_command(model, statistics, "1.2:3", 50))
    assert json.loads(run_command([*command, "--json"]).stdout) == expected
    assert expected["neurons"][0]["sentence"] in run_command(command).stdout


@pytest.mark.slow
def test_script_and_command_of_a_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, statistics = loaded("vit-mini", "fashion-mnist")
    data = load_data("fashion-mnist", model, 30)
    result = finished(sweep_steps(model, data, SweepSpec((METHODS["mean"],), 60), statistics, tmp_path / "page"))
    described, shown = result.description, json.loads(json.dumps(result.to_dict()))
    monkeypatch.setenv("ABLATION_CACHE", str(tmp_path / "script"))  # an empty one: measured again
    scripts = [code.sweep_script(described, result.methods, adaptive) for adaptive in (False, True)]
    done = in_own_process(["python", "-c", "\n".join(scripts)])
    plain, adaptive = documents(done.stdout)
    assert agree(plain, shown) and "note:" not in done.stderr
    monkeypatch.setenv("ABLATION_CACHE", str(tmp_path / "command"))
    command = shlex.split(code.sweep_command(described, result.methods))
    assert agree(json.loads(in_own_process([*command, "--json"]).stdout), shown)
    assert "--adaptive" in code.sweep_command(described, result.methods, adaptive=True)
    expected = finished(
        adaptive_steps(model, data, AdaptiveSpec((METHODS["mean"],), 60), statistics, tmp_path / "page")
    )
    assert agree(adaptive, json.loads(json.dumps(expected.to_dict())))


@pytest.mark.slow
def test_scripts_and_commands_of_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of neurons and of whole heads: one process runs both scripts, another both commands."""
    model, statistics = loaded("roberta-mini", "python-docs")
    data, methods, results = load_data("python-docs", model, 60), (METHODS["zero"], METHODS["peak"]), []
    for whole_heads in (False, True):
        spec = CurveSpec(methods, 60, (1, 2), (0, 50, 90), whole_heads)
        results.append(finished(curve_steps(model, data, spec, statistics, tmp_path / "page")))
    shown = json.loads(json.dumps([result.to_dict() for result in results]))
    monkeypatch.setenv("ABLATION_CACHE", str(tmp_path / "script"))
    done = in_own_process(["python", "-c", "\n".join(code.curve_script(result.description) for result in results)])
    assert agree(documents(done.stdout), shown) and "note:" not in done.stderr
    monkeypatch.setenv("ABLATION_CACHE", str(tmp_path / "command"))
    calls = [[*shlex.split(code.curve_command(result.description))[3:], "--json"] for result in results]
    lines = ["from ablation_core.__main__ import main", *(f"assert main({call!r}) == 0" for call in calls)]
    assert agree(documents(in_own_process(["python", "-c", "\n".join(lines)]).stdout), shown)


@pytest.fixture(scope="module")
def small() -> tuple:
    model, statistics = loaded("opt-mini", "python-docs")
    return ablate(
        model, load_data("python-docs", model, 200), "0.0:3", list(METHODS)[:4], statistics=statistics
    ), statistics


def test_what_decides_a_number_is_named(small: tuple) -> None:
    result, statistics = small
    skip_first = replace(result, positions="1-", bins=30)
    command = code.ablation_command(skip_first, statistics)
    for words in ("--dtype float32", "--predictions 200", "--seq-len 128", "--batch-size 8", "--seed 0", "--bins 30"):
        assert words in command
    assert "--positions 1-" in command and "--statistics cached_stats/opt-mini/" in command
    script = code.ablation_script(skip_first, statistics, "peak")
    assert "positions='1-'" in script and "bins=30" in script and statistics.digest in script


@pytest.mark.parametrize(
    "ref", ['text:a"; import os; os.system("x")#', "text:it's $(reboot) `x`\n--json", "text:{select} {}"]
)
def test_a_hostile_reference_stays_one_word(ref: str, small: tuple) -> None:
    result, statistics = small
    hostile = replace(result, data=result.data | {"ref": ref})
    words = shlex.split(code.ablation_command(hostile, statistics))
    assert words[words.index("--data") + 1] == ref
    script = code.ablation_script(hostile, statistics, "peak")
    calls: list[str] = []
    lines = [line for line in script.splitlines() if line.startswith("data = ")]
    exec(lines[0], {"load_data": lambda ref, *_, **__: calls.append(ref), "model": None})
    assert calls == [ref]
    compile(script, "script", "exec")


@pytest.mark.slow
def test_a_changed_model_or_data_is_said(small: tuple, tmp_path: Path) -> None:
    result, statistics = small
    script = code.ablation_script(replace(result, data=result.data | {"fingerprint": "0" * 16}), statistics, "peak")
    assert "the page showed 0000000000000000" in run_script(script, tmp_path).stderr
