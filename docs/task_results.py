"""The tables of docs/results/tasks.md: `python -m docs.task_results MODEL TASK [--positions P] [--prompts N] [--seeds 0 1]`.

With `--templates` the prompts of `ioi` are told apart by their template, one sweep each, in place of the seeds; what needs other
prompts of the task (means by position) is then left out.

Sweeps every head by six methods on each seed's prompts (what is finished is kept in the cache folder) and prints, as
Markdown: the ten heads with the largest fall of the logit difference by each method, how far the methods agree on the heads
(rank correlation, overlap of the ten largest falls), and how far the seeds (or templates) do.
"""

import argparse
import json
from dataclasses import asdict
from itertools import combinations, islice
from pathlib import Path

import numpy as np

from ablation_core import find_statistics, load_data, load_model, load_statistics, sweep
from ablation_core.data.tasks import ioi
from ablation_core.methods import registry
from ablation_core.methods.registry import usable_methods
from ablation_core.models.loaded import LoadedModel
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.runtime import keep_freed_memory
from ablation_core.stats.correlation import rank_agreement
from ablation_core.storage import CACHE

METHODS = ("zero", "mean", "mean-positional", "peak", "resample-dataset", "counterfactual")
METRIC = "logit_difference"
TOP = 10


def largest(result: SweepResult, method: str) -> list[str]:
    """The heads without which the logit difference falls most, the largest fall first."""
    changes = result.changes(method, METRIC)
    return sorted(changes, key=lambda head: changes[head])[:TOP]


def heads_table(result: SweepResult, method: str) -> list[str]:
    significant, changes = result.significant(method, METRIC), result.changes(method, METRIC)
    low, high, sets = result.floor(method, METRIC) or (0.0, 0.0, 0)
    cells = []
    for head in largest(result, method):
        span = result.rows[head][method]["change"][METRIC]
        mark = "" if head in significant else "°"
        cells.append(f"{head}{mark} {changes[head]:+.2f} [{span['low']:+.2f}, {span['high']:+.2f}]")
    floor = f"{low:+.2f} to {high:+.2f} ({sets} sets)"
    return [f"| {method} | {len(significant)} of {len(result.wanted)} | {floor} | {'; '.join(cells)} |"]


def agreement(one: dict[str, float], other: dict[str, float], tops: tuple[list[str], list[str]]) -> str:
    rho = rank_agreement([one[head] for head in one], [other[head] for head in one])
    return f"{rho.mean:.2f}, {len(set(tops[0]) & set(tops[1]))}"


def report(results: dict[str, SweepResult]) -> str:
    first = next(iter(results.values()))
    clean, data = first.baseline or {}, first.description["data"]
    lines = [
        f"{data['predictions']} prompts of {data['ref']}, positions {first.positions}: accuracy {clean['accuracy']:.0%}, "
        f"logit difference {clean[METRIC]:+.2f} nats, probability of the right answer {clean['probability']:.0%}.",
        "",
        "| method | heads significant | random sets | ten largest falls, nats, 95% interval (° not significant) |",
        "|---|---|---|---|",
    ]
    for method in first.methods:
        lines += heads_table(first, method)
    lines += ["", "Rank correlation over the heads, and how many of the ten largest falls are the same:", ""]
    lines += ["| | " + " | ".join(first.methods[1:]) + " |", "|---" * len(first.methods) + "|"]
    for row, one in enumerate(first.methods[:-1]):
        cells = [
            "" if column < row else agreement(
                first.changes(one, METRIC), first.changes(other, METRIC), (largest(first, one), largest(first, other))
            )
            for column, other in enumerate(first.methods[1:])
        ]  # fmt: skip
        lines.append(f"| {one} | " + " | ".join(cells) + " |")
    for a, b in combinations(results, 2):
        lines += [
            "",
            f"{a} and {b} (other prompts), by the same method:",
            "",
            "| method | agreement |",
            "|---|---|",
        ]
        for method in first.methods:
            one, other = results[a], results[b]
            if method in one.methods and method in other.methods:
                tops = largest(one, method), largest(other, method)
                lines.append(
                    f"| {method} | {agreement(one.changes(method, METRIC), other.changes(method, METRIC), tops)} |"
                )
    return "\n".join(lines)


def of_template(template: str, model: LoadedModel, prompts: int, folder: Path) -> str:
    """The reference of a file with the first prompts of this template that seed 0 draws."""
    begin = template.partition("{")[0]
    drawn = (pair for pair in ioi.draw(model, np.random.default_rng(0)) if str(pair.prompt).startswith(begin))
    lines = [json.dumps(asdict(pair)) for pair in islice(drawn, prompts)]
    path = folder / "tasks" / f"ioi-{begin.strip(' ,').lower()}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"pairs:{path}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("task", help="such as induction")
    parser.add_argument("--positions", default="all")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--templates", action="store_true", help="of ioi: one sweep per template")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--statistics", default="python-docs", help="what the constants come from")
    parser.add_argument("--cache-dir", type=Path, default=CACHE)
    parsed = parser.parse_args()
    keep_freed_memory()
    model = load_model(parsed.model, cache_dir=parsed.cache_dir)
    entry = find_statistics(model, parsed.statistics, parsed.cache_dir)
    statistics = None if entry is None else load_statistics(entry.path, model)
    drawn = {f"Seed {seed}": (f"task:{parsed.task}", seed) for seed in parsed.seeds}
    if parsed.templates:
        files = [of_template(template, model, parsed.prompts, parsed.cache_dir) for template in ioi.TEMPLATES]
        drawn = {Path(ref).stem: (ref, 0) for ref in files}
    results = {}
    for name, (ref, seed) in drawn.items():
        data = load_data(ref, model, predictions=parsed.prompts, seed=seed)
        usable = [one for one in usable_methods(data, model.modality) if one in parsed.methods]
        names = [one for one in usable if statistics is not None or not registry.METHODS[one].needs_statistics]
        results[name] = sweep(
            model, data, names, statistics=statistics, positions=parsed.positions, cache=parsed.cache_dir, progress=True
        )
    print(report(results))


if __name__ == "__main__":
    main()
