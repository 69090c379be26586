"""`sweep`: ablate every head, one at a time."""

import argparse
from typing import Any

from ablation_core.cli.measured import load_measured, progress_bar, save_named
from ablation_core.cli.options import (
    add_backend,
    add_keep_predictions,
    add_measured,
    add_positions,
    chosen_backend,
    chosen_positions,
)
from ablation_core.errors import DataError, EngineError
from ablation_core.progress import in_per_cent


def add_options(parser: argparse.ArgumentParser) -> None:
    add_measured(parser)
    add_positions(parser)
    add_backend(parser)
    parser.add_argument("--select", help='these heads only, such as "3.2 5.*" (default: all)')
    parser.add_argument(
        "--by-position",
        action="store_true",
        help="a map: each head at one position at a time, at every one of --positions",
    )
    parser.add_argument("--whole-layers", action="store_true", help="with --by-position: each layer as a whole")
    parser.add_argument(
        "--adaptive", action="store_true", help="give each head only as many predictions as its verdict needs"
    )
    parser.add_argument(
        "--precision",
        type=float,
        metavar="NATS",
        help="with --adaptive: a surely smaller change needs no more predictions",
    )
    add_keep_predictions(parser)


def run(parsed: argparse.Namespace) -> tuple[dict, str]:
    if parsed.precision is not None and not parsed.adaptive:
        raise DataError("--precision belongs to --adaptive; name both, or leave it out.")
    if parsed.whole_layers and not parsed.by_position:
        raise DataError("--whole-layers belongs to --by-position; name both, or leave it out.")
    if parsed.keep_predictions and parsed.adaptive:
        raise DataError("--adaptive gives each head other predictions; leave --keep-predictions or --adaptive out.")
    if parsed.adaptive and parsed.by_position:
        raise DataError("--adaptive decides about heads at all positions together; leave it or --by-position out.")
    if parsed.adaptive and parsed.engine != "local":
        raise EngineError("--adaptive decides as it goes what to measure next, on this machine; leave --engine out.")
    backend = chosen_backend(parsed)
    from ablation_core.cli.text.runs import format_adaptive, format_position_map, format_sweep
    from ablation_core.runs.maps.position_map import position_map
    from ablation_core.runs.whole_runs import sweep

    model, data, methods, statistics = load_measured(parsed)
    common = {
        "method": [method.name for method in methods],
        "statistics": statistics,
        "bins": parsed.bins,
        "positions": chosen_positions(parsed),
        "cache": parsed.cache_dir,
        "keep_predictions": parsed.keep_predictions,
    }
    result: Any  # of three kinds, each with its own text
    if parsed.by_position:
        with progress_bar("map by position", "%") as progress:
            rows = {"select": parsed.select, "whole_layers": parsed.whole_layers}
            result = position_map(model, data, **common, **rows, backend=backend, progress=in_per_cent(progress))
        text = format_position_map(result)
    elif parsed.adaptive:
        with progress_bar("adaptive sweep, at most", "%") as progress:
            decided = {"heads": parsed.select, "precision": parsed.precision}
            result = sweep(model, data, **common, **decided, adaptive=True, progress=in_per_cent(progress))
        text = format_adaptive(result)
    else:
        with progress_bar("sweep", "%") as progress:
            result = sweep(model, data, **common, heads=parsed.select, backend=backend, progress=in_per_cent(progress))
        text = format_sweep(result)
    save_named(parsed, result)
    return result.to_dict(), text
