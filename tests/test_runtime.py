"""What entry points set for the process, seen from outside: each case is a process of its own."""

import os
import subprocess
import sys

import pytest

from ablation_core.runtime import SPINS

linux = pytest.mark.skipif(sys.platform != "linux", reason="the allocator's settings are glibc's")

RESIDENT = """
def resident(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
"""

GIVEN_BACK = (
    RESIDENT
    + """
import numpy as np
from ablation_core.runtime import LARGEST, KEPT_FREE, trim_heap, keep_freed_memory
kept = keep_freed_memory()
before = resident("VmRSS")
large = np.ones(LARGEST // 4)  # twice the largest that is kept
small = [np.ones(LARGEST // 32) for _ in range(6 * KEPT_FREE // LARGEST + 1)]  # more than may be kept together
pins = [np.ones(100) for _ in range(1000)]  # lie behind them, so that the heap cannot shrink by itself
few = trim_heap()  # nothing is free yet
sizes = large.nbytes, sum(one.nbytes for one in small)
del large
released = resident("VmRSS")
del small
free = resident("VmRSS")
back = trim_heap(), resident("VmRSS"), trim_heap()
print(kept, few, back[0], back[2], *sizes, released - before, free - before, back[1] - before)
"""
)

WIDE = (
    RESIDENT
    + """
import torch, transformers
from ablation_core.data.dataset import Batch
from ablation_core.engine.clean_passes import ablated_output
from ablation_core.engine.forward import record
from ablation_core.engine.scoring import score_outputs
from ablation_core.models.architectures import ARCHITECTURES
from ablation_core.models.loaded import wrap
config = transformers.LlamaConfig(
    vocab_size=250_000, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
)
model = wrap("wide", transformers.LlamaForCausalLM(config).eval().requires_grad_(False), ARCHITECTURES["llama"])
ids = torch.randint(0, 250_000, (4, 256))
batch = Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids.roll(-1, 1))
for rows in (1, 1, 4):  # what libraries make at first use is there before the third
    clean_pass = record(model, Batch({name: x[:rows] for name, x in batch.inputs.items()}, batch.targets[:rows]))
    before = resident("VmHWM")
    score_outputs(model, clean_pass, [ablated_output(model, clean_pass, {0: torch.zeros_like})])
print(resident("VmHWM") - before, 256 * 250_000 * 4)
"""
)

SPIN = """
import os, sys
import ablation_core
from ablation_core.runtime import prepare_process
assert "torch" not in sys.modules
prepare_process()
print(os.environ.get("GOMP_SPINCOUNT"))
"""


def run(script: str, **environment: str) -> list[str]:
    free = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    settings = free | {"OMP_NUM_THREADS": "1"} | environment
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=settings, check=True)
    return ended.stdout.split()


@linux
def test_what_is_free_beyond_the_bound_is_given_back() -> None:
    kept, few, back, again, *bytes_ = run(GIVEN_BACK, ABLATION_KEEP_MEMORY="1")
    assert (kept, few, back, again) == ("True", "False", "True", "False")
    large, small, released, free, after = map(int, bytes_)
    assert released < small + large / 4, "a buffer above the largest goes at once"
    assert free > 0.95 * small, "smaller ones stay"
    assert after < 0.1 * small, "until they are more than may stay"


@linux
def test_switched_off_nothing_is_kept() -> None:
    kept, few, back, _, *bytes_ = run(GIVEN_BACK, ABLATION_KEEP_MEMORY="0")
    assert (kept, few, back) == ("False", "False", "False")
    _, small, _, free, _ = map(int, bytes_)
    assert free < 0.1 * small


@linux
@pytest.mark.slow
def test_scoring_takes_as_much_memory_for_four_windows_as_for_one() -> None:
    """Only some logits are held at a time: with all those of four windows it would grow by three windows' and more.

    The allocator keeps nothing here: where freed memory stays, how much more is asked for is chance (10 to 930 MB seen).
    """
    grown, logits_of_one = map(int, run(WIDE))
    assert grown < logits_of_one


def test_short_spins_are_asked_for_before_torch_is_loaded() -> None:
    assert run(SPIN) == [SPINS]


@pytest.mark.parametrize(
    ("decided", "stays"), [({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")]
)
def test_who_has_decided_is_heeded(decided: dict[str, str], stays: str) -> None:
    assert run(SPIN, **decided) == [stays]


def test_cycles_are_looked_for_less_often_and_still_found() -> None:
    script = "import gc; from ablation_core.runtime import prepare_process as go; go(); print(gc.isenabled(), gc.get_threshold())"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.strip() == "True (10000, 10, 10)"
