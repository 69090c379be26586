"""torch's threads spin briefly: asked for before torch is loaded, unless whoever runs it has decided."""

import os
import subprocess
import sys

import pytest

from ablation_core.runtime import SPINS

SAY = """
import os, sys
import ablation_core
from ablation_core.runtime import prepare_process
assert "torch" not in sys.modules
prepare_process()
print(os.environ.get("GOMP_SPINCOUNT"))
"""


def said(**decided: str) -> str:
    free = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", SAY]
    return subprocess.run(command, env=free | decided, capture_output=True, text=True, check=True).stdout.strip()


def test_the_package_asks_for_it_before_torch_is_loaded() -> None:
    assert said() == SPINS


@pytest.mark.parametrize(
    ("decided", "stays"), [({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")]
)
def test_who_has_decided_is_heeded(decided: dict[str, str], stays: str) -> None:
    assert said(**decided) == stays
