"""From a data reference to batches of inputs and targets.

**Text** is tokenised without special tokens and cut into consecutive windows of `seq_len` tokens, what is left at the
end unused. Where the model's tokenizer puts tokens before or after a text (BOS, or CLS and SEP), every window has them,
counted in `seq_len`. All windows are equally long, so that there is no padding.

**A prediction** is
* causal: the next token, at every position of a window but the last;
* masked: a chosen token. In each window 15 % of the ordinary tokens are chosen (at least one); of these 80 % are
  replaced by the mask, 10 % by a random ordinary token, 10 % are left. The draw depends on the seed and the window's
  number alone, so that every method sees the same;
* vision: an image's class. The seed picks which images of the part are used, and their order.

The last sequence is scored only as far as is needed for exactly the number of predictions asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ablation_core.data.images import ImageItem, find_images
from ablation_core.data.references import DEFAULT_DATA as DEFAULT_DATA
from ablation_core.data.references import (
    IMAGE_NAMES,
    TEXT_NAMES,
    Split,
    is_images,
    is_text,
    read_text,
    source_digest,
)
from ablation_core.data.references import STATISTICS_PREDICTIONS as STATISTICS_PREDICTIONS
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import check_known, encode, known_tokens

IGNORED = -100
CHOSEN_SHARE, MASKED_SHARE, RANDOM_SHARE = 0.15, 0.8, 0.1
DEFAULT_BATCH = {"causal": 8, "masked": 8, "vision": 64}


@dataclass(frozen=True)
class Answers:
    """What makes a task's prompts of a batch's rows; a prompt is one prediction, however many tokens its answer has.

    Attributes:
        item: which of the batch's prompts each row belongs to; long (B,).
        wrong: the rows whose targets are the wrong answer's tokens; bool (B,).
        others: the wrong answer's token where both answers are read off one row, else -100; long (B, T).
        ends: how many of a row's positions are the prompt's; the rest are the answer's or padding; long (B,).
    """

    item: Tensor
    wrong: Tensor
    others: Tensor
    ends: Tensor


@dataclass(frozen=True)
class Batch:
    """Inputs as the module takes them, and targets: long (B, T) at the logits' positions, or (B,) for images.

    A target of -100 is not scored. In tasks `answers` says which rows and targets make a prompt.
    """

    inputs: dict[str, Tensor]
    targets: Tensor
    answers: Answers | None = None


@dataclass(frozen=True, kw_only=True)
class Data:
    """Batches, the same at each iteration.

    Attributes:
        sequences: how many windows or images are scored.
        pool: how many can be donors: these, and one more where a single one is scored.
        predictions: how many targets are scored in all.
        fingerprint: a digest of all inputs and targets.
        source: a digest of the file or folder behind them; empty for the data sets that come with Python or the project.
        notes: sentences about what was left out.
        longest: in tasks, the tokens of the longest prompt with its answer; rows are padded to it.
        groups: in tasks, the number of each prompt's group: what intervals resample; long (sequences,).
        lengths: in tasks, the tokens of each prompt's first row; long (sequences,).
        one_answer: whether every prompt's answers are one token each.
        counterfactual: in tasks, as `rows`, but the counterfactual prompts; None where one is missing.
    """

    ref: str
    split: Split
    seq_len: int | None
    seed: int
    batch_size: int
    sequences: int
    pool: int
    predictions: int
    fingerprint: str
    source: str
    notes: tuple[str, ...]
    rows: Callable[[Sequence[int]], Batch] = field(repr=False)
    longest: int | None = None
    groups: np.ndarray | None = field(default=None, repr=False)
    lengths: np.ndarray | None = field(default=None, repr=False)
    counterfactual: Callable[[Sequence[int]], Batch] | None = field(default=None, repr=False)
    one_answer: bool = True

    @property
    def is_task(self) -> bool:
        """Whether it is prompts with a right and a wrong answer."""
        return self.groups is not None

    @property
    def length(self) -> int:
        """Tokens in a row of a batch; text only."""
        length = self.longest or self.seq_len
        assert length is not None
        return length

    def __len__(self) -> int:
        """The number of batches."""
        return -(-self.sequences // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return (self.rows(self.numbers(batch)) for batch in range(len(self)))

    def numbers(self, batch: int) -> range:
        """The sequence numbers of a batch."""
        first = batch * self.batch_size
        return range(first, min(first + self.batch_size, self.sequences))


def load_data(
    ref: str,
    model: LoadedModel,
    predictions: int = 2000,
    seq_len: int = 128,
    batch_size: int | None = None,
    seed: int = 0,
    split: Split = "evaluation",
) -> Data:
    """Prepare a data set for a model. A part with fewer predictions than asked for gives all it has.

    Args:
        seq_len: tokens a window, special tokens included; text only.
        batch_size: sequences run at once (default 8 windows or 64 images); changes no result beyond float rounding.
        split: `evaluation` or `statistics`, disjoint parts of the data set.

    Raises:
        DataError: there is no such data, it does not fit the model, or it is too short for one window.
    """
    for name, value in (
        ("predictions", predictions),
        ("seq-len", seq_len),
        ("batch-size", 1 if batch_size is None else batch_size),
    ):
        if value < 1:
            raise DataError(f"The {name} must be at least 1, not {value}.")
    if split not in ("evaluation", "statistics"):
        raise DataError(f"There is no split {split!r}; choose evaluation or statistics.")
    checked_seed(seed)
    size = batch_size or DEFAULT_BATCH[model.modality]
    if not is_text(ref) and not is_images(ref):
        names = ", ".join((*TEXT_NAMES, "text:PATH", *IMAGE_NAMES, "images:FOLDER"))
        raise DataError(f"There is no data set {ref!r}. Choose one of {names}.")
    if is_images(ref) != (model.modality == "vision"):
        kinds = ("images", "text") if model.modality == "vision" else ("text", "images")
        raise DataError(f"{model.ref} reads {kinds[0]}, but {ref} holds {kinds[1]}.")
    if is_images(ref):
        return _load_images(ref, model, predictions, size, seed, split)
    return _load_text(ref, model, predictions, seq_len, size, seed, split)


def scored_rows(targets: np.ndarray) -> np.ndarray:
    """The row of each scored prediction of a batch, in the order in which they are scored."""
    return np.arange(len(targets)) if targets.ndim == 1 else np.nonzero(targets != IGNORED)[0]


def checked_seed(seed: int) -> int:
    """The seed.

    Raises:
        DataError: it is negative.
    """
    if seed < 0:
        raise DataError(f"The seed must be 0 or more, not {seed}.")
    return seed


def _load_text(
    ref: str, model: LoadedModel, predictions: int, seq_len: int, batch_size: int, seed: int, split: Split
) -> Data:
    before, after = special_tokens(model)
    body = seq_len - len(before) - len(after)
    if model.max_length is not None and seq_len > model.max_length:
        raise DataError(f"{model.ref} reads at most {model.max_length} tokens; choose a seq-len up to that.")
    if body < 1 or (model.modality == "causal" and seq_len < 2):
        raise DataError(f"A window of {seq_len} tokens has no room for a prediction; choose a longer seq-len.")

    windows, targets, missing, sequences = [], [], predictions, 0
    for number, tokens in enumerate(_windows(ref, split, model, body)):
        ids = np.concatenate([before, tokens, after]).astype(np.int64)
        if model.modality == "causal":
            target = np.append(ids[1:], IGNORED)
        else:
            ids, target = _masked(ids, len(before), len(tokens), model, np.random.default_rng((seed, number)))
        scored = np.flatnonzero(target != IGNORED)
        target[scored[missing:]] = IGNORED
        windows.append(ids)
        targets.append(target)
        sequences += missing > 0
        missing -= min(missing, len(scored))
        if not missing and len(windows) > 1:
            break
    if not windows:
        raise DataError(
            f"The {split} part of {ref} is shorter than one window of {seq_len} tokens; "
            f"choose a smaller seq-len or a longer text."
        )
    inputs, labels = torch.from_numpy(np.stack(windows)), torch.from_numpy(np.stack(targets))
    check_known(model, int(inputs.max()))

    def rows(chosen: Sequence[int]) -> Batch:
        index = torch.as_tensor(list(chosen))
        mask = torch.ones(len(index), seq_len, dtype=torch.long)
        return Batch({"input_ids": inputs[index], "attention_mask": mask}, labels[index])

    fingerprint = hashlib.sha256(inputs.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()[:16]
    done = predictions - missing
    return Data(
        ref=ref,
        split=split,
        seq_len=seq_len,
        seed=seed,
        batch_size=batch_size,
        sequences=sequences,
        pool=len(inputs),
        predictions=done,
        fingerprint=fingerprint,
        source=source_digest(ref),
        notes=(),
        rows=rows,
    )


def special_tokens(model: LoadedModel) -> tuple[list[int], list[int]]:
    """The ids that the model's tokenizer puts before and after a text; none after it for causal models."""
    whole, bare = (encode(model, "a", special) for special in (True, False))
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            after = [] if model.modality == "causal" else whole[start + len(bare) :]
            return whole[:start], after
    raise DataError(f"The tokenizer of {model.ref} changes a text's tokens when it adds special ones; not supported.")


def ordinary_tokens(model: LoadedModel) -> np.ndarray:
    """The ids that tokenizer and model both know, without special ones; int64."""
    known = min(len(model.tokenizer), known_tokens(model))
    return np.setdiff1d(np.arange(known), model.tokenizer.all_special_ids)


def _windows(ref: str, split: Split, model: LoadedModel, body: int) -> Iterator[np.ndarray]:
    """Consecutive runs of `body` tokens, read and tokenised only as far as they are asked for."""
    held: list[int] = []
    for unit in read_text(ref, split):
        held += encode(model, unit)
        whole = len(held) // body * body
        for start in range(0, whole, body):
            yield np.array(held[start : start + body])
        held = held[whole:]


def _masked(
    ids: np.ndarray, first: int, count: int, model: LoadedModel, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A window's corrupted ids and its targets, after BERT (Devlin et al. 2019, section 3.1)."""
    if model.tokenizer.mask_token_id is None:
        raise DataError(f"The tokenizer of {model.ref} has no mask token; a masked language model needs one.")
    chosen = first + np.sort(generator.permutation(count)[: max(1, round(CHOSEN_SHARE * count))])
    targets = np.full_like(ids, IGNORED)
    targets[chosen] = ids[chosen]
    fate = generator.random(len(chosen))
    noise = generator.choice(ordinary_tokens(model), len(chosen))
    corrupted = ids.copy()
    corrupted[chosen] = np.where(
        fate < MASKED_SHARE,
        model.tokenizer.mask_token_id,
        np.where(fate < MASKED_SHARE + RANDOM_SHARE, noise, ids[chosen]),
    )
    return corrupted, targets


def _load_images(ref: str, model: LoadedModel, predictions: int, batch_size: int, seed: int, split: Split) -> Data:
    items, notes = find_images(ref, split, model.labels)
    order = np.random.default_rng(seed).permutation(len(items))[: max(2, predictions)]
    chosen: list[ImageItem] = [items[index] for index in order]
    digest = hashlib.sha256(b"".join(item.digest() for item in chosen))
    to_pixels, name = model.to_pixels, model.input_name  # data that is kept must not keep a model

    def rows(indices: Sequence[int]) -> Batch:
        picked = [chosen[index] for index in indices]
        pixels = torch.stack([to_pixels(item.open()) for item in picked])
        return Batch({name: pixels}, torch.tensor([item.target for item in picked]))

    count = min(predictions, len(chosen))
    fingerprint = digest.hexdigest()[:16]
    source = source_digest(ref)
    return Data(
        ref=ref,
        split=split,
        seq_len=None,
        seed=seed,
        batch_size=batch_size,
        sequences=count,
        pool=len(chosen),
        predictions=count,
        fingerprint=fingerprint,
        source=source,
        notes=tuple(notes),
        rows=rows,
    )
