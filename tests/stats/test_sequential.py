"""False discoveries, against scipy's own."""

import numpy as np
from scipy.stats import false_discovery_control

from ablation_core.stats.sequential import adjusted, significant


def test_p_values_are_adjusted_as_scipy_does() -> None:
    draws = np.random.default_rng(0)
    for changes in (1, 2, 7, 36, 270):
        for digits in (1, 3, 16):  # few: many ties
            p = np.round(draws.random(changes) ** 3, digits)
            assert (adjusted(p) == false_discovery_control(p)).all()
    assert adjusted(np.zeros(0)).size == 0


def test_what_has_no_p_value_counts_as_showing_nothing() -> None:
    p = np.array([0.001, np.nan, 0.03, 1.7])
    assert adjusted(p).tolist() == false_discovery_control([0.001, 1.0, 0.03, 1.0]).tolist() == [0.004, 1.0, 0.06, 1.0]
    assert significant(p).tolist() == [True, False, False, False]
