"""`ablate`: ablate neurons and measure the change."""

import argparse

from ablation_core.cli.measured import load_measured, progress_bar, save_named
from ablation_core.cli.options import add_measured, add_positions, add_selection, chosen_positions


def add_options(parser: argparse.ArgumentParser) -> None:
    add_measured(parser)
    add_selection(parser, "3.2 5.0:1-4")
    add_positions(parser)


def run(parsed: argparse.Namespace) -> tuple[dict, str]:
    from ablation_core.cli.text.experiments import format_result
    from ablation_core.experiments.ablation import ablate

    model, data, methods, statistics = load_measured(parsed)
    with progress_bar("ablation", "batch") as progress:
        result = ablate(
            model,
            data,
            parsed.select,
            [method.name for method in methods],
            statistics=statistics,
            bins=parsed.bins,
            positions=chosen_positions(parsed),
            progress=progress,
        )
    save_named(parsed, result)
    return result.to_dict(), format_result(result)
