"""The same numbers as scipy.stats gives, to the last bit, also at the ends and where there is no number."""

import numpy as np
import scipy.stats

from ablation_core.stats.distributions import norm, t

PLACES = np.array([-np.inf, -40.0, -8.3, -1.96, -1e-9, 0.0, 0.3, 2.0, 12.5, 700.0, np.inf, np.nan])
SHARES = np.array([0.0, 1e-300, 1e-12, 0.025, 0.3, 0.5, 0.975, 1 - 1e-12, 1.0, np.nan])
FREEDOMS = np.array([0.5, 1.0, 2.0, 4.7, 39.0, 1e6])[:, None]


def test_normal() -> None:
    np.testing.assert_array_equal(norm.cdf(PLACES), scipy.stats.norm.cdf(PLACES))
    np.testing.assert_array_equal(norm.ppf(SHARES), scipy.stats.norm.ppf(SHARES))


def test_students_t() -> None:
    finite, inside = PLACES[1:-2], SHARES[1:-2]
    for name, values in (("cdf", finite), ("sf", finite), ("ppf", inside), ("isf", inside)):
        expected = getattr(scipy.stats.t, name)(values, FREEDOMS)
        np.testing.assert_array_equal(getattr(t, name)(values, FREEDOMS), expected, err_msg=name)


def test_what_is_no_number_stays_none() -> None:
    assert np.isnan(t.sf(np.nan, 5)) and np.isnan(norm.ppf(1.5)) and np.isnan(t.ppf(0.5, np.nan))
    assert t.sf(np.inf, 5) == 0 and norm.ppf(0.0) == -np.inf
