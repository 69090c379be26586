"""`neurons`: the figures of neurons' distributions."""

import argparse

from ablation_core.cli.measured import load_measured
from ablation_core.cli.options import add_measured, add_selection
from ablation_core.errors import StatisticsError


def add_options(parser: argparse.ArgumentParser) -> None:
    add_measured(parser)
    add_selection(parser, "3.2:5")


def run(parsed: argparse.Namespace) -> tuple[dict, str]:
    from ablation_core.report.heads.neurons import describe_neurons, format_neurons

    model, _, _, statistics = load_measured(parsed)
    if statistics is None:
        raise StatisticsError(f"There are no statistics of {parsed.model} yet; compute them with the stats command.")
    document = describe_neurons(model, statistics, parsed.select, bins=parsed.bins)
    return document, format_neurons(document)
