"""White space as signs: the examples that its functions show."""

import doctest

from ablation_core.report import white_space


def test_its_examples() -> None:
    assert doctest.testmod(white_space).attempted == 2 and doctest.testmod(white_space).failed == 0
