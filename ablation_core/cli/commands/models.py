"""`models`: what is here."""

import argparse
import sys

from ablation_core.activations.files import list_statistics
from ablation_core.cli.options import add_output
from ablation_core.storage import PUBLISHED


def add_options(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--families", action="store_true", help="list the supported families instead, as a table")


def run(parsed: argparse.Namespace) -> tuple[dict, str]:
    if parsed.families:
        return _families()
    from ablation_core.server.models_here import list_models

    entries, problems = list_statistics(parsed.cache_dir)
    for problem in problems:
        print(problem, file=sys.stderr)
    if parsed.cache_dir != PUBLISHED:
        entries += list_statistics(PUBLISHED)[0]
    listed = []
    for model in list_models(parsed.cache_dir):
        here = not model.origin.startswith("to fetch")
        data = sorted({entry.provenance["data"] for entry in entries if entry.provenance["model"] == model.ref})
        origin = model.origin if here else f"to fetch: get {model.ref}"
        described = {"ref": model.ref, "origin": origin, "here": here, "description": model.description}
        listed.append(described | {"statistics": data})
    return {"models": listed}, "\n".join(_lines(listed))


def _lines(listed: list[dict]) -> list[str]:
    """What is here, apart from what can be fetched."""
    width, lines = max(len(model["ref"]) for model in listed), []
    for here, heading in ((True, "Here:"), (False, "To fetch, with python -m ablation_core get NAME:")):
        some = [model for model in listed if model["here"] == here]
        lines += [heading] if some else []
        for model in some:
            statistics = f"  [statistics: {', '.join(model['statistics']) or 'none'}]" if here else ""
            origin = f", {model['origin']}" if here else ""
            lines.append(f"  {model['ref']:{width}}  {model['description']}{origin}{statistics}")
    return lines


def _families() -> tuple[dict, str]:
    from ablation_core.models.architectures import family_table

    rows = family_table()
    lines = [f"| {' | '.join(row.values())} |" for row in rows]
    return {"families": rows}, "\n".join([f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|", *lines])
