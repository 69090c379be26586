"""Options that several commands have."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ablation_core.errors import DataError, EngineError
from ablation_core.storage import CACHE

if TYPE_CHECKING:
    from ablation_core.runs.backends import Backend


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parser.add_argument("--cache-dir", type=Path, default=CACHE, help="folder of statistics files")


def add_data(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """The model and the data that a command runs it on; `several`: --data is repeatable, and a list."""
    add_output(parser)
    parser.add_argument("model", help="a bundled model, a folder, a Hugging Face id, or timm/<name>")
    parser.add_argument(
        "--data",
        action="append" if several else "store",
        help="data reference, such as text:FILE, jsonl:FILE#COLUMN, csv:, parquet:, folder:, hf:ID, images:FOLDER (default: "
        "python-docs, or fashion-mnist); for text classifiers csv:FILE#TEXT,LABEL",
    )
    parser.add_argument("--predictions", type=int, help="how many are scored (default 2000), or counted by stats")
    parser.add_argument(
        "--seq-len",
        type=int,
        default=128,
        help="tokens per window, or read of each labelled text (default %(default)s)",
    )
    parser.add_argument(
        "--documents",
        action="store_true",
        help="each document begins a window of its own, padded; else they are packed",
    )
    parser.add_argument(
        "--batch-size", type=int, help="sequences at once (default: 8 windows, 16 labelled texts, 64 images)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is random (default %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, …, or split (default %(default)s)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16 (default %(default)s)")


def add_measured(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """The same, with methods and the statistics that they need."""
    from ablation_core.methods.registry import METHODS

    add_data(parser, several)
    parser.add_argument(
        "--method",
        action="append",
        help=f"{', '.join(METHODS)}, or all that need no learning; repeatable, or with commas (default peak)",
        metavar="NAME",
    )
    parser.add_argument("--save", metavar="NAME", help="keep the result under this name (see saved)")
    parser.add_argument("--bins", type=int, default=100, help="bins of the peak (default %(default)s)")
    parser.add_argument(
        "--statistics", help="a statistics file, or the data that they were made from (default: those of --data)"
    )


def add_selection(parser: argparse.ArgumentParser, example: str) -> None:
    parser.add_argument("--select", required=True, help=f'neurons, such as "{example}"')


def add_skip_first(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--skip-first",
        "--spare-first",
        type=int,
        nargs="?",
        const=1,
        default=0,
        metavar="N",
        help="leave the first N positions (BOS, CLS) as they are; 1 without a number",
    )


def add_positions(parser: argparse.ArgumentParser) -> None:
    """Where in each sequence an ablation acts."""
    parser.add_argument(
        "--positions",
        help="all (the default), last, 3, -2, 3-7, 3- (from there on), several by commas; answer in tasks",
    )
    add_skip_first(parser)


def chosen_positions(parsed: argparse.Namespace) -> str:
    """What these options say, in text form.

    Raises:
        DataError: both are named.
    """
    from ablation_core.data.positions import Positions

    if parsed.positions is not None and parsed.skip_first:
        raise DataError("--skip-first N is another way to write --positions N-; name one of them.")
    return parsed.positions if parsed.positions is not None else str(Positions.after(parsed.skip_first))


def add_keep_predictions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep-predictions",
        action="store_true",
        help="keep the changes of single predictions too, for to_frame('predictions')",
    )


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Where a long run is computed."""
    parser.add_argument("--engine", choices=["local", "ray"], default="local", help="this process, or a Ray cluster")
    parser.add_argument("--address", metavar="HOST:PORT", help="the cluster's head (default: the one started here)")
    parser.add_argument("--workers", type=int, metavar="N", help="at most so many (default: as many as have room)")
    parser.add_argument("--cpus-per-worker", type=float, metavar="N", help="default: as many as this process's threads")
    parser.add_argument("--gpus-per-worker", type=float, metavar="N", help="a part of one or several (default 0)")
    parser.add_argument(
        "--memory-per-worker", type=float, metavar="GB", help="of a model that is split, what lies in memory at most"
    )


def chosen_backend(parsed: argparse.Namespace) -> "Backend":
    """What these options say.

    Raises:
        EngineError: an option of the cluster without the cluster.
    """
    from ablation_core.runs.backends import LOCAL

    names = ("address", "workers", "cpus_per_worker", "gpus_per_worker", "memory_per_worker")
    if parsed.engine == "local":
        for name in names:
            if getattr(parsed, name) is not None:
                raise EngineError(f"--{name.replace('_', '-')} belongs to --engine ray; name both, or leave it out.")
        return LOCAL
    from ablation_core.cluster.backend import RayBackend
    from ablation_core.cluster.connection import AUTO
    from ablation_core.loading.load import SPLIT

    address, workers, cpus, gpus, memory = (getattr(parsed, name) for name in names)
    return RayBackend(
        address=address or AUTO,
        workers=workers,
        cpus=cpus,
        gpus=gpus or 0.0,
        memory=memory,
        split=parsed.device == SPLIT,
        cache_dir=parsed.cache_dir,
    )
