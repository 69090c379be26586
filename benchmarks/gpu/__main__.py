"""`python -m benchmarks.gpu`; see the package for what it measures."""

import argparse
import gc
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.gpu.conformance import conformance
from benchmarks.gpu.models import CASES
from benchmarks.gpu.race import Clock, race
from benchmarks.measure import FOLDER

SECONDS = 480.0
GOALS = {"all heads of three layers": 0.35, "statistics": 1.10}  # at most these ratios
MEMORY_GIB = 24


def chosen_device(name: str) -> torch.device:
    """The device.

    Raises:
        SystemExit: with a sentence, where there is no such device.
    """
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "There is no CUDA card here, so nothing was measured. On a machine with one, install a build of torch for it; to "
            "try the same code without one: python -m benchmarks.gpu --device cpu --tiny"
        )
    return device


def described(device: torch.device) -> dict:
    card = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return {
        "device": card.name if card else platform.machine(),
        "memory_gib": card.total_memory / 2**30 if card else None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "transformers", "timm")},
    }


def measured_model(name: str, clock: Clock, dtype: torch.dtype, tiny: bool) -> dict:
    """A model's measurements; out of memory is a finding, and the next model is measured all the same."""
    try:
        return race(name, clock, dtype, tiny)
    except torch.OutOfMemoryError as error:
        return {"out_of_memory": str(error).partition("\n")[0]}
    finally:
        gc.collect()
        if clock.device.type == "cuda":
            torch.cuda.empty_cache()


def goals(models: dict[str, dict]) -> dict[str, dict]:
    """Each goal with the worst ratio of any model, and whether it is met."""
    found = {}
    for what, most in GOALS.items():
        known = [ratio for row in models.values() if (ratio := row.get("ratios", {}).get(what)) is not None]
        found[what] = {"at most": most, "worst": max(known, default=None), "met": bool(known) and max(known) <= most}
    peaks = [
        part["peak_gib"]
        for row in models.values()
        for parts in row.get("measured", {}).values()
        for part in parts.values()
        if part["peak_gib"] is not None
    ]
    fits = not any("out_of_memory" in row for row in models.values())
    worst = max(peaks, default=None)
    return found | {"memory, GiB": {"at most": MEMORY_GIB, "worst": worst, "met": fits and (worst or 0) <= MEMORY_GIB}}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="The engine on a graphics card.")
    parser.add_argument("--device", default="cuda", help="default %(default)s")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"], help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="begin nothing after this (default %(default)g)")
    parser.add_argument("--tiny", action="store_true", help="small models: the same code, in a minute")
    parser.add_argument("--output", type=Path, help="the JSON file (default: gpu.json beside, with a card only)")
    parsed = parser.parse_args(arguments)
    device = chosen_device(parsed.device)
    started = time.monotonic()
    clock = Clock(device, started + 0.9 * parsed.seconds)
    document = described(device) | {"dtype": parsed.dtype, "tiny": parsed.tiny, "conformance": conformance(device)}
    models: dict[str, dict] = {}
    for name in CASES:
        if clock.left <= 0:
            clock.left_out.append(name)
            continue
        print(f"{name}: {clock.left:.0f} s left", file=sys.stderr)
        models[name] = measured_model(name, clock, getattr(torch, parsed.dtype), parsed.tiny)
    document |= {"models": models, "goals": None if parsed.tiny else goals(models), "left_out": clock.left_out}
    document["seconds"] = time.monotonic() - started
    text = json.dumps(document, indent=1)
    output = parsed.output or (FOLDER / "gpu.json" if device.type == "cuda" and not parsed.tiny else None)
    if output:
        output.write_text(text + "\n", encoding="utf-8")
    print(text)
    checks = [row["passed"] for family in document["conformance"].values() for row in family.values()]
    checks += [row["passed"] for model in models.values() for row in model.get("agree", {}).values()]
    return 0 if all(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
