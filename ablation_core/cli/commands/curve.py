"""`curve`: ablate more and more random neurons."""

import argparse

from ablation_core.cli.measured import load_measured, progress_bar, save_named
from ablation_core.cli.options import (
    add_backend,
    add_keep_predictions,
    add_measured,
    add_positions,
    chosen_backend,
    chosen_positions,
)
from ablation_core.progress import in_per_cent


def add_options(parser: argparse.ArgumentParser) -> None:
    add_measured(parser)
    add_positions(parser)
    add_backend(parser)
    parser.add_argument("--seeds", type=int, nargs="+", help="orders of the neurons (default 42 123 456)")
    parser.add_argument("--percents", type=int, nargs="+", help="steps (default 0 10 … 100)")
    parser.add_argument("--whole-heads", action="store_true", help="draw heads instead of neurons")
    add_keep_predictions(parser)


def run(parsed: argparse.Namespace) -> tuple[dict, str]:
    backend = chosen_backend(parsed)
    from ablation_core.cli.text.curves import format_curve
    from ablation_core.runs.pruning import PERCENTS, SEEDS
    from ablation_core.runs.whole_runs import curve

    model, data, methods, statistics = load_measured(parsed)
    with progress_bar("curve", "%") as progress:
        result = curve(
            model,
            data,
            [method.name for method in methods],
            statistics=statistics,
            seeds=SEEDS if parsed.seeds is None else parsed.seeds,
            percents=PERCENTS if parsed.percents is None else parsed.percents,
            whole_heads=parsed.whole_heads,
            bins=parsed.bins,
            positions=chosen_positions(parsed),
            keep_predictions=parsed.keep_predictions,
            cache=parsed.cache_dir,
            backend=backend,
            progress=in_per_cent(progress),
        )
    save_named(parsed, result)
    return result.to_dict(), format_curve(result)
