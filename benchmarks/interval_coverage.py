"""How often a 95% interval holds the truth, with few sequences: `python -m benchmarks.interval_coverage`.

2,000 trials each of 5, 8, 16 and 40 sequences of one prediction, normal and exponential (skewed). Prints a table.
"""

from collections.abc import Callable

import numpy as np

from ablation_core.stats.intervals import mean_intervals

TRIALS, SIZES = 2000, (5, 8, 16, 40)


def coverage(draw: Callable[[int], np.ndarray], size: int) -> float:
    """The share of trials whose interval holds the mean of `draw`'s distribution, which is 0."""
    held = 0
    for trial in range(TRIALS):
        (interval,) = mean_intervals(draw(size)[None], np.arange(size), trial)
        held += interval.low <= 0 <= interval.high
    return held / TRIALS


def main() -> None:
    generator = np.random.default_rng(1)
    draws = {"normal": lambda n: generator.normal(0, 1, n), "exponential": lambda n: generator.exponential(1, n) - 1}
    print("| changes |" + "".join(f" {size} sequences |" for size in SIZES) + "\n|---|" + "---|" * len(SIZES))
    for name, draw in draws.items():
        print(f"| {name} |" + "".join(f" {coverage(draw, size):.1%} |" for size in SIZES), flush=True)


if __name__ == "__main__":
    main()
