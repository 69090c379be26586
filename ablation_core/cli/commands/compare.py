"""`compare`: every head's effect on two data sets, or in two models, and the difference."""

import argparse

from ablation_core.cli.measured import check_save, load_part, progress_bar, save_named
from ablation_core.cli.options import add_measured, add_positions, chosen_positions
from ablation_core.errors import DataError, MethodError
from ablation_core.progress import in_per_cent


def add_options(parser: argparse.ArgumentParser) -> None:
    add_measured(parser, several=True)
    add_positions(parser)
    parser.add_argument(
        "--with",
        dest="other",
        metavar="MODEL",
        help="a second model with the same tokenizer and shape; random: the same architecture with random weights",
    )
    parser.add_argument("--select", help='these heads only, such as "3.2 5.*" (default: all)')


def run(parsed: argparse.Namespace) -> tuple[dict, str]:
    from ablation_core.cli.text.runs import format_comparison
    from ablation_core.loading.load import load_model
    from ablation_core.runs.compare import RANDOM, compare

    refs, methods = parsed.data or [], parsed.method or ["mean"]
    if len(methods) != 1 or methods == ["all"]:
        raise MethodError("compare takes one method; name one with --method.")
    if len(refs) != 2 and parsed.other is None:
        raise DataError("compare needs two data sets, --data A --data B; or one and a second model, --with MODEL.")
    if len(refs) > 1 and parsed.other is not None:
        raise DataError("With a second model there is one data set for both; name --data once.")
    check_save(parsed)
    model = load_model(parsed.model, parsed.device, parsed.dtype, parsed.cache_dir)
    data = [load_part(parsed, model, ref, "evaluation") for ref in refs or [None]]
    other = parsed.other
    if other not in (None, RANDOM):
        other = load_model(other, parsed.device, parsed.dtype, parsed.cache_dir)
    with progress_bar("comparison", "%") as progress:
        result = compare(
            model,
            data,
            methods[0],
            other=other,
            statistics=parsed.statistics,
            heads=parsed.select,
            bins=parsed.bins,
            seed=parsed.seed,
            positions=chosen_positions(parsed),
            cache=parsed.cache_dir,
            progress=in_per_cent(progress),
        )
    save_named(parsed, result)
    return result.to_dict(), format_comparison(result)
