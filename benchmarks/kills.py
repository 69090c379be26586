"""Kill -9 at random moments, and whether anything is lost: `python -m benchmarks.kills --kills 100`.

Statistics, a sweep, an adaptive sweep and curves of opt-mini are computed and saved, each in a process that is killed at a
random moment; half of the kills fall into the middle of a write, when half of the bytes have reached the disk. After each
kill every file in the cache folder must load, hold nothing but what an undisturbed run holds, bit for bit, and no
half-written file may count. The next process resumes; once the work is complete, the result must be the undisturbed one.

One process imports and warms everything and is then forked, so that a kill costs tenths of a second.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from ablation_core import compute_statistics, load_data, load_model, load_statistics
from ablation_core.activations.files import list_statistics, save_statistics
from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import finished
from ablation_core.runs.adaptive import AdaptiveResult, AdaptiveSpec, adaptive_steps
from ablation_core.runs.ledger import KeptRun, find_runs
from ablation_core.runs.pruning import CurveSpec, curve_steps
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from ablation_core.runs.sweep_result import SweepResult, every_head

BY = (METHODS["mean"], METHODS["peak"])
_BATCH = 2  # small, so that there are many moments between two writes


def _numbers(result: SweepResult | AdaptiveResult | CurveResult) -> str:
    """A result's document without when and where it was made."""
    document = {name: part for name, part in result.to_dict().items() if name != "provenance"}
    return json.dumps(document, sort_keys=True)


@dataclass(frozen=True, eq=False)
class Work:
    """What is computed, and killed."""

    model: LoadedModel
    counted: Data
    data: Data
    statistics: Statistics

    @classmethod
    def small(cls) -> "Work":
        model = load_model("opt-mini")
        counted = load_data("python-docs", model, 500, seq_len=24, batch_size=4, split="statistics")
        data = load_data("python-docs", model, 120, seq_len=16, batch_size=_BATCH)
        return cls(model, counted, data, compute_statistics(model, counted))

    def kinds(self) -> dict[str, Callable[[Path], str]]:
        """Kind of work → a function that does it in a cache folder, to its end, and returns its end as text."""
        heads = tuple(every_head(self.model)[::6])
        model, data, made = self.model, self.data, self.statistics

        def counted(folder: Path) -> str:
            return load_statistics(save_statistics(compute_statistics(model, self.counted), folder)).digest

        def swept(folder: Path) -> str:
            result = finished(sweep_steps(model, data, SweepSpec(BY, heads=heads, random_sets=4), made, folder))
            return _numbers(result)

        def adapted(folder: Path) -> str:
            result = finished(adaptive_steps(model, data, AdaptiveSpec(BY, heads=heads), made, folder))
            return _numbers(result)

        def pruned(folder: Path) -> str:
            result = finished(
                curve_steps(model, data, CurveSpec(BY, seeds=(1, 2), percents=(0, 20, 50, 100)), made, folder)
            )
            return _numbers(result)

        return {"statistics": counted, "sweep": swept, "adaptive": adapted, "curve": pruned}


def runs_in(folder: Path, work: Work) -> list[KeptRun]:
    return [run for kind in ("sweep", "adaptive", "curve") for run in find_runs(folder, kind, work.model.fingerprint)]


def forked(act: Callable[[], object]) -> int:
    """The number of a process that does it and ends, without touching what this one has open."""
    if number := os.fork():
        return number
    code = 1
    try:
        act()
        code = 0
    except BaseException as error:  # noqa: BLE001  the parent needs to know, whatever it is
        print(f"in the killed process: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def dies_writing(after: int, share: float) -> None:
    """From here on this process kills itself in its `after`-th write, when this share of the bytes is written."""
    write, left = os.write, [after]

    def half(handle: int, data: bytes) -> int:
        left[0] -= 1
        if left[0] > 0:
            return write(handle, data)
        write(handle, data[: int(len(data) * share)])
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")

    os.write = half


def look(folder: Path, work: Work, whole: dict[str, KeptRun], digest: str) -> tuple[int, bool]:
    """Check every file that is there; returns how many pieces are kept, and whether statistics are.

    Raises:
        AssertionError: something loads that the undisturbed run does not have, or does not load.
    """
    entries, problems = list_statistics(folder)
    assert not problems, problems
    for entry in entries:
        assert load_statistics(entry.path, work.model).digest == digest
    units = 0
    for run in runs_in(folder, work):
        for name, record in run.done.items():
            assert record == whole[run.path.name].done[name], f"{name} of {run.path.name} differs"
        units += len(run.done)
    return units, bool(entries)


def kill_often(kills: int, seed: int, say: Callable[[str], None] = lambda words: None) -> dict:
    """So many kills, in turn of each kind of work; returns what happened."""
    torch.set_num_threads(1)  # GNU's OpenMP does not survive a fork once it has threads
    work, chance = Work.small(), random.Random(seed)
    acts, counts = work.kinds(), Counter()
    with tempfile.TemporaryDirectory() as place:
        undisturbed, folder = Path(place) / "undisturbed", Path(place) / "killed"
        ends, seconds = {}, {}
        for kind, act in acts.items():
            started = time.perf_counter()
            ends[kind] = act(undisturbed)
            seconds[kind] = time.perf_counter() - started
        whole = {run.path.name: run for run in runs_in(undisturbed, work)}
        digest = ends["statistics"]
        while counts["kills"] < kills:
            for kind, act in acts.items():
                if counts["kills"] < kills:
                    shutil.rmtree(folder, ignore_errors=True)
                    _kill_one(kind, act, folder, work, whole, digest, ends[kind], seconds[kind], chance, counts)
                    say(f"{counts['kills']} kills, {kind}: resumed to the undisturbed end")
    return {"seed": seed} | dict(sorted(counts.items()))


def _kill_one(
    kind: str,
    act: Callable[[Path], str],
    folder: Path,
    work: Work,
    whole: dict[str, KeptRun],
    digest: str,
    end: str,
    seconds: float,
    chance: random.Random,
    counts: Counter,
) -> None:
    """Kill one kind of work up to four times on its way, then let it end and compare."""
    kept = 0
    for _ in range(4):
        in_write, after, share = chance.random() < 0.5, chance.randint(1, 4), chance.random()

        def mortal(in_write: bool = in_write, after: int = after, share: float = share) -> None:
            if in_write:
                dies_writing(after, share)
            act(folder)

        child = forked(mortal)
        if not in_write:
            time.sleep(chance.random() * seconds)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed or status == 0, f"{kind} ended by {status}"
        counts["kills"] += killed
        counts["in the midst of a write"] += killed and in_write
        counts[f"kills of {kind}"] += killed
        units, _ = look(folder, work, whole, digest)
        assert units >= kept, f"{kept - units} finished pieces of {kind} were lost"
        counts["with pieces kept"] += killed and units > 0
        kept = units
    assert act(folder) == end, f"resumed, {kind} ends with other numbers"
    counts["resumed to the undisturbed end"] += 1
    look(folder, work, whole, digest)
    left = [path.name for path in folder.rglob(".partial-*")]
    assert not left, f"half-written files stay: {left}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    print(json.dumps(kill_often(parsed.kills, parsed.seed, lambda words: print(words, file=sys.stderr)), indent=2))


if __name__ == "__main__":
    main()
