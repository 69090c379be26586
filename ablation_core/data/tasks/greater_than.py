"""Greater than (Hanna, Liu and Variengien 2023, arXiv 2305.00586): "The war lasted from the year 1732 to the year 17" is
followed by a number above 32.

The right answer is drawn from the later years of the century, the wrong one from the earlier ones. In the counterfactual
it began in the year 01, so that nearly every year is later.
"""

from collections.abc import Iterator

import numpy as np

from ablation_core.data.tasks.pairs import Pair
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import encode

NOUNS = [
    "war",
    "siege",
    "reign",
    "voyage",
    "alliance",
    "campaign",
    "conflict",
    "dispute",
    "empire",
    "expedition",
    "famine",
    "journey",
    "mission",
    "negotiation",
    "occupation",
    "partnership",
    "peace",
    "plague",
    "project",
    "rebellion",
    "reform",
    "revolution",
    "struggle",
    "trial",
    "truce",
]
CENTURIES = ("11", "12", "13", "14", "15", "16", "17", "18")


def draw(model: LoadedModel, generator: np.random.Generator) -> Iterator[Pair]:
    """Pairs without end.

    Raises:
        DataError: the tokenizer does not split a year after its century.
    """
    centuries = [century for century in CENTURIES if _splits(model, century)]
    if not centuries:
        raise DataError(
            f"The task greater-than needs years whose last two digits follow the century; the tokenizer of {model.ref} "
            f"splits none so. Choose another task, or bring pairs of your own (pairs:FILE)."
        )
    while True:
        century, noun = str(generator.choice(centuries)), str(generator.choice(NOUNS))
        begin = int(generator.integers(10, 90))
        if len(encode(model, f" {century}{begin:02d}")) != len(encode(model, f" {century}01")):
            continue  # the counterfactual would not have the same positions
        later, earlier = int(generator.integers(begin + 1, 100)), int(generator.integers(2, begin))
        prompt = "The {noun} lasted from the year {century}{year:02d} to the year {century}"
        yield Pair(
            prompt.format(noun=noun, century=century, year=begin),
            f"{later:02d}",
            f"{earlier:02d}",
            prompt.format(noun=noun, century=century, year=1),
        )


def _splits(model: LoadedModel, century: str) -> bool:
    """Whether a year is written as its century's tokens and then its own."""
    start = encode(model, f" {century}")
    return all(encode(model, f" {century}{year:02d}")[: len(start)] == start for year in (2, 37, 99))
