"""Greater than (Hanna, Liu and Variengien 2023, arXiv 2305.00586): "The war lasted from the year 1732 to the year 17" is
followed by a number above 32.

The right answer is drawn from the later years of the century, the wrong one from the earlier ones, of those that the
tokenizer splits after the century: else the answer's tokens would not be those that the year is written with. In the
counterfactual it began in the year 01, so that nearly every year is later.
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
    split = {century: _split_years(model, century) for century in CENTURIES}
    centuries = [century for century, years in split.items() if {2, 37, 99} <= set(years.tolist())]
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
        later, earlier = (
            int(years[generator.integers(len(years))])
            for years in (split[century][split[century] > begin], split[century][split[century] < begin])
        )
        prompt = "The {noun} lasted from the year {century}{year:02d} to the year {century}"
        yield Pair(
            prompt.format(noun=noun, century=century, year=begin),
            f"{later:02d}",
            f"{earlier:02d}",
            prompt.format(noun=noun, century=century, year=1),
        )


def _split_years(model: LoadedModel, century: str) -> np.ndarray:
    """The years, 2 to 99, that are written as their century's tokens and then their own."""
    start = encode(model, f" {century}")
    return np.array([y for y in range(2, 100) if encode(model, f" {century}{y:02d}")[: len(start)] == start])
