"""The other inputs that resampling takes activations from: another sequence for each, or one fixed input for all.

Random characters, random tokens, generated text and random pixels are the paper's (Pochinkov, Pasero, Shibayama 2024);
other inputs of the data set are those of causal scrubbing. A source is as long as the data's windows and has the same
special tokens around it. It is run through the clean model.
"""

import inspect
import string
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ablation_core.data.dataset import Batch, Data
from ablation_core.errors import MethodError
from ablation_core.methods.kept import KeptFile
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import encode, ordinary_tokens, special_tokens

CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " "
_FILLED_AT_ONCE = 8  # masked tokens of a window that are drawn together, given all that were drawn before


def other_sequences(model: LoadedModel, data: Data, numbers: Sequence[int], seed: int) -> Batch:
    """For every sequence another one of the same data set, never itself: the one a random distance further on.

    Raises:
        MethodError: there is only one sequence.
    """
    if data.pool < 2:
        raise MethodError(f"Resampling from other inputs needs at least two of them; {data.ref} holds one.")
    if data.lengths is not None:
        return data.rows(_as_long(data.lengths, numbers, seed))
    distance = int(np.random.default_rng(seed).integers(1, data.pool))
    chosen = [(number + distance) % data.pool for number in numbers]
    batch = data.rows(chosen)
    if data.is_text and not bool(batch.inputs["attention_mask"].all()):
        return _filled_up(data, batch, chosen, numbers)
    return batch


def _filled_up(data: Data, batch: Batch, chosen: Sequence[int], numbers: Sequence[int]) -> Batch:
    """The same rows with further sequences in the place of padding, never the one that takes the values: a position must
    not take what a model makes of padding."""
    ids, mask = batch.inputs["input_ids"].clone(), batch.inputs["attention_mask"]
    for row, (source, own) in enumerate(zip(chosen, numbers, strict=True)):
        filled, following = int(mask[row].sum()), source
        while filled < ids.shape[1]:
            following = (following + 1) % data.pool
            if following == own:
                continue
            more = data.rows([following]).inputs
            tokens = more["input_ids"][0][more["attention_mask"][0].bool()][: ids.shape[1] - filled]
            ids[row, filled : filled + len(tokens)] = tokens
            filled += len(tokens)
    return Batch({**batch.inputs, "input_ids": ids, "attention_mask": torch.ones_like(mask)}, batch.targets)


def _as_long(lengths: np.ndarray, numbers: Sequence[int], seed: int) -> list[int]:
    """For every prompt another one of as many tokens, so that positions correspond; of any length where it is alone."""
    chosen = []
    for number in numbers:
        same = np.flatnonzero(lengths == lengths[number])
        pool = same if len(same) > 1 else np.arange(len(lengths))
        distance = int(np.random.default_rng((seed, len(pool))).integers(1, len(pool)))
        chosen.append(int(pool[(np.flatnonzero(pool == number)[0] + distance) % len(pool)]))
    return chosen


def counterfactual_prompts(model: LoadedModel, data: Data, numbers: Sequence[int], seed: int) -> Batch:
    """For every prompt of a task its counterfactual one, position by position.

    Raises:
        MethodError: the data has none, or one is not as long as its prompt.
    """
    if data.counterfactual is None:
        raise MethodError(
            f"The method counterfactual needs a counterfactual prompt of as many tokens for every prompt; {data.ref} has "
            f"not. Use a task (task:ioi), or pairs:FILE with the field counterfactual in each line."
        )
    return data.counterfactual(numbers)


def random_characters(model: LoadedModel, data: Data, numbers: Sequence[int], seed: int) -> Batch:
    """One window of the tokens of random printable characters."""
    generator = np.random.default_rng(seed)
    tokens: list[int] = []
    while len(tokens) < data.length:
        text = "".join(generator.choice(list(CHARACTERS), size=4 * data.length))
        if not (more := encode(model, text)):
            raise MethodError(
                f"The tokenizer of {model.ref} makes no tokens of ordinary characters; choose another method."
            )
        tokens += more
    return _window(model, data, tokens)


def random_tokens(model: LoadedModel, data: Data, numbers: Sequence[int], seed: int) -> Batch:
    """One window of ordinary tokens, each as likely as any other."""
    tokens = np.random.default_rng(seed).choice(ordinary_tokens(model), data.length)
    return _window(model, data, tokens.tolist())


def generated_text(model: LoadedModel, data: Data, numbers: Sequence[int], seed: int) -> Batch:
    """One window that the model itself writes, drawn from its own probabilities.

    A causal model writes from left to right. A masked one begins with masks only and fills some at a time in random
    order, after Wang and Cho (2019).
    """
    file = kept_text(model, data, seed)
    kept = file.recall()
    if kept is None:
        kept = {"tokens": written_tokens(model, data, seed)}
        file.keep(kept)
    return _window(model, data, kept["tokens"].tolist())


def kept_text(model: LoadedModel, data: Data, seed: int) -> KeptFile:
    """Where what the model writes is kept."""
    return KeptFile.of(model, "text", data.length, seed)


def written_tokens(model: LoadedModel, data: Data, seed: int) -> Tensor:
    """The ids that the model writes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode(), model.lock:
        written = _continued(model, data, generator) if model.modality == "causal" else _filled(model, data, generator)
    return torch.tensor(written)


def random_pixels(model: LoadedModel, data: Data, numbers: Sequence[int], seed: int) -> Batch:
    """One image of random pixels, prepared as the model's other images are."""
    height, width = data.rows([0]).inputs[model.input_name].shape[-2:]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Batch({model.input_name: model.to_pixels(Image.fromarray(pixels))[None]}, torch.tensor([0]))


def _window(model: LoadedModel, data: Data, tokens: Sequence[int]) -> Batch:
    """A batch of one window of the data's length: special tokens around as many of these as there is room for."""
    before, after = special_tokens(model)
    ids = torch.tensor([[*before, *tokens[: data.length - len(before) - len(after)], *after]])
    return Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.full_like(ids, -100))


def _continued(model: LoadedModel, data: Data, generator: torch.Generator) -> list[int]:
    before, _ = special_tokens(model)
    ordinary = torch.from_numpy(ordinary_tokens(model))
    first = ordinary[torch.randint(len(ordinary), (1,), generator=generator)].tolist()
    written = before or first
    next_logits = _with_cache(model) if model.dtype == "float32" and model.verified else _afresh(model)
    while len(written) < data.length:
        written = [*written, *_drawn(next_logits(written)[None], ordinary, generator)]
    return written[len(before) :]


def _afresh(model: LoadedModel) -> Callable[[Sequence[int]], Tensor]:
    """A function from a text's tokens to the logits of its next one."""
    return lambda written: _logits(model, written)[-1]


def _with_cache(model: LoadedModel) -> Callable[[Sequence[int]], Tensor]:
    """The same for a text that only grows, with its keys and values kept: a fifth of the time.

    In float32 the logits are those of a pass over the whole text but for rounding, too little to draw another token.
    """
    from transformers import DynamicCache

    kept, seen = DynamicCache(config=model.config), 0
    taken = inspect.signature(model.module.forward).parameters
    name = "cache" if "cache" in taken else "past_key_values"  # what older releases of transformers call it

    def next_logits(written: Sequence[int]) -> Tensor:
        nonlocal seen
        ids = torch.tensor([written[seen:]], device=model.device)
        mask = torch.ones(1, len(written), dtype=torch.long, device=model.device)
        logits = model.module(input_ids=ids, attention_mask=mask, use_cache=True, **{name: kept}).logits
        seen = len(written)
        return logits[0, -1].float().cpu()

    return next_logits


def _filled(model: LoadedModel, data: Data, generator: torch.Generator) -> list[int]:
    before, after = special_tokens(model)
    ordinary = torch.from_numpy(ordinary_tokens(model))
    body = data.length - len(before) - len(after)
    tokens = torch.full((body,), model.tokenizer.mask_token_id)
    for places in torch.randperm(body, generator=generator).split(_FILLED_AT_ONCE):
        logits = _logits(model, [*before, *tokens.tolist(), *after])[len(before) :]
        tokens[places] = torch.tensor(_drawn(logits[places], ordinary, generator))
    return tokens.tolist()


def _logits(model: LoadedModel, tokens: Sequence[int]) -> Tensor:
    ids = torch.tensor([tokens], device=model.device)
    return model.module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].float().cpu()


def _drawn(logits: Tensor, ordinary: Tensor, generator: torch.Generator) -> list[int]:
    """An ordinary token for each row, by the model's probabilities."""
    shares = logits[:, ordinary].softmax(-1)
    return ordinary[torch.multinomial(shares, 1, generator=generator)[:, 0]].tolist()
