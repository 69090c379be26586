"""What a constant's harm on a task is made of, where `mean-positional` and `counterfactual` were measured beside it.

Each method takes away more than the one before, so that the differences of their harms add up to a constant's harm:

    what the counterfactual changes   harm of counterfactual: the values differ only by what tells the two prompts apart
    other information                 harm of mean-positional, minus that: all else that depends on the words
    position                          harm of the reference constants, minus that: what depends on the place alone
    displacement                      harm of the method, minus that: a value that the model is not used to

The reference are the `optimal` constants where they were learned, else the `mean`. Harm is a change for the worse of the
metric that is looked at first (`metrics.main_metric`): in tasks a fall of the logit difference. A part can be negative.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ablation_core.stats.intervals import Interval

PARTS = ("what the counterfactual changes", "other information", "position", "displacement")


@dataclass(frozen=True)
class HarmSplit:
    """The parts of a method's harm, in the order of `PARTS`, paired, with 95% intervals.

    Attributes:
        metric: its name.
        reference: the constants that stand for lost information alone, `optimal` or `mean`.
    """

    metric: str
    reference: str
    parts: tuple[Interval, ...]


def reference_of(methods: Iterable[str]) -> str | None:
    """Whose constants part position from displacement; None where these methods do not give the split."""
    there = set(methods)
    if not {"mean-positional", "counterfactual"} <= there:
        return None
    return next((name for name in ("optimal", "mean") if name in there), None)


def is_split(method: str) -> bool:
    """Whether it puts one constant in each neuron's place: only of these the parts are nested."""
    from ablation_core.methods.registry import METHODS  # with torch: results are drawn without it

    return method in METHODS and (METHODS[method].constant is not None or METHODS[method].learned)


def parts_of(harm: Callable[[str], Any], method: str, reference: str) -> list[Any]:
    """The parts of a method's harm, which sum up to it.

    >>> harms = {"counterfactual": 0.25, "mean-positional": 0.5, "mean": 1.0, "zero": 1.5}
    >>> parts_of(harms.__getitem__, "zero", "mean")
    [0.25, 0.25, 0.5, 0.5]

    Args:
        harm: of a method by name: of each prediction, or their means.
    """
    steps = [harm(name) for name in ("counterfactual", "mean-positional", reference, method)]
    return [steps[0], *(after - before for before, after in pairwise(steps))]


def mean_parts(changes: Mapping[str, float], worse: int) -> dict[str, list[float]]:
    """Method → the parts of its harm, of mean changes by method; empty where these do not give the split."""
    reference = reference_of(changes)
    if reference is None:
        return {}
    return {name: parts_of(lambda other: worse * changes[other], name, reference) for name in changes if is_split(name)}
