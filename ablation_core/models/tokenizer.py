"""Texts to tokens. A tokenizer file may come from anywhere, and what is wrong with it may show only at some text.

The tokenizers library then raises a plain `Exception`, or panics: Rust's panic arrives here as an exception that is no
`Exception`. Both become a sentence.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ablation_core.errors import AblationError, ModelError, first_line
from ablation_core.models.loaded import LoadedModel


@contextmanager
def tokenizer_faults(ref: str) -> Iterator[None]:
    """Turns what a damaged tokenizer raises into a sentence; an interrupt, or the end of a page's run, passes."""
    try:
        yield
    except AblationError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(
            f"The tokenizer of {ref} cannot be used ({first_line(error)}); save its tokenizer beside the weights again."
        ) from error


def encode(model: LoadedModel, text: str, special: bool = False) -> list[int]:
    """The ids of a text's tokens, as the model's tokenizer gives them; `special` adds those that it puts around a text.

    Raises:
        ModelError: the tokenizer is damaged.
    """
    with tokenizer_faults(model.ref):
        return model.tokenizer(text, add_special_tokens=special, verbose=False).input_ids


def known_tokens(model: LoadedModel) -> int:
    """How many tokens the model has embeddings for."""
    module: Any = model.module
    return module.get_input_embeddings().weight.shape[0]


def check_known(model: LoadedModel, most: int) -> None:
    """Refuse a token that the model has no embedding for.

    Args:
        most: the greatest id.

    Raises:
        ModelError: the tokenizer is another model's.
    """
    if most >= (known := known_tokens(model)):
        raise ModelError(
            f"The tokenizer of {model.ref} gives the token {most:,}, but the model knows {known:,}: it is not this "
            f"model's."
        )
