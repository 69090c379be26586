"""What a single look costs from a cold start, beside the least that the same libraries take for one forward pass.

    python -m benchmarks.startup --times 5

Processor time, user and system together, of whole processes, one after the other and in turn: the command that answers
with all methods; and a plain script that imports torch and transformers, loads the same model and runs it once. Then the
command's steps, in one process.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ablation_core import bundled

RESULTS = Path(__file__).parent / "results" / "startup.json"
LOOK = ["ablate", "opt-mini", "--select", "3.2", "--method", "all"]
PLAIN = f"""
import torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained({str(bundled.FOLDER / "opt-mini")!r}, dtype=torch.float32)
tokenizer = transformers.AutoTokenizer.from_pretrained({str(bundled.FOLDER / "opt-mini")!r})
with torch.inference_mode():
    model(**tokenizer("The function returns a list of", return_tensors="pt"))
"""


def seconds_of(*words: str) -> float:
    """The processor time of a fresh Python process, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, capture_output=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measured(times: int) -> dict[str, list[float]]:
    """Both, in turn."""
    taken: dict[str, list[float]] = {"plain": [], "look": []}
    for _ in range(times):
        taken["plain"].append(round(seconds_of("-c", PLAIN), 2))
        taken["look"].append(round(seconds_of("-m", "ablation_core", *LOOK), 2))
    return taken


def steps() -> dict[str, float]:
    """Where the command's time goes, of this process, which has to be fresh."""
    clock, taken = time.process_time, {}

    @contextlib.contextmanager
    def step(name: str) -> Iterator[None]:
        begun = clock()
        yield
        taken[name] = round(clock() - begun, 2)

    taken["Python and the command's own module"] = round(clock(), 2)
    from ablation_core.runtime import prepare_process

    prepare_process()
    with step("`import torch`, numpy among it"):
        import torch  # noqa: F401
    with step("`import transformers`, which reads the lists of all its models"):
        import transformers
    with step("the class of the model, with what transformers imports for it"):
        transformers.OPTForCausalLM  # noqa: B018
        transformers.AutoTokenizer  # noqa: B018
    with step("our modules"):
        from ablation_core import ablate, as_statistics, load_data, load_model
        from ablation_core.cli.text.experiments import format_result
    with step("weights, tokenizer, fingerprint, the door"):
        model = load_model("opt-mini")
    with step("data and statistics"):
        data = load_data("python-docs", model)
        known = as_statistics("python-docs", model)
    with step("clean pass, methods, scores, intervals"), contextlib.redirect_stdout(io.StringIO()):
        print(format_result(ablate(model, data, "3.2", "all", statistics=known)))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--steps", action="store_true", help="only the steps, once, in this process")
    parsed = parser.parse_args()
    if parsed.steps:
        print(json.dumps(steps()))
        return
    taken = measured(parsed.times)
    once = [sys.executable, "-m", "benchmarks.startup", "--steps"]
    where = json.loads(subprocess.run(once, check=True, capture_output=True, text=True).stdout)
    ratio = statistics.median(look / plain for look, plain in zip(taken["look"], taken["plain"], strict=True))
    document = {"seconds": taken, "ratio": round(ratio, 2), "steps": where, "load": os.getloadavg()[0]}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
