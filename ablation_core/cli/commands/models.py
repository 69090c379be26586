"""`models`: what is here."""

import argparse
import sys

from ablation_core import bundled
from ablation_core.activations.files import list_statistics
from ablation_core.cli.options import add_output
from ablation_core.loading.packaged import PACKAGED, fetched_folder


def add_options(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--families", action="store_true", help="list the supported families instead, as a table")


def run(parsed: argparse.Namespace) -> tuple[dict, str]:
    if parsed.families:
        return _families()
    entries, problems = list_statistics(parsed.cache_dir)
    for problem in problems:
        print(problem, file=sys.stderr)
    described = {name: ("bundled", bundled.describe(name)) for name in bundled.NAMES}
    for name, model in PACKAGED.items():
        origin = "fetched" if fetched_folder(name, parsed.cache_dir) else f"to fetch: get {name}"
        described[name] = (origin, model.description)
    listed = []
    for name, (origin, description) in described.items():
        data = sorted({entry.provenance["data"] for entry in entries if entry.provenance["model"] == name})
        listed.append({"ref": name, "origin": origin, "description": description, "statistics": data})
    lines = [f"{m['ref']:14} {m['description']}  [statistics: {', '.join(m['statistics']) or 'none'}]" for m in listed]
    return {"models": listed}, "\n".join(lines)


def _families() -> tuple[dict, str]:
    from ablation_core.models.architectures import family_table

    rows = family_table()
    lines = [f"| {' | '.join(row.values())} |" for row in rows]
    return {"families": rows}, "\n".join([f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|", *lines])
