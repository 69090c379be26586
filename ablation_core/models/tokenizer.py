"""Texts to tokens. A tokenizer file may come from anywhere, and what is wrong with it may show only at some text.

The tokenizers library then raises a plain `Exception`, or panics: Rust's panic arrives here as an exception that is no
`Exception`. Both become a sentence.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ablation_core.errors import AblationError, DataError, ModelError, first_line
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.reading import is_fault

_PROBES = ("a", "A text, to try it.", "0", "的")
_MOST_PROBES = 200
_SURROGATE = re.compile("[\ud800-\udfff]")


@contextmanager
def tokenizer_faults(ref: str) -> Iterator[None]:
    """Turns what a damaged tokenizer raises into a sentence; an interrupt, or the end of a page's run, passes."""
    try:
        yield
    except AblationError:
        raise
    except BaseException as error:
        if not is_fault(error):
            raise
        raise ModelError(
            f"The tokenizer of {ref} cannot be used ({first_line(error)}); save its tokenizer beside the weights again."
        ) from error


def encode(model: LoadedModel, text: str, special: bool = False) -> list[int]:
    """The ids of a text's tokens, as the model's tokenizer gives them; `special` adds those that it puts around a text.

    Raises:
        ModelError: there is no tokenizer, or it is damaged.
    """
    if model.tokenizer is None:
        raise ModelError(f"{model.ref} was loaded without a tokenizer: load_model(module, tokenizer=…) reads text.")
    if at := _SURROGATE.search(text):
        raise DataError(
            f"A text holds half of a surrogate pair, {at.group()!r} behind {text[max(0, at.start() - 20) : at.start()]!r}: that is "
            f"not a character and cannot be tokenised; leave it out."
        )
    with tokenizer_faults(model.ref):
        return model.tokenizer(text, add_special_tokens=special, verbose=False).input_ids


def encode_plain(model: LoadedModel, text: str) -> tuple[list[int], bool]:
    """A text's tokens with special tokens that it spells, such as `</s>`, read as the letters they are written with.

    A tokenizer that cannot do this gives them as special tokens still.

    Returns:
        The ids, and whether the text spells a special token.
    """
    ids = encode(model, text)
    spelled = spelled_ids(model)
    if spelled.isdisjoint(ids):
        return ids, False
    with tokenizer_faults(model.ref):
        try:
            return model.tokenizer(
                text, add_special_tokens=False, split_special_tokens=True, verbose=False
            ).input_ids, True
        except (TypeError, ValueError, NotImplementedError):  # not every tokenizer knows the option
            return ids, False


def special_ids(model: LoadedModel) -> frozenset[int]:
    """The tokenizer's special tokens: those with a part of their own, and all others that it was given as special ones,
    such as a chat's `<|eot_id|>`; none without a tokenizer.
    """
    if model.tokenizer is None:
        return frozenset()
    added = getattr(model.tokenizer, "added_tokens_decoder", None) or {}
    return frozenset(model.tokenizer.all_special_ids) | {number for number, token in added.items() if token.special}


def spelled_ids(model: LoadedModel) -> frozenset[int]:
    """The special tokens that a text can spell: all but the one that stands for unknown characters."""
    return special_ids(model) - {model.tokenizer.unk_token_id}


def special_tokens(model: LoadedModel) -> tuple[list[int], list[int]]:
    """The ids that the model's tokenizer puts before and after a text; none after it for causal language models.

    Found with texts of its own alphabet, whatever that is: some tokenizers make no token of the letter a.

    Raises:
        ModelError: the tokenizer changes a text's tokens when it adds special ones, or makes no tokens of any text.
    """
    if model.special_tokens is None:
        model.special_tokens = _around(model)
    before, after = model.special_tokens
    return list(before), [] if model.modality == "causal" else list(after)


def whole_text(model: LoadedModel, text: str) -> list[int]:
    """A text's tokens with those that belong around it; what begins it is not doubled where the text spells it.

    Special tokens that a text spells are read as such here, as a person writes them on purpose.
    """
    before, after = special_tokens(model)
    tokens = encode(model, text)
    if before and tokens[: len(before)] == before:
        tokens = tokens[len(before) :]
    if after and tokens[-len(after) :] == after:
        tokens = tokens[: -len(after)]
    return [*before, *tokens, *after]


def _around(model: LoadedModel) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What stands around two texts of different tokens alike: their common beginning and end."""
    found: list[tuple[list[int], list[int]]] = []  # bare and whole
    for text in _probe_texts(model):
        bare, whole = encode(model, text), encode(model, text, special=True)
        if bare and all(bare[0] != other[0] and bare[-1] != other[-1] for other, _ in found):
            found.append((bare, whole))
        if len(found) == 2:
            break
    if not found:
        raise ModelError(f"The tokenizer of {model.ref} makes no tokens of any text; save its tokenizer again.")
    bare, whole = found[0]
    extra = len(whole) - len(bare)
    for start in range(extra + 1):
        before, after = whole[:start], whole[start + len(bare) :]
        if all([*before, *other, *after] == full for other, full in found):
            return tuple(before), tuple(after)
    raise ModelError(f"The tokenizer of {model.ref} changes a text's tokens when it adds special ones; not supported.")


def _probe_texts(model: LoadedModel) -> Iterator[str]:
    yield from _PROBES
    with tokenizer_faults(model.ref):
        special = set(model.tokenizer.all_special_ids)
        for number in [id for id in range(len(model.tokenizer)) if id not in special][:_MOST_PROBES]:
            yield model.tokenizer.decode([number])


def padding_id(model: LoadedModel) -> int:
    """What fills up rows: never attended to, never scored. A text classifier's head finds a text's end by its own.

    A token that was added to the tokenizer without a place in the model is passed over.
    """
    named = [getattr(model.tokenizer, name, None) for name in ("pad_token_id", "eos_token_id")]
    if model.modality == "text-classification":
        named = [getattr(model.config, "pad_token_id", None), *named]
    known = known_tokens(model)
    return next((int(number) for number in named if number is not None and 0 <= number < known), 0)


def ordinary_tokens(model: LoadedModel) -> np.ndarray:
    """The ids that tokenizer and model both know, without special ones; int64."""
    known = min(len(model.tokenizer), known_tokens(model))
    return np.setdiff1d(np.arange(known), model.tokenizer.all_special_ids)


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
