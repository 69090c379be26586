"""A short hand-written list of facts: capitals, currencies, colours, languages, opposites.

The wrong answer belongs to another subject of the same kind, and the counterfactual asks about that subject: one whose name has as many tokens.
"""

from collections.abc import Iterator

import numpy as np

from ablation_core.data.tasks.pairs import Pair
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import encode

KINDS = {
    "The capital of {} is the city of": {
        "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "China": "Beijing",
        "Russia": "Moscow", "England": "London", "Egypt": "Cairo", "Greece": "Athens", "Austria": "Vienna",
        "Ireland": "Dublin", "Norway": "Oslo", "Sweden": "Stockholm", "Poland": "Warsaw", "Portugal": "Lisbon",
        "Cuba": "Havana", "Peru": "Lima", "Canada": "Ottawa", "Iraq": "Baghdad", "Iran": "Tehran", "Turkey": "Ankara",
        "Kenya": "Nairobi", "Chile": "Santiago", "Hungary": "Budapest", "Denmark": "Copenhagen",
    },
    "People in {} mostly speak": {
        "France": "French", "Germany": "German", "Italy": "Italian", "Spain": "Spanish", "Japan": "Japanese",
        "China": "Chinese", "Russia": "Russian", "England": "English", "Egypt": "Arabic", "Greece": "Greek",
        "Poland": "Polish", "Portugal": "Portuguese", "Sweden": "Swedish", "Turkey": "Turkish",
    },
    "The opposite of {} is": {
        "hot": "cold", "big": "small", "up": "down", "left": "right", "true": "false", "old": "young", "open": "closed",
        "high": "low", "first": "last", "good": "bad", "fast": "slow", "light": "dark", "early": "late",
    },
    "The colour of {} is": {
        "grass": "green", "snow": "white", "blood": "red", "coal": "black", "the sky": "blue", "the sun": "yellow",
    },
}  # fmt: skip


def draw(model: LoadedModel, generator: np.random.Generator) -> Iterator[Pair]:
    """Each fact once, in random order; the facts of one kind about one subject form a group."""
    facts = [(kind, subject) for kind, answers in KINDS.items() for subject in answers]
    for index in generator.permutation(len(facts)):
        kind, subject = facts[index]
        length = len(encode(model, kind.format(subject)))
        others = [
            other
            for other, answer in KINDS[kind].items()
            if answer != KINDS[kind][subject] and len(encode(model, kind.format(other))) == length
        ]
        if not others:  # nothing to compare it with position by position
            continue
        other = str(generator.choice(others))
        yield Pair(
            kind.format(subject), f" {KINDS[kind][subject]}", f" {KINDS[kind][other]}", kind.format(other), subject
        )
