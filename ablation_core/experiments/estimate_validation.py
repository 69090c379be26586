"""Estimates against exact values: the heads of the greatest estimates ablated one by one, and how far both agree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data
from ablation_core.data.positions import Positions
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.engine.metrics import METRICS
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.estimate_result import EstimateResult
from ablation_core.experiments.spec import AblationSpec
from ablation_core.methods.registry import choose_methods
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Head, Selection
from ablation_core.storage import as_number

TOP = 10
ENOUGH = 2 * TOP  # heads: of fewer, most of the first ten are the same whatever was estimated


@dataclass(frozen=True)
class Agreement:
    """Estimates against exact values, over the heads that were measured.

    Attributes:
        spearman: rank correlation.
        slope: of the least-squares line, estimate = slope · exact + a constant.
        ratio: the median of estimate / exact.
        top: of the `TOP` heads of the greatest exact values, how many are among those of the greatest estimates; only over
            `ENOUGH` heads, since of twelve at least eight always are. `top_by_chance` is what a random order would give.

    A figure is NaN (`top`: None) where too few heads were measured for it, or all are alike.
    """

    heads: int
    spearman: float
    slope: float
    ratio: float
    top: int | None

    @property
    def top_by_chance(self) -> float:
        return TOP * TOP / self.heads if self.heads else float("nan")


def agreement(estimates: Sequence[float], exact: Sequence[float]) -> Agreement:
    """Compare the two, leaving out heads where either is not a finite number."""
    pairs = np.array([estimates, exact], dtype=float)
    estimated, measured = pairs[:, np.isfinite(pairs).all(0)]
    count = len(measured)
    ratio = float(np.median(estimated[measured != 0] / measured[measured != 0])) if measured.any() else np.nan
    if count < 3 or np.ptp(measured) == 0 or np.ptp(estimated) == 0:
        return Agreement(count, np.nan, np.nan, ratio, None)
    slope = np.cov(estimated, measured)[0, 1] / measured.var(ddof=1)
    best = [set(np.argsort(-values, kind="stable")[:TOP].tolist()) for values in (estimated, measured)]
    top = len(best[0] & best[1]) if count >= ENOUGH else None
    from scipy.stats import spearmanr  # a second to load

    return Agreement(count, float(spearmanr(estimated, measured).statistic), float(slope), ratio, top)


@dataclass(frozen=True)
class EstimateValidation:
    """Exact values of some heads: method → head → metric → its change, in nats per prediction."""

    exact: dict[str, dict[Head, dict[str, float]]]
    agreements: dict[str, dict[str, Agreement]]

    def to_dict(self) -> dict:
        """One entry per method: the measured heads and the agreement of each metric; null for what is not a number."""
        return {
            method: {
                "heads": [
                    {"head": f"{layer}.{head}"} | {name: as_number(value) for name, value in values.items()}
                    for (layer, head), values in heads.items()
                ],
                "agreement": {
                    metric: {
                        "heads": found.heads,
                        "spearman": as_number(found.spearman),
                        "slope": as_number(found.slope),
                        "median_ratio": as_number(found.ratio),
                        "top_10": found.top,
                        "top_10_by_chance": None if found.top is None else found.top_by_chance,
                    }
                    for metric, found in self.agreements[method].items()
                },
            }
            for method, heads in self.exact.items()
        }


def largest_heads(result: EstimateResult, count: int) -> dict[str, list[Head]]:
    """For each method the heads of the greatest estimated change of loss."""
    return {method.method: method.largest(count) for method in result.methods}


def validate_estimate(
    model: LoadedModel,
    data: Data,
    result: EstimateResult,
    statistics: Statistics | None,
    heads: dict[str, list[Head]],
    seed: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> EstimateValidation:
    """Ablate these heads of each method one by one, on the data of the estimate, and compare.

    Args:
        seed: of the sources, as in the estimate; by default the data's.
        progress: called with (heads done, heads) after each.

    Raises:
        AblationError: one of its children, with a sentence for the user.
    """
    exact: dict[str, dict[Head, dict[str, float]]] = {method: {} for method in heads}
    every = sorted({head for chosen in heads.values() for head in chosen})
    clean_cache = CleanPassCache(model, data, keys_values=result.positions != "all")
    estimated = list(result.methods[0].changes)
    for done, head in enumerate(every, 1):
        methods = choose_methods([method for method, chosen in heads.items() if head in chosen], model.modality, data)
        selection = Selection.of_heads([head], model.shape)
        seed = data.seed if seed is None else seed
        spec = AblationSpec(selection, tuple(methods), result.bins, seed, Positions.parse(result.positions))
        measured = AblationRun(model, data, spec, statistics, clean_cache).finish().result()
        for row in measured.results:
            exact[row.method][head] = {
                name: row.performance[name] if METRICS[name].divergence else row.change[name].mean for name in estimated
            }
        progress(done, len(every))
    agreements = {
        method.method: {
            metric: agreement(
                [estimated.heads[head] for head in exact[method.method]],
                [values[metric] for values in exact[method.method].values()],
            )
            for metric, estimated in method.changes.items()
        }
        for method in result.methods
    }
    return EstimateValidation(exact, agreements)
