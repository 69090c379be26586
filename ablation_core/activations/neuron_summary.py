"""What a neuron's distribution looks like, in numbers and in a sentence. Reads statistics, knows no model."""

from dataclasses import dataclass

import numpy as np

from ablation_core.activations.statistics import Statistics
from ablation_core.stats.intervals import TAILS

DRAWS = 200
MODE_BINS = 60  # coarse enough that sampling noise does not make modes
MODE_PROMINENCE = 0.1  # of the highest one


@dataclass(frozen=True)
class NeuronSummary:
    """One neuron's shape.

    Attributes:
        values: zero, mean, median and peak, in activation units.
        std: the standard deviation.
        skew: the third standardised moment, of what lies within the histogram's range.
        second_mode: where a second mode lies, or None.
        peak_range: where the peak falls in 95 % of samples of as many tokens drawn from the histogram. Tokens are
            drawn independently, so that the true uncertainty is rather greater.
        outside: the share of values beyond the histogram's range.
        not_finite: how many values were NaN or infinite.
    """

    values: dict[str, float]
    std: float
    skew: float
    second_mode: float | None
    peak_range: tuple[float, float]
    outside: float
    not_finite: int

    def distance_in_std(self, one: str, other: str) -> float:
        """How far a value lies above another, in standard deviations; 0 for a constant neuron."""
        return (self.values[one] - self.values[other]) / self.std if self.std > 0 else 0.0

    @property
    def sentence(self) -> str:
        """The shape in words."""
        broken = f"{self.not_finite:,} values were NaN or infinite and are left out" if self.not_finite else ""
        if np.isnan(self.std):
            return f"Nothing to describe: {broken or 'no value was counted'}."
        if self.std == 0:
            return f"Constant: it was {self.values['mean']:.4g} on every token" + (f"; {broken}." if broken else ".")
        parts = [_skew_words(self.skew)]
        if self.second_mode is not None:
            parts.append(f"a second mode near {self.second_mode:.3g}")
        parts.append(
            f"the peak lies {_distance(self.distance_in_std('peak', 'mean'), 'the mean')} and "
            f"{_distance(self.distance_in_std('peak', 'zero'), 'zero')}"
        )
        low, high = self.peak_range
        width = (high - low) / self.std
        sure = "well determined" if width <= 0.25 else "roughly determined" if width <= 0.75 else "poorly determined"
        parts.append(f"the peak is {sure} (95 % of resamples: {low:.3g} to {high:.3g}, {width:.2f} std wide)")
        if broken:
            parts.append(broken)
        text = "; ".join(parts)
        return text[0].upper() + text[1:] + "."


def summarise_neuron(
    statistics: Statistics, layer: int, head: int, neuron: int, bins: int, seed: int = 0
) -> NeuronSummary:
    """Read one neuron's shape at a binning of the peak."""
    at = (layer, head, neuron)
    edges, counts = statistics.histogram(*at, bins=bins)
    mean, std = float(statistics.mean[at]), float(statistics.std[at])
    varies = std > 0
    values = {
        "zero": 0.0,
        "mean": mean,
        "median": float(statistics.median()[at]),
        "peak": float(statistics.peak(bins)[at]),
    }
    return NeuronSummary(
        values=values,
        std=std,
        skew=float(skew(*statistics.histogram(*at, bins=statistics.bins))) if varies else 0.0,
        second_mode=_second_mode(*statistics.histogram(*at, bins=min(MODE_BINS, statistics.bins))) if varies else None,
        peak_range=_peak_range(edges, counts, seed) if varies else (values["peak"], values["peak"]),
        outside=float(statistics.outside()[at]),
        not_finite=int(statistics.not_finite[at]),
    )


def peak_distance(statistics: Statistics, bins: int) -> np.ndarray:
    """How far each neuron's peak lies from its mean, in standard deviations, signed; 0 for constant neurons."""
    distance = statistics.peak(bins) - statistics.mean
    return np.divide(distance, statistics.std, out=np.zeros_like(distance), where=statistics.std > 0)


def skew(edges: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The third standardised moment of histograms, (…); 0 where nothing varies.

    Args:
        edges: (bins + 1,), in any unit.
        counts: (…, bins).
    """
    centres, total = (edges[1:] + edges[:-1]) / 2, np.maximum(counts.sum(-1), 1)
    mean = (centres * counts).sum(-1) / total
    off = centres - mean[..., None]
    variance = (off**2 * counts).sum(-1) / total
    moment = (off**3 * counts).sum(-1) / total
    return np.divide(moment, variance**1.5, out=np.zeros_like(moment), where=variance > 0)


def smooth_for_modes(counts: np.ndarray) -> np.ndarray:
    """Histograms, (…, bins), smoothed so that sampling noise makes no modes, with an empty bin at each end."""
    from scipy.ndimage import gaussian_filter1d  # half a second to import: after the first pictures are drawn

    smooth = gaussian_filter1d(counts.astype(float), sigma=1.5, axis=-1)
    return np.pad(smooth, [(0, 0)] * (counts.ndim - 1) + [(1, 1)])


def first_two_modes(smooth: np.ndarray) -> tuple[int, int] | None:
    """The bins of the most and the second most prominent mode of one smoothed histogram; None with a single mode."""
    from scipy.signal import find_peaks

    modes, properties = find_peaks(smooth, prominence=MODE_PROMINENCE * max(smooth.max(), 1e-9))
    if len(modes) < 2:
        return None
    second, first = modes[np.argsort(properties["prominences"])[-2:]] - 1
    return int(first), int(second)


def _second_mode(edges: np.ndarray, counts: np.ndarray) -> float | None:
    modes = first_two_modes(smooth_for_modes(counts))
    return None if modes is None else float((edges[modes[1]] + edges[modes[1] + 1]) / 2)


def _peak_range(edges: np.ndarray, counts: np.ndarray, seed: int) -> tuple[float, float]:
    total = counts.sum()
    if total == 0:
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).multinomial(total, counts / total, size=DRAWS)
    fullest = (draws / np.diff(edges)).argmax(axis=1)
    low, high = np.quantile((edges[fullest] + edges[fullest + 1]) / 2, TAILS)
    return float(low), float(high)


def _skew_words(skew: float) -> str:
    if abs(skew) < 0.25:
        return f"nearly symmetric (skew {skew:+.2f})"
    side = "right" if skew > 0 else "left"
    return f"{'strongly ' if abs(skew) > 1 else ''}skewed to the {side} (skew {skew:+.2f})"


def _distance(distance: float, what: str) -> str:
    if abs(distance) < 0.05:
        return f"on {what}"
    return f"{abs(distance):.2f} std {'above' if distance > 0 else 'below'} {what}"
