"""The normal and Student's t distribution, as `scipy.stats` has them, to the last bit: that package takes a second to load.

norm.ppf(0.975)   # 1.9599639845400545
t.sf(2.0, 10)     # P(T > 2) with 10 degrees of freedom
"""

from typing import Any

import scipy  # its parts load when first used: `scipy.special` takes longer than the whole first page of the app


class _Normal:
    """`scipy.stats.norm`, standard."""

    @staticmethod
    def cdf(x: Any) -> Any:
        return scipy.special.ndtr(x)

    @staticmethod
    def ppf(share: Any) -> Any:
        return scipy.special.ndtri(share)


class _StudentsT:
    """`scipy.stats.t`."""

    @staticmethod
    def cdf(x: Any, freedom: Any) -> Any:
        return scipy.special.stdtr(freedom, x)

    @staticmethod
    def sf(x: Any, freedom: Any) -> Any:
        return scipy.special.stdtr(freedom, -x)

    @staticmethod
    def ppf(share: Any, freedom: Any) -> Any:
        return scipy.special.stdtrit(freedom, share)

    @staticmethod
    def isf(share: Any, freedom: Any) -> Any:
        return -scipy.special.stdtrit(freedom, share)


norm, t = _Normal, _StudentsT
