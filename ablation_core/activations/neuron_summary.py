"""What a neuron's distribution looks like, in numbers and in a sentence. Reads statistics, knows no model."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ablation_core.activations.statistics import Statistics
from ablation_core.presentation import Presented
from ablation_core.stats.intervals import TAILS

DRAWS = 200
MODE_BINS = 60  # coarse enough that sampling noise does not make modes
MODE_PROMINENCE = 0.1  # of the highest one


@dataclass(frozen=True)
class NeuronSummary(Presented):
    """One neuron's shape.

    Attributes:
        values: zero, mean, median and peak, in activation units.
        std: the standard deviation.
        skew: the third standardised moment, of what lies within the histogram's range.
        second_mode: where the most prominent hump away from the peak lies, or None where there is only one hump.
        peak_range: where the peak falls in 95% of samples of as many tokens drawn from the histogram. Tokens are
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
        broken = f"{self.not_finite:,} NaN or infinite values were excluded" if self.not_finite else ""
        if np.isnan(self.std):
            return f"Nothing to describe: {broken or 'no values were counted'}."
        if self.std == 0:
            return f"Constant: {_plain(self.values['mean'], '.4g')} at every position" + (
                f"; {broken}." if broken else "."
            )
        if self.second_mode is None:
            parts = [_skew_words(self.skew)]
        else:
            humps = " and ".join(_plain(value) for value in sorted((self.values["peak"], self.second_mode)))
            parts = [f"two humps, near {humps} (skew {_plain(self.skew, '+.2f')})"]
        parts.append(
            f"the peak lies {_distance(self.distance_in_std('peak', 'mean'), 'the mean')} and "
            f"{_distance(self.distance_in_std('peak', 'zero'), 'zero')}"
        )
        low, high = self.peak_range
        width = (high - low) / self.std
        sure = "well determined" if width <= 0.25 else "roughly determined" if width <= 0.75 else "poorly determined"
        parts.append(f"the peak is {sure} (95% of resamples: {_plain(low)} to {_plain(high)}, {width:.2f} std wide)")
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
        second_mode=_second_mode(*statistics.histogram(*at, bins=min(MODE_BINS, statistics.bins)), values["peak"])
        if varies
        else None,
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


def _second_mode(edges: np.ndarray, counts: np.ndarray, peak: float) -> float | None:
    second = hump_away_from(int(np.searchsorted(edges[1:-1], peak, "right")), smooth_for_modes(counts))
    return None if second is None else float((edges[second] + edges[second + 1]) / 2)


def hump_away_from(peak: int, padded: np.ndarray) -> int | None:
    """The bin of the most prominent hump other than the one that the peak stands on; None where there is no other.

    A hump is a local maximum with a prominence of at least `MODE_PROMINENCE` of the highest; it reaches to the lowest
    bins between it and its neighbours. The peak, found in other bins, need not be the highest of the smoothed ones.

    Args:
        peak: the bin that the peak lies in.
        padded: one histogram as `smooth_for_modes` makes it, (bins + 2,).
    """
    from scipy.signal import find_peaks

    smooth = padded[1:-1]
    humps, properties = find_peaks(padded, prominence=MODE_PROMINENCE * max(smooth.max(), 1e-9))
    humps = humps - 1
    if len(humps) < 2:
        return None
    valleys = [left + int(smooth[left:right].argmin()) for left, right in pairwise(humps)]
    others = np.delete(np.arange(len(humps)), np.searchsorted(valleys, peak))
    return int(humps[others[np.argmax(properties["prominences"][others])]])


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
        return f"nearly symmetric (skew {_plain(skew, '+.2f')})"
    side = "right" if skew > 0 else "left"
    return f"{'strongly ' if abs(skew) > 1 else ''}skewed to the {side} (skew {_plain(skew, '+.2f')})"


def _plain(value: float, form: str = ".3g") -> str:
    """A number with a minus sign, and without one before a zero."""
    text = format(value, form)
    return (text if any(digit in text for digit in "123456789") else text.lstrip("+-")).replace("-", "−")


def _distance(distance: float, what: str) -> str:
    if abs(distance) < 0.05:
        return f"on {what}"
    return f"{abs(distance):.2f} std {'above' if distance > 0 else 'below'} {what}"
