"""What each command of the command line does: parsed arguments → the JSON document and the text for the terminal."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from ablation_core import bundled
from ablation_core.activations import files
from ablation_core.activations.collect import compute_statistics
from ablation_core.activations.statistics import Statistics, not_finite_first, not_finite_sentence
from ablation_core.bundled import fashion_mnist
from ablation_core.cli.text import (
    format_adaptive,
    format_curve,
    format_estimate,
    format_plan,
    format_result,
    format_sweep,
)
from ablation_core.cluster.backend import RayBackend
from ablation_core.cluster.connection import AUTO
from ablation_core.data.dataset import DEFAULT_DATA, STATISTICS_PREDICTIONS, Data, load_data
from ablation_core.data.references import Split
from ablation_core.errors import DataError, EngineError, MethodError, StatisticsError
from ablation_core.experiments.ablation import ablate
from ablation_core.experiments.estimate import estimate
from ablation_core.experiments.estimate_validation import largest_heads, validate_estimate
from ablation_core.experiments.provenance import describe_model, describe_statistics
from ablation_core.loading.load import SPLIT, load_model
from ablation_core.loading.packaged import PACKAGED, fetch_model, fetched_folder
from ablation_core.methods.registry import Method, choose_methods
from ablation_core.models.architectures import family_table
from ablation_core.models.loaded import LoadedModel
from ablation_core.report.neurons import describe_neurons, format_neurons
from ablation_core.runs.adaptive import AdaptiveSpec, adaptive_sweep
from ablation_core.runs.backends import LOCAL, Backend
from ablation_core.runs.paper import ORIGINALS, measured_speed, original_parts, parts_of, run_part
from ablation_core.runs.pruning import CurveSpec, curve
from ablation_core.runs.sweep import SweepSpec, sweep
from ablation_core.selection import Selection
from ablation_core.storage import CACHE


def _load(parsed: argparse.Namespace, split: Split) -> tuple[LoadedModel, Data]:
    model = load_model(parsed.model, parsed.device, parsed.dtype, parsed.cache_dir)
    ref = parsed.data or DEFAULT_DATA[model.modality]
    predictions = parsed.predictions
    if predictions is None:
        predictions = STATISTICS_PREDICTIONS[model.modality] if split == "statistics" else 2000
    data = load_data(ref, model, predictions, parsed.seq_len, parsed.batch_size, parsed.seed, split)
    for note in data.notes:
        print(note, file=sys.stderr)
    return model, data


def models_command(parsed: argparse.Namespace) -> tuple[dict, str]:
    if parsed.families:
        rows = family_table()
        lines = [f"| {' | '.join(row.values())} |" for row in rows]
        return {"families": rows}, "\n".join([f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|", *lines])
    entries, problems = files.list_statistics(parsed.cache_dir)
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


def get_command(parsed: argparse.Namespace) -> tuple[dict, str]:
    if parsed.model == "fashion-mnist":
        if parsed.cache_dir != CACHE:
            raise DataError("fashion-mnist is kept in the project's own cache folder; leave --cache-dir out.")
        path = fashion_mnist.download()
    else:
        path = fetch_model(
            parsed.model, parsed.cache_dir, lambda share, words: print(f"{share:4.0%} {words}", file=sys.stderr)
        )
    return {"ref": parsed.model, "path": str(path)}, f"{parsed.model} is in {path}"


def stats_command(parsed: argparse.Namespace) -> tuple[dict, str]:
    model, data = _load(parsed, "statistics")
    files.check_can_save(model, parsed.cache_dir)
    excluded_positions = 0 if parsed.keep_first else None
    with _bar("statistics", "batch") as progress:
        statistics = compute_statistics(model, data, parsed.bins, excluded_positions, parsed.binning, progress)
    path = files.save_statistics(statistics, parsed.cache_dir)
    document = {
        "model": describe_model(model),
        "statistics": describe_statistics(statistics),
        "neurons": model.shape.neurons,
        "not_finite": int(statistics.not_finite.sum()),
        "not_finite_first_layer": not_finite_first(statistics),
        "constant": int((statistics.minimum == statistics.maximum).sum()),
        "path": str(path),
    }
    text = (
        f"{model.ref}: {model.shape.neurons:,} neurons over {statistics.provenance['tokens']:,} tokens of {data.ref}; "
        f"{document['constant']} constant, {document['not_finite']} values not finite\nkept in {path}"
    )
    if broken := not_finite_sentence(statistics):
        print(f"warning: {broken}", file=sys.stderr)
    return document, text


def _load_measured(parsed: argparse.Namespace) -> tuple[LoadedModel, Data, list[Method], Statistics | None]:
    model, data = _load(parsed, "evaluation")
    path = parsed.statistics
    if path is None and (entry := files.find_statistics(model, data.ref, parsed.cache_dir, data.source)):
        path = entry.path
    statistics = files.load_statistics(path, model) if path else None
    if statistics is None and (others := files.other_statistics(model, data.ref, parsed.cache_dir)):
        print(f"note: {others}", file=sys.stderr)
    if statistics is not None and (broken := not_finite_sentence(statistics)):
        print(f"warning: of the statistics in {path}, {broken}", file=sys.stderr)
    return model, data, choose_methods(parsed.method or ["peak"], model.modality), statistics


@contextmanager
def _bar(words: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, where that is a terminal; yields a function of (done, total)."""
    with tqdm(desc=words, unit=unit, disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _per_cent(progress: Callable[[int, int], None]) -> Callable[[float], None]:
    return lambda share: progress(int(100 * share), 100)


def ablate_command(parsed: argparse.Namespace) -> tuple[dict, str]:
    model, data, methods, statistics = _load_measured(parsed)
    names = [method.name for method in methods]
    with _bar("ablation", "batch") as progress:
        result = ablate(
            model, data, parsed.select, names, statistics, parsed.bins, None, int(parsed.skip_first), progress
        )
    return result.to_dict(), format_result(result)


def neurons_command(parsed: argparse.Namespace) -> tuple[dict, str]:
    model, _, _, statistics = _load_measured(parsed)
    if statistics is None:
        raise StatisticsError(f"There are no statistics of {parsed.model} yet; compute them with the stats command.")
    selection = Selection.parse(parsed.select, model.shape)
    document = describe_neurons(model, statistics, selection, parsed.bins)
    return document, format_neurons(document)


def estimate_command(parsed: argparse.Namespace) -> tuple[dict, str]:
    if parsed.exact < 0:
        raise MethodError(f"The number of heads to ablate must be 0 or more, not {parsed.exact}.")
    model, data, methods, statistics = _load_measured(parsed)
    names, skip_first = [method.name for method in methods], int(parsed.skip_first)
    with _bar("estimate", "batch") as progress:
        result = estimate(model, data, names, statistics, parsed.bins, None, skip_first, parsed.passes, progress)
    document, calibration = result.to_dict(), None
    if parsed.exact:
        with _bar("exact", "head") as progress:
            heads = largest_heads(result, parsed.exact)
            calibration = validate_estimate(model, data, result, statistics, heads, progress=progress)
        document["exact"] = calibration.to_dict()
    return document, format_estimate(result, calibration)


def _engine(parsed: argparse.Namespace) -> Backend:
    """Where a long run is computed."""
    names = ("address", "workers", "cpus_per_worker", "gpus_per_worker", "memory_per_worker")
    if parsed.engine == "local":
        for name in names:
            if getattr(parsed, name) is not None:
                raise EngineError(f"--{name.replace('_', '-')} belongs to --engine ray; name both, or leave it out.")
        return LOCAL
    address, workers, cpus, gpus, memory = (getattr(parsed, name) for name in names)
    return RayBackend(address or AUTO, workers, cpus, gpus or 0.0, memory, parsed.device == SPLIT, parsed.cache_dir)


def sweep_command(parsed: argparse.Namespace) -> tuple[dict, str]:
    engine = _engine(parsed)
    if parsed.adaptive:
        if engine is not LOCAL:
            raise EngineError(
                "--adaptive decides as it goes what to measure next, on this machine; leave --engine out."
            )
        return _adaptive_sweep(parsed)
    if parsed.precision is not None:
        raise DataError("--precision belongs to --adaptive; name both, or leave it out.")
    model, data, methods, statistics = _load_measured(parsed)
    spec = SweepSpec(tuple(methods), parsed.bins)
    with _bar("sweep", "%") as progress:
        result = sweep(model, data, spec, statistics, parsed.cache_dir, _per_cent(progress), engine)
    return result.to_dict(), format_sweep(result)


def _adaptive_sweep(parsed: argparse.Namespace) -> tuple[dict, str]:
    model, data, methods, statistics = _load_measured(parsed)
    spec = AdaptiveSpec(tuple(methods), parsed.bins, precision=parsed.precision)
    with _bar("adaptive sweep, at most", "%") as progress:
        result = adaptive_sweep(
            model, data, spec, statistics, parsed.cache_dir, lambda so_far: progress(round(100 * so_far.taken), 100)
        )
    return result.to_dict(), format_adaptive(result)


def curve_command(parsed: argparse.Namespace) -> tuple[dict, str]:
    engine = _engine(parsed)
    model, data, methods, statistics = _load_measured(parsed)
    seeds, percents = tuple(parsed.seeds), tuple(parsed.percents)
    spec = CurveSpec(tuple(methods), parsed.bins, seeds, percents, parsed.whole_heads)
    with _bar("curve", "%") as progress:
        result = curve(model, data, spec, statistics, parsed.cache_dir, _per_cent(progress), engine)
    return result.to_dict(), format_curve(result)


def reproduce_command(parsed: argparse.Namespace) -> tuple[dict, str]:
    """Models are loaded one at a time: four large ones do not fit together."""
    engine, parts, curves = _engine(parsed), [], []
    if not parsed.models and parsed.dry_run:  # the originals' sizes are known; nothing is loaded for the plan
        parts = original_parts(parsed.data, parsed.predictions)
    else:
        for ref in parsed.models.split(",") if parsed.models else ORIGINALS:
            model = load_model(ref.strip(), parsed.device, parsed.dtype, parsed.cache_dir)
            own = parts_of(model, parsed.data, parsed.predictions)
            parts += own
            for part in () if parsed.dry_run else own:
                with _bar(f"{part.model} on {part.data}", "%") as progress:
                    curves.append(run_part(part, model, parsed.cache_dir, _per_cent(progress), engine))
    speed = measured_speed()
    document = {"speed": speed, "plan": [part.describe(speed) for part in parts]}
    if parsed.dry_run:
        return document, format_plan(parts, speed)
    return document | {"curves": [result.to_dict() for result in curves]}, "\n\n".join(map(format_curve, curves))
