"""Whether a document from a file is built as expected, before anything is looked up in it."""

from types import NoneType
from typing import Any

MAYBE = (int, float, NoneType)


def fits(value: Any, form: Any) -> bool:
    """Whether a value from JSON has a form.

    Args:
        form: a type or several; a dictionary: an object with at least these fields, each of its form; a list of one
            form: a list of such. A truth value is no number.
    """
    if isinstance(form, dict):
        return isinstance(value, dict) and all(name in value and fits(value[name], part) for name, part in form.items())
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(one, form[0]) for one in value)
    kinds = form if isinstance(form, tuple) else (form,)
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)
