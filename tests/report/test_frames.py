"""Where texts stand above a chart: no stem crosses a text of another value."""

import numpy as np
import pytest

from ablation_core.report.frames import text_places

TEXT = 0.25  # of the axis


def crossings(shares: np.ndarray) -> int:
    """How many stems go through another one's text, by the geometry of the drawing."""
    lanes, rightward = text_places(shares)
    assert sorted(lanes) == list(range(len(shares)))
    found = 0
    for one, place in enumerate(shares):
        start, end = (place, place + TEXT) if rightward[one] else (place - TEXT, place)
        found += sum(lanes[other] > lanes[one] and start < shares[other] < end for other in range(len(shares)))
    return found


@pytest.mark.parametrize(
    "shares",
    [[0.5, 0.49, 0.5, 0.51], [0.0, 0.6, 0.61, 0.62], [1.0, 0.3, 0.28, 0.2], [0.05, 0.2, 0.3, 0.9], [0, 0, 0, 0]],
)
def test_no_stem_crosses_a_text_where_zero_is_far_and_where_all_are_near(shares: list[float]) -> None:
    assert crossings(np.array(shares)) == 0
    rightward = text_places(np.array(shares))[1]
    reach = np.where(rightward, np.add(shares, TEXT), np.subtract(shares, TEXT))
    assert (reach >= 0).all() and (reach <= 1).all(), "no text is cut off"


def test_no_stem_crosses_a_text_wherever_the_values_lie() -> None:
    assert sum(crossings(shares) for shares in np.random.default_rng(0).random((500, 4))) == 0
