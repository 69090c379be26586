"""Memory that is kept and given back, seen from outside: each case is a process of its own."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the allocator's settings are glibc's")

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
small = [np.ones(8 << 20) for _ in range(25)]  # 64 MiB each, more than may be kept together
pins = [np.ones(100) for _ in range(1000)]  # lie behind them, so that the heap cannot shrink by itself
few = trim_heap()  # nothing is free yet
del large
released = resident("VmRSS")
del small
free = resident("VmRSS")
back = trim_heap(), resident("VmRSS"), trim_heap()
print(kept, few, released - before, free - before, back[0], back[1] - before, back[2])
"""
)

WIDE = (
    RESIDENT
    + """
import torch, transformers
from ablation_core import engine
from ablation_core.runtime import keep_freed_memory
from ablation_core.models.architectures import ARCHITECTURES
from ablation_core.data.dataset import Batch
from ablation_core.models.loaded import wrap
keep_freed_memory()
config = transformers.LlamaConfig(
    vocab_size=250_000, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
)
model = wrap("wide", transformers.LlamaForCausalLM(config).eval().requires_grad_(False), ARCHITECTURES["llama"])
ids = torch.randint(0, 250_000, (4, 256))
batch = Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids.roll(-1, 1))
for rows in (1, 1, 4):  # what libraries make at first use is there before the third
    recorded = engine.record(model, Batch({name: x[:rows] for name, x in batch.inputs.items()}, batch.targets[:rows]))
    before = resident("VmHWM")
    engine.score_outputs(model, recorded, [engine.ablated_output(model, recorded, {0: torch.zeros_like})])
print(resident("VmHWM") - before)
"""
)


def run(script: str, **environment: str) -> list[str]:
    settings = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=settings, check=True)
    return ended.stdout.split()


def test_what_is_free_beyond_the_bound_is_given_back() -> None:
    kept, few, released, free, back, after, again = run(GIVEN_BACK, ABLATION_KEEP_MEMORY="1")
    assert (kept, few, back, again) == ("True", "False", "True", "False")
    assert int(released) < 1.8e9, "a buffer above the largest goes at once"
    assert int(free) > 1.6e9, "smaller ones stay"
    assert int(after) < 0.2e9


def test_switched_off_nothing_is_kept() -> None:
    kept, few, _, free, back, _, _ = run(GIVEN_BACK, ABLATION_KEEP_MEMORY="0")
    assert (kept, few, back) == ("False", "False", "False")
    assert int(free) < 0.2e9


def test_scoring_takes_as_much_memory_for_four_windows_as_for_one() -> None:
    """All logits of four would be 1 GB; 128 MiB of them, and as much of the clean run's probabilities, are held at a time."""
    (grown,) = run(WIDE)
    assert int(grown) < 0.3e9
