"""`reproduce`: the paper's experiment, or its plan. Models are loaded one at a time: four large ones do not fit together."""

import argparse

from ablation_core.cli.measured import progress_bar
from ablation_core.cli.options import add_backend, add_output, chosen_backend
from ablation_core.progress import in_per_cent


def add_options(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    add_backend(parser)
    parser.add_argument("what", choices=["paper"])
    parser.add_argument("--models", help="these instead of the paper's four, separated by commas")
    parser.add_argument("--data", action="append", default=[], help="data references; repeatable")
    parser.add_argument("--predictions", type=int, help="default: the paper's 100,000 tokens or 1,000 images")
    parser.add_argument("--dry-run", action="store_true", help="print what would run, with estimated memory and time")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")


def run(parsed: argparse.Namespace) -> tuple[dict, str]:
    backend, parts, curves = chosen_backend(parsed), [], []
    from ablation_core.cli.text.curves import format_curve, format_plan
    from ablation_core.loading.load import load_model
    from ablation_core.runs.paper import ORIGINALS, measured_speed, original_parts, parts_of, run_part

    if parsed.models is None and parsed.dry_run:  # the originals' sizes are known; nothing is loaded for the plan
        parts = original_parts(parsed.data, parsed.predictions)
    else:
        for ref in parsed.models.split(",") if parsed.models is not None else ORIGINALS:
            model = load_model(ref.strip(), parsed.device, parsed.dtype, parsed.cache_dir)
            own = parts_of(model, parsed.data, parsed.predictions)
            parts += own
            for part in () if parsed.dry_run else own:
                with progress_bar(f"{part.model} on {part.data}", "%") as progress:
                    curves.append(run_part(part, model, parsed.cache_dir, in_per_cent(progress), backend))
    speed = measured_speed()
    document = {"speed": speed, "plan": [part.describe(speed) for part in parts]}
    if parsed.dry_run:
        return document, format_plan(parts, speed)
    return document | {"curves": [result.to_dict() for result in curves]}, "\n\n".join(map(format_curve, curves))
