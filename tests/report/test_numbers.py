"""How numbers are written: signs, zeros, percentage points, missing values."""

import doctest

import pytest

from ablation_core.report import numbers
from ablation_core.report.numbers import amount, interval_text, number, p_text, span_text


def test_the_examples_in_the_docstrings() -> None:
    assert doctest.testmod(numbers).failed == 0


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (-1.5, "+.1f", "−1.5"), (1.5, "+.1f", "+1.5"), (-0.0, "+.4f", "0.0000"), (-0.00004, "+.4f", "0.0000"),
        (0.00004, "+.4f", "0.0000"), (-0.00004, ".4g", "−4e−05"), (0.0123, "+.2%", "+1.23 pp"), (-0.5, "+.1%", "−50.0 pp"),
        (-0.000001, "+.1%", "0.0 pp"), (0.5, ".1%", "50.0%"), (float("nan"), ".2f", "–"), (None, ".2f", "–"),
        (float("inf"), ".2f", "∞"), (float("-inf"), ".2f", "−∞"),
    ],
)  # fmt: skip
def test_a_number(value: float | None, form: str, text: str) -> None:
    assert number(value, form) == text


def test_intervals_spans_and_sizes() -> None:
    assert interval_text(-0.01, -0.02, 0.003, "+.2f") == "−0.01 [−0.02, 0.00]"
    assert interval_text(-0.01, None, None, "+.2f") == "−0.01"
    assert span_text(-0.001, 0.2, "+.2f") == "0.00 to +0.20"
    assert amount(-0.2, "+.2f") == "0.20" == amount(0.2, "+.2f")
    assert p_text(0.0009) == "p < 0.001" and p_text(0.001) == "p = 0.001" and p_text(float("nan")) == ""
