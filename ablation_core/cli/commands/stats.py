"""`stats`: compute activation statistics and keep them."""

import argparse
import sys

from ablation_core.activations.made_from import BINNINGS, FINE_BINS
from ablation_core.cli.measured import load_named, progress_bar
from ablation_core.cli.options import add_data


def add_options(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    parser.add_argument("--bins", type=int, default=FINE_BINS, help="fine bins per neuron (default %(default)s)")
    parser.add_argument("--binning", choices=BINNINGS, default="robust", help="the histograms' range (default robust)")
    parser.add_argument("--keep-first", action="store_true", help="count the first position (BOS, CLS) too")


def run(parsed: argparse.Namespace) -> tuple[dict, str]:
    from ablation_core.activations.collect import compute_statistics
    from ablation_core.activations.files import check_can_save, save_statistics
    from ablation_core.activations.statistics import not_finite_first, not_finite_sentence
    from ablation_core.experiments.provenance import describe_model, describe_statistics

    model, data = load_named(parsed, "statistics")
    check_can_save(model, parsed.cache_dir)
    with progress_bar("statistics", "batch") as progress:
        statistics = compute_statistics(
            model,
            data,
            bins=parsed.bins,
            positions_left_out=0 if parsed.keep_first else None,
            binning=parsed.binning,
            progress=progress,
        )
    path = save_statistics(statistics, parsed.cache_dir)
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
        f"{document['constant']} constant, {document['not_finite']} values not finite\nsaved in {path}"
    )
    if broken := not_finite_sentence(statistics):
        print(f"warning: {broken}", file=sys.stderr)
    return document, text
