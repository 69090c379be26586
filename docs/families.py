"""Tries every family of the installed transformers, and timm's models, on small random models, and writes what became of each to a page.

    python -m docs.families                     all of them, into docs/results/families.md
    python -m docs.families causal              all of one kind, into its section of that page
    python -m docs.families causal gpt2 llama   these alone, printed
    python -m docs.families timm                timm's; of each class, and each set of attentions, the smallest model

Each family is tried in a process of its own with bounded memory, as some configuration classes ignore the sizes they are
given.
"""

import multiprocessing
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path

import timm
import transformers

from tests.models.every_family import KINDS, Outcome, Sizes, try_family
from tests.models.every_timm_model import smallest, try_model

PAGE = Path(__file__).parent / "results" / "families.md"
MEMORY, SECONDS = 12 << 30, 600
TITLES = {
    "causal": "Causal language models",
    "image-text": "Models of texts and images, asked with text alone",
    "masked": "Masked language models",
    "vision": "Image classifiers",
    "text-classification": "Text classifiers",
    "timm": "timm's image classifiers",
}
HEAD = """# Families, as tried

Made by `python -m docs.families` with transformers {version} and timm {timm}: every family is made tiny and random from its own
configuration class ({layers} layers, {heads} heads of {size} neurons, {kv} key and value heads), saved, loaded and
ablated. *Works*: the checks [at the door](../guide/door.md) passed, and in every layer zeroing a head equals zeroing its columns
of the output projection. *Refused*: with this sentence. *Not made*: the class could not be made tiny in this way, which
says nothing about the family. Of timm, where no configuration gives sizes, each class that holds attention is tried in its
smallest model, two blocks deep where the class takes a depth.
"""


def tried(kind: str, family: str) -> Outcome:
    """The outcome, from a process that may die of what it builds."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_try, args=(kind, family, send))
    process.start()
    send.close()
    try:
        outcome = receive.recv() if receive.poll(SECONDS) else Outcome(family, "not made", f"over {SECONDS} seconds")
    except EOFError:
        outcome = Outcome(family, "not made", "its process ended")
    process.kill()
    process.join()
    return outcome


def _try(kind: str, family: str, send: "multiprocessing.connection.Connection") -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        with tempfile.TemporaryDirectory() as folder:
            outcome = try_model(family, Path(folder)) if kind == "timm" else try_family(kind, family, Path(folder))
        if "allocate memory" in outcome.said:
            outcome = Outcome(family, "not made", f"over {MEMORY >> 30} GB")
    except Exception as error:  # noqa: BLE001 - that is what the table is to show
        outcome = Outcome(family, "traceback", f"{type(error).__name__}: {error}")
    send.send(outcome)


def families_of(kind: str) -> list[str]:
    return sorted(smallest().values() if kind == "timm" else KINDS[kind].names)


def section(kind: str, outcomes: list[Outcome]) -> str:
    counts = Counter(outcome.state for outcome in outcomes)
    lines = [f"\n## {TITLES[kind]}\n", ", ".join(f"{count} {state}" for state, count in counts.most_common()) + ".\n"]
    lines += ["| family | | where, or why not |", "|---|---|---|"]
    for outcome in outcomes:
        lines.append(f"| {outcome.family} | {outcome.state} | {outcome.said.splitlines()[0][:400].replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def replaced(page: str, kind: str, outcomes: list[Outcome]) -> str:
    """The page with one kind's section made again."""
    before, _, rest = page.partition(f"\n## {TITLES[kind]}\n")
    _, heading, after = rest.partition("\n## ")
    return before + section(kind, outcomes) + heading + after


def _printed(outcome: Outcome) -> Outcome:
    print(f"{outcome.family:24} {outcome.state:10} {outcome.said.splitlines()[0][:400]}", flush=True)
    return outcome


def main(arguments: list[str]) -> None:
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    if arguments:
        families = arguments[1:] or families_of(arguments[0])
        outcomes = [_printed(tried(arguments[0], family)) for family in families]
        if not arguments[1:]:
            PAGE.write_text(replaced(PAGE.read_text(), arguments[0], outcomes))
        return
    sizes = Sizes()
    page = HEAD.format(
        version=transformers.__version__,
        timm=timm.__version__,
        layers=sizes.layers,
        heads=sizes.heads,
        size=sizes.head_dim,
        kv=sizes.key_value_heads,
    )
    for kind in TITLES:
        outcomes = []
        for family in families_of(kind):
            outcomes.append(tried(kind, family))
            print(kind, outcomes[-1].family, outcomes[-1].state, file=sys.stderr, flush=True)
        page += section(kind, outcomes)
    PAGE.write_text(page)


if __name__ == "__main__":
    main(sys.argv[1:])
