"""`interact`: ablate several heads alone, in pairs and together."""

import argparse

from ablation_core.cli.measured import load_measured, progress_bar, save_named
from ablation_core.cli.options import add_measured, add_positions, add_selection, chosen_positions
from ablation_core.errors import MethodError


def add_options(parser: argparse.ArgumentParser) -> None:
    add_measured(parser)
    add_selection(parser, "3.2 5.0 7.1")
    add_positions(parser)
    parser.add_argument(
        "--metric", help="what changes, such as top1; by default the logit difference on a task, else the loss"
    )


def run(parsed: argparse.Namespace) -> tuple[dict, str]:
    from ablation_core.cli.text.experiments import format_interactions
    from ablation_core.experiments.interactions import interact

    parsed.method = parsed.method or ["mean"]
    model, data, methods, statistics = load_measured(parsed)
    if len(methods) != 1:
        raise MethodError(f"interact takes one method, not {len(methods)}; name one with --method.")
    with progress_bar("interactions", "ablation") as progress:
        result = interact(
            model,
            data,
            parsed.select,
            methods[0].name,
            statistics=statistics,
            bins=parsed.bins,
            positions=chosen_positions(parsed),
            metric=parsed.metric,
            progress=progress,
        )
    save_named(parsed, result)
    return result.to_dict(), format_interactions(result)
