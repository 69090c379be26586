"""Numbers as the pages, the report and the charts write them: one minus sign, no minus before a zero, "pp" for points."""

import math
from collections.abc import Mapping
from typing import Any

from ablation_core.data.references import is_task

NONE = "–"  # where there is no number
_MINUS = "−"


def number(value: float | None, form: str) -> str:
    """A number in a format of Python's; a signed percentage is a difference of shares, so it is in percentage points.

        >>> number(-0.0123, "+.2%"), number(-0.00001, "+.4f"), number(0.25, ".0%"), number(None, ".3f")
        ('−1.23 pp', '0.0000', '25%', '–')

    Args:
        form: such as "+.4f"; a plus means that the value is a change.
    """
    if value is None or not math.isfinite(value):
        return NONE if value is None or math.isnan(value) else ("∞" if value > 0 else f"{_MINUS}∞")
    points = is_points(form)
    text = format(100 * value, form[:-1] + "f") if points else format(value, form)
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")
    return text.replace("-", _MINUS) + (" pp" if points else "")


def sample_unit(modality: str, otherwise: str = "predictions") -> str:
    """What is counted, and resampled: an image, or a text that is classified, is one prediction.

    >>> sample_unit("vision"), sample_unit("causal"), sample_unit("causal", "sequences")
    ('images', 'predictions', 'sequences')
    """
    return {"vision": "images", "text-classification": "texts"}.get(modality, otherwise)


def sample_of(model: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """How much of a data set was measured, from a result's description of model and data.

    >>> sample_of({"modality": "vision"}, {"ref": "fashion-mnist", "predictions": 1000})
    '1,000 images'
    >>> sample_of({"modality": "causal"}, {"ref": "task:induction", "predictions": 100})
    '100 prompts'
    """
    return f"{data['predictions']:,} {'prompts' if is_task(data['ref']) else sample_unit(model.get('modality', ''))}"


def is_points(form: str) -> bool:
    """Whether a format is of differences of shares, which are shown in percentage points."""
    return form.startswith("+") and form.endswith("%")


def interval_text(mean: float | None, low: float | None, high: float | None, form: str) -> str:
    """A mean with its 95% interval in brackets, where it has one.

    >>> interval_text(0.05, 0.01, 0.09, "+.2f"), interval_text(0.05, None, None, "+.2f")
    ('+0.05 [+0.01, +0.09]', '+0.05')
    """
    text = number(mean, form)
    return text if low is None or high is None else f"{text} [{number(low, form)}, {number(high, form)}]"


def span_text(low: float, high: float, form: str) -> str:
    """
    >>> span_text(-0.01, 0.02, "+.3f")
    '−0.010 to +0.020'
    """
    return f"{number(low, form)} to {number(high, form)}"


def amount(value: float, form: str) -> str:
    """The size of a change, for sentences whose verb says its direction.

    >>> amount(-0.05, "+.4f"), amount(0.0123, "+.2%")
    ('0.0500', '1.23 pp')
    """
    return number(abs(value), form).lstrip("+")


def p_text(p: float | None, name: str = "p") -> str:
    """A p-value, or another probability by its name.

    >>> p_text(0.0343), p_text(0.00001), p_text(0.2, "q"), p_text(None)
    ('p = 0.034', 'p < 0.001', 'q = 0.200', '')
    """
    if p is None or math.isnan(p):
        return ""
    return f"{name} < 0.001" if p < 0.001 else f"{name} = {p:.3f}"
