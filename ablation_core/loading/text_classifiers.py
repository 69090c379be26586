"""Text classifiers: one class per text out of several, and how a batch of texts is filled up for them.

A decoder's head reads a text's last token, which it finds as the last one that is not its own padding token. Many
decoders name none, as their tokenizers have none: then one that no text ends with is chosen here, in the configuration
that is ours alone.
"""

from __future__ import annotations

from typing import Any

from ablation_core.errors import ModelError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import special_tokens


def prepare_padding(config: Any) -> None:
    """Name some padding token where there is none, so that the module can be run on rows that need no padding."""
    if padding_of(config) is None:
        named = [getattr(config, name, None) for name in ("eos_token_id", "bos_token_id")]
        config.pad_token_id = next((one for one in named if isinstance(one, int) and one >= 0), 0)


def settle_padding(model: LoadedModel, named: int | None) -> None:
    """Decide on the padding token: the configuration's own, else one of the tokenizer's that no text ends with.

    Args:
        named: what the configuration said before `prepare_padding`.

    Raises:
        ModelError: there is none.
    """
    config, tokenizer = model.config, model.tokenizer
    if named is not None:
        return
    if tokenizer is None:
        raise ModelError(
            f"{model.ref} does not say which token fills up rows: set pad_token_id in its configuration, or give its "
            f"tokenizer."
        )
    ends = special_tokens(model)[1]
    usable = [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, *tokenizer.all_special_ids]
    found = next((one for one in usable if one is not None and one not in ends), None)
    if found is None:
        raise ModelError(
            f"{model.ref} has no padding token, and its tokenizer none that could be one: set pad_token_id in its "
            f"configuration."
        )
    config.pad_token_id = int(found)


def padding_of(config: Any) -> int | None:
    """The padding token that a configuration names, where it is one of the vocabulary."""
    number = getattr(config, "pad_token_id", None)
    size = getattr(config, "vocab_size", None)
    fits = isinstance(number, int) and number >= 0 and (not isinstance(size, int) or number < size)
    return number if fits else None
