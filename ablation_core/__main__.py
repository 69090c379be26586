"""The command line: `python -m ablation_core COMMAND …`, or `ablation-explorer COMMAND …` where it is installed.

Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 1 a request that cannot be
met (one sentence says why), 2 wrong usage.
"""

import json
import os
import sys
from contextlib import suppress

from ablation_core.cli.parser import build_parser
from ablation_core.errors import AblationError
from ablation_core.runtime import prepare_process


def main(arguments: list[str] | None = None, program: str = "python -m ablation_core") -> int:
    prepare_process()  # before a command imports torch
    parser, arguments = build_parser(program), sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    if empty := [argument for argument in arguments if argument.startswith("--") and argument.endswith("=--")]:
        parser.error(f"{empty[0]} names no value")  # argparse would give an empty list, whatever the option's type
    parsed = parser.parse_args(arguments)
    try:
        document, text = parsed.run(parsed)
        _put_out(json.dumps(document, indent=2, allow_nan=False) if parsed.json else text)
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


def _put_out(text: str) -> None:
    """Print a result.

    Raises:
        AblationError: standard output is closed, or cannot be written to, as on a full disk.
        BrokenPipeError: its reader has gone.
    """
    if sys.stdout is None:
        raise AblationError(
            "The result cannot be printed: standard output is closed. It was computed; --save keeps one."
        )
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        with suppress(OSError, ValueError):  # what is left of it would be tried again at the end of the process
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise AblationError(
            f"The result cannot be printed: {error.strerror}. It was computed; --save keeps one."
        ) from error


def script() -> int:
    """What the installed command `ablation-explorer` runs."""
    return main(program="ablation-explorer")


if __name__ == "__main__":
    sys.exit(main())
