"""Where in a sequence an ablation acts: the text form, and which positions of a batch it means.

    >>> str(Positions.parse("3-7, last"))
    '3-7,last'
    >>> Positions.parse("all").everywhere
    True

Positions are counted from a sequence's first token that is not padding, BOS or CLS included, from 0; `-1` is the last
one, `last` another name for it, `3-7` a run with both ends, `3-` all from there on. In tasks the sequence is the prompt:
tokens of an answer that are given to the model to predict its next ones are never counted, and `answer` means the
positions at which the answer is predicted.
"""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import SupportsIndex

import torch
from torch import Tensor

from ablation_core.data.dataset import IGNORED, Batch, Data
from ablation_core.errors import DataError

Span = tuple[int, int | None]  # first and last, both included; None: to the end

_TERM = re.compile(r"(?P<first>-?\d{1,9})(?P<run>-(?P<last>-?\d{1,9})?)?", re.ASCII)
_HOW = "Write all, last, answer (in tasks), 3, -2, 3-7 or 3-, several by commas."


@dataclass(frozen=True)
class Positions:
    """A set of positions; the default is all of them.

    Attributes:
        spans: what is named by number; empty for all positions or none by number.
        answer: whether the positions at which a task's answer is predicted are among them.
        everywhere: whether it is simply every position, padding too, as in the paper.
    """

    spans: tuple[Span, ...] = ()
    answer: bool = False

    @property
    def everywhere(self) -> bool:
        return not self.spans and not self.answer

    @property
    def skipped(self) -> int:
        """How many positions at the start are left as they are, where that is all that is said; else 0."""
        alone = len(self.spans) == 1 and self.spans[0][1] is None and not self.answer
        return max(0, self.spans[0][0]) if alone else 0  # from the third last on: how many come before differs

    @classmethod
    def parse(cls, text: str) -> "Positions":
        """Read the text form.

        Raises:
            DataError: a term is not a position.
        """
        terms = [term.strip() for term in text.split(",")]
        if terms == ["all"]:
            return cls()
        spans: list[Span] = []
        for term in terms:
            if term == "last":
                spans.append((-1, -1))
            elif term != "answer":
                spans.append(_span(term))
        return cls(tuple(spans), "answer" in terms)

    @classmethod
    def read(cls, positions: "str | int | Iterable[int | str] | Positions") -> "Positions":
        """The positions themselves, or those that a text, a number or several of these name.

        Raises:
            DataError: they cannot be read.
        """
        if isinstance(positions, Positions):
            return positions
        parts = list(positions) if isinstance(positions, Iterable) and not isinstance(positions, str) else [positions]
        if not parts or any(isinstance(part, bool) or not isinstance(part, str | SupportsIndex) for part in parts):
            raise DataError(f"Cannot read {str(positions)[:80]} as positions. Write all, last, 3, -2, 3-7, or [3, 5].")
        return cls.parse(",".join(map(str, parts)))

    @classmethod
    def after(cls, skipped: int) -> "Positions":
        """All but the first `skipped` positions.

        Raises:
            DataError: it is negative.
        """
        if skipped < 0:
            raise DataError(f"The number of skipped positions must be 0 or more, not {skipped}.")
        return cls(((skipped, None),)) if skipped else cls()

    def __str__(self) -> str:
        if self.everywhere:
            return "all"
        terms = ["last" if span == (-1, -1) else _written(span) for span in self.spans]
        return ",".join([*terms, *(["answer"] if self.answer else [])])

    def check(self, longest: int | None, has_answers: bool) -> None:
        """Find out whether there are such positions.

        Args:
            longest: tokens of the longest sequence; None where only the model knows (images).

        Raises:
            DataError: `answer` without a task, or a position beyond every sequence.
        """
        if self.answer and not has_answers:
            raise DataError(
                "The position answer is for tasks (task:NAME or pairs:FILE); elsewhere name a number or last."
            )
        if longest is None:
            return
        for position in (end for span in self.spans for end in span if end is not None):
            if not -longest <= position < longest:
                raise DataError(f"There is no position {position}: the longest sequence has {longest} tokens.")

    def check_in(self, data: Data) -> None:
        """Find out before a run whether each part of these is somewhere in the data.

        Raises:
            DataError: `answer` without a task, or positions that no sequence has.
        """
        lengths = sequence_lengths(data) if self.spans and (data.is_task or data.is_text) else set()
        self.check(max(lengths, default=None), data.is_task)
        self._check_any(lengths)

    def _check_any(self, lengths: Collection[int]) -> None:
        """Refuse a run of positions that is empty in sequences of all these lengths, such as 8--8 where none has 16."""
        for span in self.spans if lengths else ():
            if not any(low <= high for low, high in (_within(span, length) for length in lengths)):
                raise DataError(
                    f"No sequence has positions {_written(span)}: the longest has {max(lengths)} tokens, in which they run "
                    f"backwards."
                )

    def single(self, longest: int) -> tuple[int, ...]:
        """Each of these positions by itself, in order; where they are all positions, counted from the start.

        Args:
            longest: tokens of the longest sequence.

        Raises:
            DataError: `answer` is among them, or one is beyond every sequence.
        """
        if self.answer:
            raise DataError("The position answer differs from prompt to prompt; name numbers, or last.")
        self.check(longest, has_answers=True)
        found: dict[int, None] = {}
        for first, last in self.spans or ((0, None),):
            if last is None:
                last = longest - 1 if first >= 0 else -1
            elif first >= 0 > last:
                last += longest
            elif last >= 0 > first:
                first += longest
            if not -longest <= last < longest:
                raise DataError(f"There is no position {last}: the longest sequence has {longest} tokens.")
            found |= dict.fromkeys(range(first, last + 1))
        return tuple(sorted(found, key=lambda at: (at < 0, at)))

    def firsts(self, batch: Batch) -> Tensor | None:
        """Of each row of a batch of texts the first column of these, its length where it has none; None for all positions."""
        if self.everywhere or batch.targets.ndim == 1:
            return None
        rows, length = batch.targets.shape
        here = self.mask(batch)(torch.empty(rows, length, 1))[:, :, 0]
        return torch.where(here.any(1), here.long().argmax(1), length)

    def mask(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        """A function from z, (batch, position, …), to the positions meant, bool (batch, position, 1)."""

        def mask(z: Tensor) -> Tensor:
            rows, length = z.shape[:2]
            real = batch.inputs.get("attention_mask")
            if len(batch.targets if real is None else real) != rows:
                raise DataError("This model looks at parts of its input one by one; positions cannot be named in it.")
            if real is None:  # images, which are all of one size that shows only here
                self.check(length, has_answers=False)
                self._check_any([length])
                real = torch.ones(rows, length, dtype=torch.long)
            real = real.to(z.device).bool()
            if batch.answers is not None:
                real = real & (torch.arange(length, device=z.device) < batch.answers.ends.to(z.device)[:, None])
            number = real.cumsum(1) - 1
            total = real.sum(1, keepdim=True)
            chosen = torch.zeros_like(real)
            for first, last in self.spans:
                low = first + (total if first < 0 else 0)
                high = total - 1 if last is None else last + (total if last < 0 else 0)
                chosen |= (low <= number) & (number <= high)
            chosen &= real
            if self.answer and batch.targets.ndim == 1:
                raise DataError("A text classifier answers for its whole text; name positions by number, or last.")
            if self.answer:
                chosen = chosen | (batch.targets != IGNORED).to(z.device)
            return chosen[:, :, None]

        return mask


EVERYWHERE = Positions()


def sequence_lengths(data: Data) -> set[int]:
    """The lengths of the sequences of texts, without padding; of tasks those of the prompts, without answers."""
    found: set[int] = set()
    for batch in data:
        real = batch.inputs.get("attention_mask")
        if batch.answers is not None:
            found.update(batch.answers.ends.tolist())
        else:
            found.update([data.length] if real is None else real.sum(1).tolist())
    return found


def _within(span: Span, length: int) -> tuple[int, int]:
    """The first and the last of these positions that a sequence of this length has, counted from its start."""
    first, last = span
    low = first + (length if first < 0 else 0)
    high = length - 1 if last is None else last + (length if last < 0 else 0)
    return max(low, 0), min(high, length - 1)


def _span(term: str) -> Span:
    match = _TERM.fullmatch(term)
    if match is None:
        raise DataError(f"Cannot read {term!r} as a position. {_HOW}")
    first = int(match["first"])
    if match["run"] is None:
        return first, first
    if match["last"] is None:
        return first, None
    last = int(match["last"])
    if (first < 0) == (last < 0) and first > last:
        raise DataError(f"The positions {term!r} run backwards. {_HOW}")
    return first, last


def _written(span: Span) -> str:
    first, last = span
    return str(first) if first == last else f"{first}-{'' if last is None else last}"
