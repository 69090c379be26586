"""The errors a user may see. Each message says what was wrong, what was expected and what to do.

Everything else that escapes the core is a defect.
"""

import re


class AblationError(Exception):
    """Something the user asked for cannot be done; the message is a sentence for them."""


class SelectionError(AblationError):
    """A selection that cannot be read, or that names neurons the model does not have."""


class ModelError(AblationError):
    """A model that cannot be found, loaded or hooked."""


class DataError(AblationError):
    """A data set that cannot be found, read or cut into predictions."""


class StatisticsError(AblationError):
    """Statistics that are missing, damaged, or made from something else than what they are used for."""


class MethodError(AblationError):
    """An ablation method that does not exist or does not fit the model."""


class EngineError(AblationError):
    """A cluster that cannot be reached, has no room, or lost what was asked of it."""


def as_markdown(sentence: object) -> str:
    """A sentence with what it quotes shown as it is: an address typed by somebody else must load or link nothing."""
    return re.sub(r"([\\`*_\[\]$<>~|])", r"\\\1", str(sentence))


def a_type(value: object) -> str:
    """The kind of a value with its article, for a sentence: an int, a list."""
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


def shown_name(name: str) -> str:
    """A name from outside, fit to stand in a sentence: no control letters, nothing that Markdown would act on."""
    plain = re.sub(r"[^\w .,/+&'()-]", "?", name)
    return plain if len(plain) <= 80 else f"{plain[:40]}…{plain[-39:]}"


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    line = " ".join(line.strip() for line in lines[:2]) if lines[0].rstrip().endswith(":") else lines[0]
    return (f"{type(error).__name__}: {line}" if isinstance(error, KeyError) else line)[:300]


class ReportError(AblationError):
    """A table or picture that a result does not have."""
