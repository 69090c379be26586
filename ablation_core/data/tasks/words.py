"""Words that a tokenizer has as one token, as the tasks need them."""

from collections.abc import Sequence

from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import encode


def one_token(model: LoadedModel, words: Sequence[str], task: str, least: int) -> list[str]:
    """Those of the words that are one token each, with the space before them.

    Raises:
        DataError: there are fewer than `least`.
    """
    found = [word for word in words if len(encode(model, f" {word}")) == 1]
    if len(found) < least:
        raise DataError(
            f"The task {task} needs at least {least} words that are one token each; the tokenizer of {model.ref} has "
            f"{len(found)} of its {len(words)}. Choose another task, or bring pairs of your own (pairs:FILE)."
        )
    return found
