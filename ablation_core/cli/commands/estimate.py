"""`estimate`: every head's and neuron's effect at once, without ablating any; with `--exact`, beside exact values."""

import argparse

from ablation_core.cli.measured import load_measured, progress_bar, save_named
from ablation_core.cli.options import add_measured, add_positions, chosen_positions
from ablation_core.errors import MethodError


def add_options(parser: argparse.ArgumentParser) -> None:
    add_measured(parser)
    add_positions(parser)
    parser.add_argument(
        "--exact", type=int, default=0, help="ablate the N heads of the greatest estimates and compare", metavar="N"
    )
    parser.add_argument("--passes", type=int, default=7, help="random passes per batch (default %(default)s)")


def run(parsed: argparse.Namespace) -> tuple[dict, str]:
    from ablation_core.cli.text.experiments import format_estimate
    from ablation_core.experiments.estimate import estimate
    from ablation_core.experiments.estimate_validation import largest_heads, validate_estimate

    if parsed.exact < 0:
        raise MethodError(f"The number of heads to ablate must be 0 or more, not {parsed.exact}.")
    model, data, methods, statistics = load_measured(parsed)
    with progress_bar("estimate", "batch") as progress:
        result = estimate(
            model,
            data,
            [method.name for method in methods],
            statistics=statistics,
            bins=parsed.bins,
            positions=chosen_positions(parsed),
            passes=parsed.passes,
            progress=progress,
        )
    save_named(parsed, result)
    document, validation = result.to_dict(), None
    if parsed.exact:
        with progress_bar("exact", "head") as progress:
            heads = largest_heads(result, parsed.exact)
            validation = validate_estimate(model, data, result, statistics, heads, progress=progress)
        document["exact"] = validation.to_dict()
    return document, format_estimate(result, validation)
