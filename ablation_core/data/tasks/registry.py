"""The built-in tasks: each is a row, and a function that draws its pairs from a seed. Nothing comes from outside.

    pairs = TASKS["ioi"].draw(model, np.random.default_rng(0))
    next(pairs)   # Pair(prompt="When Mary and John …", right=" Mary", wrong=" John", …)

A task draws endlessly, or until its list is used up. Names and words are only those that the model's tokenizer has as
one token, so that an answer is one prediction.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ablation_core.data.tasks import agreement, facts, greater_than, induction, ioi
from ablation_core.data.tasks.pairs import Pair
from ablation_core.models.loaded import LoadedModel

Draw = Callable[[LoadedModel, np.random.Generator], Iterator[Pair]]


@dataclass(frozen=True)
class Task:
    """A row of `TASKS`.

    Attributes:
        label: what a list of tasks shows.
        description: what is asked, in a sentence for the user.
        draw: (model, generator) → pairs.
    """

    name: str
    label: str
    description: str
    draw: Draw


TASKS = {
    task.name: task
    for task in (
        Task(
            "ioi",
            "Indirect object",
            "Who receives the gift: the name that was mentioned once, not the one that gives (Wang et al. 2022).",
            ioi.draw,
        ),
        Task(
            "induction",
            "Induction",
            "Random tokens, repeated: which token followed this one the first time (Olsson et al. 2022).",
            induction.draw,
        ),
        Task(
            "greater-than",
            "Greater than",
            "The year in which something ended: a later one than that in which it began (Hanna et al. 2023).",
            greater_than.draw,
        ),
        Task(
            "agreement",
            "Agreement",
            "The verb agrees with its subject, not with the noun that stands between them (Linzen et al. 2016).",
            agreement.draw,
        ),
        Task("facts", "Facts", "Capitals and the like, from a short hand-written list.", facts.draw),
    )
}
