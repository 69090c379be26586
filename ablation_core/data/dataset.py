"""Data sets: batches of inputs and targets, the same every time.

**Text** is tokenised without special tokens and cut into windows of `seq_len` tokens: packed, or each document by itself
(`windows.py`). Where the model's tokenizer puts tokens before or after a text (BOS, or CLS and SEP), every window has them,
counted in `seq_len`.

**A prediction** is
* causal: the next token, at every position of a window but the last, where it is no special one;
* masked: a chosen token. In each window 15% of the ordinary tokens are chosen (at least one); of these 80% are
  replaced by the mask, 10% by a random ordinary token, 10% are left. The draw depends on the seed and the window's
  number alone, so that every method sees the same;
* vision: an image's class, and in text classification a text's. The seed picks which of the part are used, and their order.

The last sequence is scored only as far as is needed for exactly the number of predictions asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from ablation_core.errors import DataError

IGNORED = -100  # a target that is not scored
DEFAULT_BATCH = {"causal": 8, "masked": 8, "vision": 64, "text-classification": 16}


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
        pool: how many can be resampling sources: these, and one more where a single one is scored.
        predictions: how many targets are scored in all.
        fingerprint: a digest of all inputs and targets.
        source: a digest of the file or folder behind them; empty for the data sets that come with Python or the project.
        notes: sentences about what was changed or left out.
        documents: whether each document has windows of its own; else texts are packed. None for images and given rows.
        made_for: what a model must share to read it: its tokenizer, or what it makes of an image (`made_for.py`).
        given: what a person gave in place of a reference; None for a reference.
        longest: in tasks, the tokens of the longest prompt with its answer; rows are padded to it.
        groups: in tasks, the number of each prompt's group: what intervals resample; long (sequences,).
        lengths: in tasks, the tokens of each prompt's first row; long (sequences,).
        one_answer: whether every prompt's answers are one token each.
        counterfactual: in tasks, as `rows`, but the counterfactual prompts; None where one is missing.
    """

    ref: str
    split: str
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
    documents: bool | None = None
    made_for: str = ""
    given: Any = field(default=None, repr=False)
    longest: int | None = None
    groups: np.ndarray | None = field(default=None, repr=False)
    lengths: np.ndarray | None = field(default=None, repr=False)
    counterfactual: Callable[[Sequence[int]], Batch] | None = field(default=None, repr=False)
    one_answer: bool = True

    @property
    def is_task(self) -> bool:
        """Whether it is prompts with a right and a wrong answer."""
        return self.groups is not None

    def check_one_answer(self, what: str) -> None:
        """Refuse a task whose answers have several tokens, for what goes by single predictions.

        Raises:
            DataError: it is such a task.
        """
        if self.is_task and not self.one_answer:
            raise DataError(
                f"In {self.ref} some answers have several tokens, so that the right and the wrong one are not read off the "
                f"same logits; {what} needs answers of one token."
            )

    @property
    def is_text(self) -> bool:
        """Whether its sequences are windows of tokens that may be padded."""
        return self.seq_len is not None

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


def scored_rows(targets: np.ndarray) -> np.ndarray:
    """The row of each scored prediction of a batch, in the order in which they are scored."""
    return np.arange(len(targets)) if targets.ndim == 1 else np.nonzero(targets != IGNORED)[0]


def predicted_rows(batch: Batch) -> np.ndarray:
    """Of each prediction of a batch, in the order of its scores, the number of its sequence within the batch.

    A task's prompts are its sequences and its predictions, whether they take one row each or two.
    """
    if batch.answers is not None:
        return np.arange(int(batch.answers.item.max()) + 1)
    return scored_rows(batch.targets.cpu().numpy())


def sequences_once(batch: Batch) -> Batch:
    """The batch with one row per sequence: of a task's prompts that take two rows, those with the right answer."""
    if batch.answers is None or not bool(batch.answers.wrong.any()):
        return batch
    right = ~batch.answers.wrong
    return Batch({name: tensor[right] for name, tensor in batch.inputs.items()}, batch.targets[right])


def checked_seed(seed: int) -> int:
    """The seed.

    Raises:
        DataError: it is negative, or not a whole number.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise DataError(f"The seed must be a whole number, not {seed!r}.")
    if seed < 0:
        raise DataError(f"The seed must be 0 or more, not {seed}.")
    return int(seed)
