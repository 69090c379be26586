"""One model's measurements: everybody in turn, in one process, until the rounds or the time are over."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import torch

from ablation_core.activations.collect import StatisticsRun, compute_statistics
from ablation_core.experiments.estimate import EstimateRun
from ablation_core.methods.registry import METHODS
from benchmarks.gpu.contestants import Engine, Hooks, libraries
from benchmarks.gpu.models import build, random_data

ROUNDS = 3
AGREE = {"float32": 1e-4, "bfloat16": 0.05}  # mean losses of everybody, nats per prediction


@dataclass
class Clock:
    """Wall seconds and the peak of memory on a device, until a moment when nothing more is begun."""

    device: torch.device
    end: float
    left_out: list[str] = field(default_factory=list)

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def measure(self, act: Callable[[], object]) -> tuple[dict[str, float | None], object]:
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        started = time.perf_counter()
        answer = act()
        if cuda:
            torch.cuda.synchronize(self.device)
        peak = torch.cuda.max_memory_allocated(self.device) / 2**30 if cuda else None
        return {"seconds": time.perf_counter() - started, "peak_gib": peak}, answer

    def in_turn(self, what: str, acts: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict]:
        """Everybody's median seconds, samples, peak, and last answer; the first round warms up and does not count."""
        samples: dict[str, list[float]] = {name: [] for name in acts}
        peaks: dict[str, float | None] = dict.fromkeys(acts)
        answers: dict[str, object] = {}
        slowest = 0.0
        for turn in range(rounds + 1):
            if self.left < slowest:
                self.left_out.append(f"{what}: {rounds + 1 - turn} of {rounds} rounds")
                break
            started = time.monotonic()
            for name, act in acts.items():
                measured, answers[name] = self.measure(act)
                peaks[name] = max(filter(None, (peaks[name], measured["peak_gib"])), default=None)
                if turn:
                    samples[name].append(float(measured["seconds"] or 0.0))
            slowest = max(slowest, time.monotonic() - started)
        return {
            name: {"seconds": median(times) if times else None, "samples": times, "peak_gib": peaks[name]}
            | {"answer": answers.get(name)}
            for name, times in samples.items()
        }


def race(name: str, clock: Clock, dtype: torch.dtype, tiny: bool) -> dict:
    """The model's measurements; `agree` says how far the contestants' mean losses lie apart."""
    model = build(name, clock.device, dtype, tiny)
    data = random_data(name, model, tiny)
    statistics = compute_statistics(model, data)
    engine, hooks = Engine(model, data, statistics), Hooks(model, data, statistics)
    rounds = 1 if tiny else ROUNDS
    layers = sorted({0, model.num_layers // 2, model.num_layers - 1})
    heads = [(layer, head) for layer in layers for head in range(model.shape.heads[layer])]
    one = (layers[1], 1)

    def counted() -> None:
        run = StatisticsRun(model, data)
        while run.steps_done < run.steps:
            run.step()

    others = libraries(hooks)
    racing = {name: act for name, act in others.items() if not isinstance(act, str)}
    for library, act in list(racing.items()):
        try:
            act([one])
        except Exception as error:  # noqa: BLE001 (as in `libraries`)
            others[library] = f"failed: {type(error).__name__}: {error}"[:300]
            del racing[library]
    measured = {
        "plain pass, statistics": clock.in_turn(
            f"{name}: statistics", {"plain": hooks.plain, "statistics": counted}, rounds
        ),
        "one head, five methods": clock.in_turn(
            f"{name}: five methods",
            {"engine": lambda: engine.five(one), "hooks": lambda: hooks.five(one)},
            rounds,
        ),
        "all heads of three layers": clock.in_turn(
            f"{name}: all heads",
            {"engine": lambda: engine.heads(heads), "hooks": lambda: hooks.heads(heads)}
            | {library: lambda act=act: act(heads) for library, act in racing.items()},  # type: ignore[misc]
            rounds,
        ),
        "estimate": clock.in_turn(
            f"{name}: estimate",
            {"estimate": lambda: EstimateRun(model, data, [METHODS["mean"]], statistics=statistics).finish() and None},
            rounds,
        ),
    }
    return {
        "layers": model.num_layers,
        "heads": model.shape.heads[0],
        "parameters": sum(parameter.numel() for parameter in model.module.parameters()),
        "sequences": data.sequences,
        "tokens": data.seq_len,
        "heads_measured": len(heads),
        "libraries": {library: act if isinstance(act, str) else "raced" for library, act in others.items()},
        "agree": agreement(measured, AGREE[model.dtype]),
        "ratios": ratios(measured),
        "measured": {what: {who: _without_answer(row) for who, row in rows.items()} for what, rows in measured.items()},
    }


def agreement(measured: dict, allowed: float) -> dict:
    """The largest difference of a mean loss from the engine's, and whether it is allowed."""
    found = {}
    for what in ("one head, five methods", "all heads of three layers"):
        mine = measured[what]["engine"]["answer"] or []
        for who, row in measured[what].items():
            theirs = row["answer"] or []
            if who != "engine" and mine and theirs:
                apart = max(abs(a["loss"] - b["loss"]) for a, b in zip(mine, theirs, strict=True))
                found[f"{what}, {who}"] = {"largest_difference": apart, "passed": apart <= allowed}
    return found


def ratios(measured: dict) -> dict[str, float | None]:
    """The engine against the fastest of the others, and statistics against plain passes."""

    def share(one: float | None, others: list[float | None]) -> float | None:
        known = [other for other in others if other]
        return one / min(known) if one and known else None

    found = {}
    for what in ("one head, five methods", "all heads of three layers"):
        rows = measured[what]
        found[what] = share(rows["engine"]["seconds"], [row["seconds"] for who, row in rows.items() if who != "engine"])
    rows = measured["plain pass, statistics"]
    found["statistics"] = share(rows["statistics"]["seconds"], [rows["plain"]["seconds"]])
    return found


def _without_answer(row: dict) -> dict:
    return {name: value for name, value in row.items() if name != "answer"}
