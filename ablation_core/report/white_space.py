"""Tokens and prompts with their white space to be seen: a browser draws many spaces as one, and a line break as none."""

import re
from collections.abc import Iterable

_SPACES = re.compile(" {2,}")


def visible(text: str) -> str:
    r"""A text with its line breaks and runs of spaces as signs.

    >>> visible("“\n    ”"), visible("“ the”")
    ('“⏎␣×4”', '“ the”')
    """
    return _SPACES.sub(lambda run: f"␣×{len(run[0])}", text.replace("\n", "⏎"))


def white_space_words(texts: Iterable[str]) -> str:
    """What the signs of `visible` in these texts mean, as a sentence with a space before it; nothing without any."""
    seen = list(texts)
    words = ["⏎ is a line break"] if any("⏎" in visible(text) for text in seen) else []
    if run := next(filter(None, map(_SPACES.search, seen)), None):
        words.append(f"␣×{len(run[0])} is {len(run[0])} spaces")
    return f" {', '.join(words)}." if words else ""


def legible(token: str) -> str:
    r"""A token that stands alone, with its white space as a sign where it has nothing else.

    >>> legible(" "), legible("\n"), legible(" the"), legible("")
    ('␣', '⏎', ' the', '·')
    """
    return visible(token) if token.strip(" ") else visible(token).replace(" ", "␣") or "·"
