"""Induction on random tokens (Olsson et al. 2022, arXiv 2209.11895): a sequence of random tokens, and its beginning again;
the token that followed the last one the first time is right, and another token of the sequence is wrong.

The tokens are drawn as in other people's tests of induction heads, from all ordinary ones, none twice in a sequence, so
that nothing but the first copy says what comes. In the counterfactual the wrong token stands in the first copy where the
right one stood.
"""

from collections.abc import Iterator

import numpy as np

from ablation_core.data.tasks.pairs import Pair
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import ordinary_tokens

LENGTH = 24  # tokens of the first copy


def draw(model: LoadedModel, generator: np.random.Generator) -> Iterator[Pair]:
    """Pairs without end.

    Raises:
        DataError: the tokenizer has too few ordinary tokens.
    """
    ordinary = ordinary_tokens(model)
    if len(ordinary) < 2 * LENGTH:
        raise DataError(f"The task induction needs {2 * LENGTH} different tokens; {model.ref} has {len(ordinary)}.")
    while True:
        tokens = generator.choice(ordinary, LENGTH, replace=False)
        again = int(generator.integers(LENGTH // 3, LENGTH - 1))  # so many of the second copy are shown
        right = int(tokens[again])
        elsewhere = np.delete(np.arange(LENGTH), [again - 1, again])
        place = int(generator.choice(elsewhere))
        wrong = int(tokens[place])
        other = tokens.copy()
        other[again], other[place] = wrong, right
        shown, changed = (np.concatenate([copy, copy[:again]]) for copy in (tokens, other))
        yield Pair(tuple(shown.tolist()), (right,), (wrong,), tuple(changed.tolist()))
