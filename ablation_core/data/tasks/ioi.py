"""Indirect object identification (Wang et al. 2022, arXiv 2211.00593): "When Mary and John went to the store, John gave a
drink to" is followed by Mary.

Each item is asked in both orders of the first two names (ABBA and BABA), which form a group. The counterfactual lets the
other person give, so that the answers change places.
"""

from collections.abc import Iterator

import numpy as np

from ablation_core.data.tasks.pairs import Pair
from ablation_core.data.tasks.words import one_token
from ablation_core.models.loaded import LoadedModel

TEMPLATES = (
    "When {one} and {other} went to the {place}, {giver} gave a {thing} to",
    "Then, {one} and {other} were at the {place}. {giver} handed a {thing} to",
    "After {one} and {other} came to the {place}, {giver} decided to give a {thing} to",
    "While {one} and {other} were working at the {place}, {giver} passed a {thing} to",
    "Afterwards {one} and {other} had a long talk at the {place}. {giver} then offered a {thing} to",
)
NAMES = [
    "Aaron",
    "Adam",
    "Alan",
    "Alex",
    "Alice",
    "Amy",
    "Anderson",
    "Andrew",
    "Andy",
    "Anna",
    "Anne",
    "Anthony",
    "Barbara",
    "Ben",
    "Bob",
    "Brian",
    "Carl",
    "Carol",
    "Charles",
    "Charlie",
    "Chris",
    "Christian",
    "Christine",
    "Dan",
    "Daniel",
    "David",
    "Dean",
    "Diana",
    "Don",
    "Edward",
    "Elizabeth",
    "Emily",
    "Emma",
    "Eric",
    "Frank",
    "Fred",
    "Gary",
    "George",
    "Grace",
    "Graham",
    "Grant",
    "Harry",
    "Helen",
    "Henry",
    "Howard",
    "Hugh",
    "Ian",
    "Jack",
    "Jackson",
    "Jacob",
    "James",
    "Jane",
    "Jason",
    "Jeff",
    "Jennifer",
    "Jim",
    "Joe",
    "John",
    "Jonathan",
    "Jordan",
    "Joseph",
    "Julia",
    "Julian",
    "Justin",
    "Karen",
    "Kate",
    "Kelly",
    "Kevin",
    "Kim",
    "Larry",
    "Laura",
    "Lee",
    "Leo",
    "Linda",
    "Lisa",
    "Lucy",
    "Luke",
    "Margaret",
    "Maria",
    "Mark",
    "Martin",
    "Mary",
    "Matt",
    "Matthew",
    "Max",
    "Michael",
    "Mike",
    "Morgan",
    "Neil",
    "Nick",
    "Oliver",
    "Oscar",
    "Patrick",
    "Paul",
    "Peter",
    "Philip",
    "Rachel",
    "Ray",
    "Richard",
    "Robert",
    "Roger",
    "Ron",
    "Rose",
    "Roy",
    "Ruby",
    "Russell",
    "Ruth",
    "Ryan",
    "Sam",
    "Samuel",
    "Sarah",
    "Scott",
    "Sean",
    "Simon",
    "Sophie",
    "Stephen",
    "Steve",
    "Steven",
    "Stuart",
    "Susan",
    "Ted",
    "Thomas",
    "Tim",
    "Tom",
    "Tony",
    "Victor",
    "Victoria",
    "William",
]
PLACES = ("store", "garden", "office", "school", "station", "house", "restaurant", "hospital", "library", "market")
THINGS = ("book", "drink", "ring", "letter", "ball", "key", "ticket", "map", "card", "box")
_FEWEST = 4


def draw(model: LoadedModel, generator: np.random.Generator) -> Iterator[Pair]:
    """Pairs without end: a template, two names, a place and a thing, in both orders.

    Raises:
        DataError: the tokenizer has too few names as one token.
    """
    names = one_token(model, NAMES, "ioi", _FEWEST)
    item = 0
    while True:
        template, place, thing = (str(generator.choice(words)) for words in (TEMPLATES, PLACES, THINGS))
        receiver, giver = (str(name) for name in generator.choice(names, 2, replace=False))
        for one, other in ((receiver, giver), (giver, receiver)):
            words = {"one": one, "other": other, "place": place, "thing": thing}
            yield Pair(
                template.format(giver=giver, **words),
                f" {receiver}",
                f" {giver}",
                template.format(giver=receiver, **words),
                f"item {item}",
            )
        item += 1
