"""Tokens and prompts with their white space to be seen: a browser draws many spaces as one, and a line break as none."""

import re
from collections.abc import Iterable

_SPACES = re.compile(" {2,}")


def visible(text: str) -> str:
    r"""A text with its line breaks, tabs and runs of spaces as signs.

    >>> visible("“\n    ”"), visible("“\t”"), visible("“ the”")
    ('“⏎␣×4”', '“⇥”', '“ the”')
    """
    return _SPACES.sub(lambda run: f"␣×{len(run[0])}", text.replace("\n", "⏎").replace("\t", "⇥"))


def white_space_words(texts: Iterable[str]) -> str:
    """What the signs of `visible` in these texts mean, as a sentence with a space before it; nothing without any."""
    seen = list(texts)
    shown = "".join(map(visible, seen))
    words = [f"{sign} is a {name}" for sign, name in {"⏎": "line break", "⇥": "tab"}.items() if sign in shown]
    if run := next(filter(None, map(_SPACES.search, seen)), None):
        words.append(f"␣×{len(run[0])} is {len(run[0])} spaces")
    return f" {', '.join(words)}." if words else ""


def legible(token: str) -> str:
    r"""A token that stands alone, with its white space as a sign where it has nothing else.

    >>> legible(" "), legible("\n"), legible(" the"), legible("")
    ('␣', '⏎', ' the', '·')
    """
    shown = visible(token)
    return shown if shown.strip() else "␣" if shown else "·"
