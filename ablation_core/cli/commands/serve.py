"""`serve`: offer the explorer to other programs. Does not end until the other side closes its end."""

import argparse
import sys

from ablation_core.server.mcp import build_server


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mcp", action="store_true", required=True, help="by the Model Context Protocol, on standard input and output"
    )


def run(parsed: argparse.Namespace) -> tuple[dict, str]:
    build_server().run("stdio")
    sys.exit(0)  # standard output was the protocol's: nothing is printed there
