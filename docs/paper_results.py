"""The figures and tables of docs/results/paper.md and paper-tables.md, from the runs saved in cached_stats/runs.

python -m docs.paper_results curves    # docs/results/figures/curves-MODEL-DATA.png, one for each run
python -m docs.paper_results tables    # loss and top-1 at 50 and 90%, ranks
python -m docs.paper_results modes     # how often the ways to find a mode disagree
"""

import sys
from pathlib import Path

import numpy as np
import vl_convert

from ablation_core import load_model
from ablation_core.activations.files import list_statistics, load_statistics
from ablation_core.bundled import NAMES
from ablation_core.loading.packaged import fetched_folder
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.report.charts.run_charts import pruning_curves
from ablation_core.report.run_frames import curve_frame, point_frame
from ablation_core.runs.paper import WITHOUT
from ablation_core.runs.pruning import kept_curves
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.storage import CACHE

FIGURES = Path(__file__).parent / "results" / "figures"


def models() -> list[LoadedModel]:
    """The bundled models, and the fetched one if it is here."""
    return [load_model(name) for name in (*NAMES, *(["smollm2-135m"] if fetched_folder("smollm2-135m") else []))]


def runs(model: LoadedModel) -> list[CurveResult]:
    """For each data set the model's saved curve of single neurons with the most points."""
    best: dict[str, CurveResult] = {}
    for result in kept_curves(model, CACHE).values():
        if result.description["whole_heads"]:
            continue
        ref = result.description["data"]["ref"]
        if ref not in best or len(result.points) > len(best[ref].points):
            best[ref] = result
    return list(best.values())


def only(result: CurveResult, names: list[str]) -> CurveResult:
    """The same run with these of its methods."""
    description = result.description | {"methods": [name for name in names if name in result.description["methods"]]}
    return CurveResult(description, result.baseline, result.points)


def curves() -> None:
    for model in models():
        for result in runs(model):
            result = only(result, [name for name in METHODS if name not in WITHOUT and name != "optimal"])
            title = f"loss, nats per prediction: {model.ref} on {result.description['data']['ref']}"
            levels = {"unablated": result.baseline["loss"]}
            chart = pruning_curves(
                curve_frame(result, "loss"), point_frame(result, "loss"), title, ".2f", levels
            ).properties(width=640, background="white")
            name = f"curves-{model.ref}-{result.description['data']['ref'].replace(':', '-')}.png"
            (FIGURES / name).write_bytes(vl_convert.vegalite_to_png(chart.to_dict(), scale=1.5))
            print(FIGURES / name)


def tables() -> None:
    for model in models():
        for result in runs(model):
            data = result.description["data"]
            print(f"\n## {model.ref}, {data['predictions']:,} predictions of {data['ref']}; unablated: ", end="")
            print(f"loss {result.baseline['loss']:.3f}, top-1 {result.baseline['top1']:.1%}\n")
            print("| method | loss at 50% | at 90% | top-1 at 50% | at 90% |\n|---|---|---|---|---|")
            names = [name for name in METHODS if name in result.description["methods"]]
            for name in names:
                cells = [_cell(result, name, metric, percent) for metric in ("loss", "top1") for percent in (50, 90)]
                print(f"| {name} | {' | '.join(cells)} |")
            ranks = only(result, [name for name in names if name not in WITHOUT and name != "optimal"]).ranks("loss")
            if ranks["best"]:
                print(f"\n{_ranked(ranks)}")


def _ranked(ranks: dict) -> str:
    """The ranks, and how far each method lies behind the first: loss averaged over the curve."""
    order = sorted(ranks["mean_rank"], key=ranks["mean_rank"].__getitem__)
    places = ", ".join(f"{name} {ranks['mean_rank'][name]:.2f}" for name in order)
    behind = [(name, ranks["behind"][name]) for name in order if name != ranks["best"]]
    costs = ", ".join(f"{name} {d['mean']:z.2f} ({d['low']:z.2f} to {d['high']:z.2f})" for name, d in behind)
    return (
        f"Mean rank over seeds by the whole curve: {places} (Friedman's p = {ranks['p']:.2g}). Behind {ranks['best']}, nats "
        f"averaged over the curve, with 95% intervals over the seeds: {costs}."
    )


def _cell(result: CurveResult, method: str, metric: str, percent: int) -> str:
    """The mean over those seeds that are measured, with their range."""
    values = [result.value(seed, percent, method, metric) for seed in result.description["seeds"]]
    values = [value for value in values if np.isfinite(value)]
    if not values:
        return "–"
    mean, low, high = (format(number, ".3f" if metric == "loss" else ".1%") for number in (np.mean(values), min(values), max(values)))  # fmt: skip
    return f"{mean} ({low}–{high})" if len(values) > 1 else f"{mean} (one seed)"


def modes() -> None:
    print("| model, data | " + " | ".join(WITHOUT) + " |\n|---" + "|---" * len(WITHOUT) + "|")
    for model in models():
        for entry in list_statistics()[0]:
            if entry.provenance["model_fingerprint"] != model.fingerprint:
                continue
            statistics = load_statistics(entry.path, model)
            cells = []
            for name in WITHOUT:
                other = METHODS[name].constant(statistics, 100)
                distance = abs(other - statistics.peak(100)) > 0.25 * statistics.std
                distinct = len(np.unique(other[np.isfinite(other)]))
                cells.append(f"{distance[statistics.std > 0].mean():.1%} ({distinct:,} values)")
            print(f"| {model.ref}, {entry.provenance['data']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    commands = {"curves": curves, "tables": tables, "modes": modes}
    if wanted not in commands:
        sys.exit(__doc__)
    commands[wanted]()
