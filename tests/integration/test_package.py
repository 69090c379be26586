"""The package, built and installed as anybody would, used from another folder; and the image for a server."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ablation_core import ablate, load_data, load_model
from ablation_core.storage import project_version

ROOT = Path(__file__).parents[2]
MOST_BYTES = 40_000_000


def run(command: Sequence[object], **settings: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=500, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what the repository holds, so that the source tree stays as it is."""
    folder = tmp_path_factory.mktemp("package")
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT).split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / "source" / name)
    run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, folder / "source"])
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the package; everything else is borrowed from this one."""
    folder = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", "--without-pip", folder])
    packages = Path(
        run([folder / "bin" / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    )
    borrowed = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (packages / "borrowed.pth").write_text("\n".join(borrowed), encoding="utf-8")
    run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            folder / "bin" / "python",
            "install",
            "--no-deps",
            "--no-index",
            wheel,
        ]
    )
    assert (packages / "ablation_core").is_dir()
    return folder


def held(package: Path) -> dict[str, int]:
    files = (path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path): path.stat().st_mtime_ns for path in files}


@pytest.mark.slow
def test_the_installed_package_does_the_main_job(environment: Path, wheel: Path, tmp_path: Path) -> None:
    assert wheel.stat().st_size < MOST_BYTES
    (package,) = environment.glob("lib/python*/site-packages/ablation_core")
    before = held(package)
    surroundings = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ABLATION_CACHE")}
    surroundings |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def tool(*words: str) -> dict:
        return json.loads(
            run([environment / "bin" / "ablation-explorer", *words, "--json"], cwd=tmp_path, env=surroundings)
        )

    listed = {model["ref"]: model["statistics"] for model in tool("models")["models"]}
    assert listed["opt-mini"] == ["python-code", "python-docs"]
    asked = ("opt-mini", "--select", "3.2", "--method", "mean", "--predictions", "100")
    for other in ((), ("--cache-dir", str(tmp_path / "other"))):  # which has no statistics of its own
        found = tool("ablate", *asked, *other)
        model = load_model("opt-mini")
        here = ablate(model, load_data("python-docs", model, predictions=100), "3.2", "mean", statistics="python-docs")
        assert found["statistics"] == here.statistics
        assert found["results"][0]["loss"] == pytest.approx(here.results[0].performance.loss, abs=1e-5)
    saved = tool("stats", "vit-mini", "--predictions", "20")["path"]
    assert Path(saved).is_relative_to(tmp_path / "cache" / "ablation-explorer")
    curves = "from ablation_core import load_model; from ablation_core.runs.pruning import kept_curves; "
    curves += "from ablation_core.storage import CACHE; print(len(kept_curves(load_model('opt-mini'), CACHE)))"
    python = environment / "bin" / "python"
    assert int(run([python, "-c", curves], cwd=tmp_path, env=surroundings)) >= 1  # those published with the project
    assert run([environment / "bin" / "ablation-explorer", "--version"]).split()[1] == project_version()
    pages = "from streamlit.testing.v1 import AppTest; from ablation_core.storage import APP; "
    pages += "at = AppTest.from_file(str(APP / 'app.py'), default_timeout=200).run(); "
    pages += (
        "assert not at.exception and not at.error, at; print(at.header[0].value, len(list(APP.glob('pages/*.py'))))"
    )
    said = run([python, "-c", pages], cwd=tmp_path, env=surroundings).split()
    assert int(said[-1]) == len(list((ROOT / "pages").glob("*.py")))
    assert held(package) == before  # an installed package is never written to
    assert not [path for path in tmp_path.iterdir() if path.name not in ("cache", "other", ".cache", ".streamlit")]


def test_the_lists_of_packages_are_one() -> None:
    """Every list can be read as setuptools reads it, and requirements.txt names all that tests need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    dynamic = project["tool"]["setuptools"]["dynamic"]
    files = [dynamic["dependencies"]["file"], *(part["file"] for part in dynamic["optional-dependencies"].values())]
    for file in files:
        lines = (line.split("#")[0].strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines())
        assert [Requirement(line) for line in lines if line], file
    named = re.findall(r"^-r (\S+)$", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) == set(files) - {"requirements-cluster.txt"}  # which is large, and asked for by name


def steps() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def test_the_image_follows_simple_rules() -> None:
    words = [word for word, _ in steps()]
    given = dict(steps())
    assert words[0] == "FROM" and re.search(r":\d+\.\d+", given["FROM"]) and ":latest" not in given["FROM"]
    assert "ADD" not in words and given["USER"] not in ("root", "0")
    assert words.index("USER") > max(number for number, word in enumerate(words) if word == "RUN")
    for _, command in (step for step in steps() if step[0] == "RUN"):
        assert "sudo" not in command and "curl" not in command
        assert "pip install" not in command or "--no-cache-dir" in command
    for name in ("CMD", "HEALTHCHECK"):
        assert isinstance(
            json.loads(given[name][given[name].index("[") :]), list
        )  # run without a shell, so that it can be stopped
    for _, places in (step for step in steps() if step[0] == "COPY"):
        assert all((ROOT / place).exists() for place in places.split()[:-1])
    settings = dict(setting.split("=") for setting in given["ENV"].split())
    assert settings["ABLATION_SHARED"] == "1" and settings["HF_HUB_OFFLINE"] == "1"


@pytest.mark.slow
def test_what_the_image_starts_is_understood(environment: Path, tmp_path: Path) -> None:
    """The image's command and settings, as far as they can be tried without an image: the command that it becomes."""
    given = dict(steps())
    words = json.loads(given["CMD"])
    shown = "import os, sys; os.execv = lambda path, words: (print(*words, sep='\\n'), sys.exit(0))[1]; "
    shown += f"sys.argv = {words!r}; from ablation_core.__main__ import script; script()"
    settings = dict(setting.split("=") for setting in given["ENV"].split())
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | settings
    surroundings["ABLATION_CACHE"] = str(tmp_path)
    command = run([environment / "bin" / "python", "-c", shown], cwd=tmp_path, env=surroundings).split("\n")
    assert command[1:4] == ["-m", "streamlit", "run"] and Path(command[4]).is_file()
    assert "--server.address=0.0.0.0" in command and "--server.headless=true" in command
    assert not [word for word in command if word.startswith(("--client.toolbarMode", "--server.maxUploadSize"))]
    from streamlit import config

    known = set(config._config_options_template)
    assert {word[2:].split("=")[0] for word in command if word.startswith("--")} <= known
    assert "--theme.light.primaryColor=#14598f" in command
