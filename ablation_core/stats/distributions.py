"""The normal and Student's t distribution, as `scipy.stats` has them, to the last bit: that package takes a second to load.

norm.ppf(0.975)   # 1.9599639845400545
t.sf(2.0, 10)     # P(T > 2) with 10 degrees of freedom
"""

from typing import Any

from scipy.special import ndtr, ndtri, stdtr, stdtrit


class _Normal:
    """`scipy.stats.norm`, standard."""

    @staticmethod
    def cdf(x: Any) -> Any:
        return ndtr(x)

    @staticmethod
    def ppf(share: Any) -> Any:
        return ndtri(share)


class _StudentsT:
    """`scipy.stats.t`."""

    @staticmethod
    def cdf(x: Any, freedom: Any) -> Any:
        return stdtr(freedom, x)

    @staticmethod
    def sf(x: Any, freedom: Any) -> Any:
        return stdtr(freedom, -x)

    @staticmethod
    def ppf(share: Any, freedom: Any) -> Any:
        return stdtrit(freedom, share)

    @staticmethod
    def isf(share: Any, freedom: Any) -> Any:
        return -stdtrit(freedom, share)


norm, t = _Normal, _StudentsT
