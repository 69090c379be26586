"""Agreement of subject and verb with an attractor between them (Linzen, Dupoux and Goldberg 2016, arXiv 1611.01368): "The
keys to the cabinet" is followed by are.

Every item is asked with the subject in the singular and in the plural, which form a group; the attractor always has the
other number. The counterfactual changes the subject's number.
"""

from collections.abc import Iterator

import numpy as np

from ablation_core.data.tasks.pairs import Pair
from ablation_core.data.tasks.words import one_token
from ablation_core.models.loaded import LoadedModel

NOUNS = (
    ("key", "keys"), ("book", "books"), ("door", "doors"), ("picture", "pictures"), ("car", "cars"),
    ("letter", "letters"), ("table", "tables"), ("word", "words"), ("house", "houses"), ("file", "files"),
    ("name", "names"), ("number", "numbers"), ("list", "lists"), ("value", "values"), ("object", "objects"),
    ("line", "lines"), ("class", "classes"), ("method", "methods"), ("function", "functions"), ("student", "students"),
    ("teacher", "teachers"), ("author", "authors"), ("friend", "friends"), ("doctor", "doctors"), ("tree", "trees"),
    ("river", "rivers"), ("road", "roads"), ("window", "windows"), ("machine", "machines"), ("paper", "papers"),
)  # fmt: skip
LINKS = ("near", "behind", "beside", "with", "before", "from", "under", "above")
VERBS = (("is", "are"), ("was", "were"), ("has", "have"))
_FEWEST = 6


def draw(model: LoadedModel, generator: np.random.Generator) -> Iterator[Pair]:
    """Pairs without end.

    Raises:
        DataError: the tokenizer has too few nouns as one token in both numbers.
    """
    words = set(one_token(model, [form for noun in NOUNS for form in noun], "agreement", 2 * _FEWEST))
    nouns = [noun for noun in NOUNS if words.issuperset(noun)]
    nouns = nouns if len(nouns) >= _FEWEST else list(NOUNS)
    item = 0
    while True:
        subject, attractor = (nouns[i] for i in generator.choice(len(nouns), 2, replace=False))
        link, verb = str(generator.choice(LINKS)), VERBS[generator.integers(len(VERBS))]
        for number in (0, 1):
            prompt = f"The {{}} {link} the {attractor[1 - number]}"
            yield Pair(
                prompt.format(subject[number]),
                f" {verb[number]}",
                f" {verb[1 - number]}",
                prompt.format(subject[1 - number]),
                f"item {item}",
            )
        item += 1
