"""Help and lists come at once: nothing heavy is imported until it is needed."""

import os
import resource
import subprocess
import sys

import pytest

from ablation_core.cli.parser import COMMANDS
from benchmarks.startup import measured

MOST_SECONDS = 1.0  # of processor time; 0.1 to 0.2 are usual
HEAVY = {"torch", "scipy", "pandas", "transformers", "timm", "streamlit", "altair", "numpy", "huggingface_hub"}


def answer(*words: str) -> tuple[str, float, set[str]]:
    """What the command line prints, the processor time it took, and which heavy packages it imported."""
    script = "import sys; from ablation_core.__main__ import main\n"
    script += f"try:\n    main({list(words)!r})\nexcept SystemExit as end:\n    assert not end.code\n"
    script += f"print('imported', *({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return done.stdout, seconds, set(done.stderr.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "words", [("--help",), ("models",), ("models", "--json"), ("models", "--families"), ("get", "--help")]
)
def test_answers_at_once(words: tuple[str, ...]) -> None:
    said, seconds, imported = answer(*words)
    assert said.strip() and not imported
    assert seconds < MOST_SECONDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_needs_no_torch(command: str) -> None:
    said, seconds, imported = answer(command, "--help")
    assert f"{command} [-h]" in said and imported <= {"numpy"} and seconds < 2 * MOST_SECONDS


@pytest.mark.slow
def test_a_single_look_costs_little_more_than_the_libraries_it_needs() -> None:
    taken = measured(1)
    assert taken["look"][0] < 2 * taken["plain"][0]  # 1.3 to 1.7 are usual
