"""A made-up neuron whose distribution a learner shapes: a skewed hump, and a second one beside it.

The activations are a mixture of a skew-normal distribution (Azzalini 1985) and a normal one, known in closed form but
for median and mode, which are found on a grid.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtr, owens_t
from scipy.stats import norm

from ablation_core.activations.neuron_summary import NeuronSummary

RANGE = (-6.0, 10.0)  # activations shown; holds nearly everything that the sliders allow
ACTIVATIONS = 10_000  # how many the picture stands for
SECOND_WIDTH = 0.5
_GRID = np.linspace(-12.0, 16.0, 28_001)  # steps of 0.001


@dataclass(frozen=True)
class Toy:
    """A neuron's distribution, in activation units.

    Attributes:
        place: where the first hump would have its middle if it did not lean.
        lean: the skew-normal's shape: 0 is a bell, 8 leans strongly to the right, -8 to the left.
        second: the second hump's share of all activations, 0 to 0.5.
        distance: how far the second hump's middle lies above `place`; may be negative.
    """

    place: float = 0.0
    lean: float = 0.0
    second: float = 0.0
    distance: float = 3.0

    def density(self, x: np.ndarray) -> np.ndarray:
        """The probability density at `x`."""
        u = x - self.place
        first = 2 * norm.pdf(u) * ndtr(self.lean * u)
        return (1 - self.second) * first + self.second * norm.pdf(u, self.distance, SECOND_WIDTH)

    def share_below(self, x: np.ndarray) -> np.ndarray:
        """The share of activations up to `x`."""
        u = x - self.place
        first = ndtr(u) - 2 * owens_t(u, self.lean)  # scipy's own skewnorm.cdf takes a thousand times longer
        return (1 - self.second) * first + self.second * ndtr((u - self.distance) / SECOND_WIDTH)

    @property
    def mean(self) -> float:
        return self.place + (1 - self.second) * self._leaning + self.second * self.distance

    @property
    def std(self) -> float:
        first = 1.0  # the skew-normal's mean square about `place`, whatever its shape
        square = (1 - self.second) * first + self.second * (SECOND_WIDTH**2 + self.distance**2)
        return float(np.sqrt(square - (self.mean - self.place) ** 2))

    @property
    def _leaning(self) -> float:
        """The first hump's mean above `place`."""
        return self.lean / np.sqrt(1 + self.lean**2) * np.sqrt(2 / np.pi)

    @property
    def median(self) -> float:
        return float(_GRID[np.searchsorted(self.share_below(_GRID), 0.5)])

    @property
    def peak(self) -> float:
        return float(_GRID[self.density(_GRID).argmax()])

    def share_near(self, value: float, within: float = 0.25) -> float:
        """The share of activations no farther from `value` than `within` standard deviations."""
        low, high = self.share_below(np.array([value - within * self.std, value + within * self.std]))
        return float(high - low)

    def reading(self) -> NeuronSummary:
        """The four values, as `charts` and `frames` take them."""
        values = {"zero": 0.0, "mean": self.mean, "median": self.median, "peak": self.peak}
        return NeuronSummary(values, self.std, 0.0, None, (self.peak, self.peak), 0.0, 0)

    def bars(self, count: int = 120) -> pd.DataFrame:
        """How many of `ACTIVATIONS` fall into each of `count` bins over `RANGE`: columns left, right, count."""
        edges = np.linspace(*RANGE, count + 1)
        counts = np.round(np.diff(self.share_below(edges)) * ACTIVATIONS)
        return pd.DataFrame({"left": edges[:-1], "right": edges[1:], "count": counts})

    def sentence(self) -> str:
        """The distance between peak and mean, and how often the neuron is near each candidate."""
        distance = (self.mean - self.peak) / self.std
        if abs(distance) < 0.05:
            start = "Mean and peak agree"
        else:
            start = f"The mean is {abs(distance):.2f} std {'above' if distance > 0 else 'below'} the peak"
        near = {
            name: self.share_near(value) for name, value in (("zero", 0.0), ("mean", self.mean), ("peak", self.peak))
        }
        rare = near["zero"] < 0.01
        zero = (
            "Zero is a value that this neuron hardly ever takes"
            if rare
            else f"It is near zero {near['zero']:.0%} of the time"
        )
        return f"{start}. {zero}; near its mean {near['mean']:.0%} of the time, near its peak {near['peak']:.0%}."


PRESETS = {
    "Bell around zero": Toy(),
    "Far from zero": Toy(place=5.0),
    "Leaning": Toy(place=1.5, lean=8.0),
    "Two humps": Toy(place=-1.0, second=0.4, distance=4.0),
}
