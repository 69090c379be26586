"""Other ways to say where a distribution's mode lies, to compare `peak` with: all from the fine histogram.

`Statistics.peak` bins a range that outliers do not stretch. The paper's code bins either each neuron's own range or that
of the whole model, whose outliers then decide how fine the bins are; a kernel density and the half-sample mode need no
bins at all. Values are taken as evenly spread within a fine bin, and beyond the histogram's range up to the extremes.
"""

from functools import lru_cache

import numpy as np

from ablation_core.activations.statistics import Statistics

_remember = lru_cache(maxsize=8)  # a sweep asks for the same modes once a head
_HALVINGS = 40  # far more than a histogram can take; a halving that changes nothing ends it earlier


@_remember
def own_range_peak(statistics: Statistics, bins: int) -> np.ndarray:
    """The centre of the fullest of `bins` bins from each neuron's least to its greatest value, as in one of the paper's
    notebooks; float32 (layers, heads, head_dim)."""
    return _rebinned_peak(statistics, statistics.minimum, statistics.maximum, bins)


@_remember
def whole_range_peak(statistics: Statistics, bins: int) -> np.ndarray:
    """The centre of the fullest of `bins` bins from the least to the greatest value of all the model's neurons, as in
    another of the paper's notebooks; float32 (layers, heads, head_dim)."""
    least, greatest = (
        np.full_like(statistics.minimum, extreme)
        for extreme in (np.nanmin(statistics.minimum), np.nanmax(statistics.maximum))
    )
    return _rebinned_peak(statistics, least, greatest, bins)


@_remember
def kernel_density_mode(statistics: Statistics, bins: int) -> np.ndarray:
    """The highest point of a Gaussian kernel density, its width by the rule of Silverman (1986, equation 3.31);
    float32 (layers, heads, head_dim). `bins` plays no part."""
    inner = statistics.counts[..., 1:-1]
    quartiles = statistics.quantile(0.75) - statistics.quantile(0.25)
    spread = np.fmin(statistics.std, np.where(quartiles > 0, quartiles / 1.34, np.inf))
    width = 0.9 * spread * np.maximum(statistics.count, 1) ** -0.2
    with np.errstate(invalid="ignore", divide="ignore"):
        sigma = np.nan_to_num(width / ((statistics.high - statistics.low) / statistics.bins))
    size = 2 * statistics.bins  # as many zeros again, so that the ends do not meet
    from scipy.fft import irfft, rfft, rfftfreq

    frequency = rfftfreq(size)
    smooth = irfft(rfft(inner, size) * np.exp(-2 * (np.pi * sigma[..., None] * frequency) ** 2), size)
    place = smooth[..., : statistics.bins].argmax(-1) + 0.5
    return _mode(statistics, statistics.low + (statistics.high - statistics.low) * place / statistics.bins)


@_remember
def half_sample_mode(statistics: Statistics, bins: int) -> np.ndarray:
    """Where the shortest half of the shortest half of … the values lies (Bickel and Frühwirth 2006); float32
    (layers, heads, head_dim). `bins` plays no part."""
    shape, fine = statistics.mean.shape, statistics.bins
    below = np.zeros((statistics.mean.size, fine + 1))
    np.cumsum(statistics.counts[..., 1:-1].reshape(-1, fine), axis=1, out=below[:, 1:])
    value = statistics.low.ravel() + (statistics.high - statistics.low).ravel() * _shortest_halves(below) / fine
    return _mode(statistics, value.reshape(shape))


def _shortest_halves(below: np.ndarray) -> np.ndarray:
    """For each row of cumulative counts at the fine edges, the middle of the last of the shortest halves, in bins."""
    rows, edges = below.shape
    row = np.arange(rows)
    left, right = np.zeros(rows, dtype=int), np.full(rows, edges - 1)
    # One long increasing line of all rows finds every edge's partner in a single search.
    offset = np.concatenate([[0.0], np.cumsum(below[:, -1] + 1)[:-1]])
    line = (below + offset[:, None]).ravel()
    for _ in range(_HALVINGS):
        half = np.ceil((below[row, right] - below[row, left]) / 2)
        # Only the edges within what is left: each halving looks at fewer.
        edge = np.minimum(left[:, None] + np.arange((right - left).max() + 1), edges - 1)
        begun = np.take_along_axis(below, edge, 1)
        partner = np.searchsorted(line, (begun + (offset + half)[:, None]).ravel()).reshape(edge.shape)
        partner -= (row * edges)[:, None]
        length = np.where(partner <= right[:, None], partner - edge, edges)
        shortest = length.min(1)
        # Of equally short halves the fullest, and of those the lowest.
        held = np.take_along_axis(below, np.minimum(partner, edges - 1), 1) - begun
        place = np.where(length == shortest[:, None], held, -1.0).argmax(1)
        best = left + place
        shrinks = (half > 0) & (shortest < right - left)
        if not shrinks.any():
            break
        left, right = np.where(shrinks, best, left), np.where(shrinks, partner[row, place], right)
    return (left + right) / 2


def _rebinned_peak(statistics: Statistics, least: np.ndarray, greatest: np.ndarray, bins: int) -> np.ndarray:
    """The centre of the fullest of `bins` equal bins from `least` to `greatest`, the lowest of equally full ones."""
    share = np.linspace(0, 1, bins + 1)
    edges = least[..., None] + (greatest - least).astype(float)[..., None] * share
    fullest = np.diff(_count_below(statistics, edges), axis=-1).round(6).argmax(-1)
    return _mode(statistics, least + (greatest - least) * (fullest + 0.5) / bins)


def _count_below(statistics: Statistics, values: np.ndarray) -> np.ndarray:
    """How many activations of each neuron lie below each of these values (layers, heads, head_dim, any number)."""
    fine, counts = statistics.bins, statistics.counts
    low, high = statistics.low[..., None], statistics.high[..., None]
    total = np.concatenate([counts[..., :1] * 0, np.cumsum(counts, -1)], -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        place = np.nan_to_num((values - low) / (high - low) * fine)
        under = np.clip((values - statistics.minimum[..., None]) / (low - statistics.minimum[..., None]), 0, 1)
        over = np.clip((values - high) / (statistics.maximum[..., None] - high), 0, 1)
    whole = np.clip(place.astype(int), 0, fine - 1)
    inner = np.take_along_axis(counts, whole + 1, -1) * np.clip(place - whole, 0, 1)
    inside = np.take_along_axis(total, whole + 1, -1) + inner
    first, last = counts[..., :1], counts[..., -1:]
    below = np.where(values < low, np.nan_to_num(under, nan=1.0) * first, inside)
    return np.where(values > high, total[..., -2:-1] + np.nan_to_num(over, nan=1.0) * last, below)


def _mode(statistics: Statistics, value: np.ndarray) -> np.ndarray:
    """A constant neuron's mode is its value; one of which nothing was counted within the range has none."""
    value = np.where(statistics.counts[..., 1:-1].sum(-1) > 0, value, np.nan)
    return np.where(statistics.minimum == statistics.maximum, statistics.minimum, value).astype(np.float32)
