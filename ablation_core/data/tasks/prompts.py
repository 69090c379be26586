"""From a pair of answers to a prompt's rows: tokens, and the answers' tokens as targets.

A prompt is one sequence and one prediction, however many tokens its answer has: the answer is scored whole, as the sum of
its tokens' log-probabilities. Where the right and the wrong answer are read off the same logits (answers of one token, or
that differ in their last one, classes, and all answers of masked models) a prompt is one row. Else it is two: the prompt with the
right answer behind it, and with the wrong one.
"""

from dataclasses import dataclass

from ablation_core.data.labelled.classes import ClassLabels
from ablation_core.data.tasks.pairs import Pair
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import encode, special_tokens

MASK = "[MASK]"  # how a file writes the place of the answer; the tokenizer's own mask is understood too


@dataclass(frozen=True)
class Row:
    """A row of tokens with its targets: the answer's, and beside them the other answer's where both are read off here."""

    ids: list[int]
    targets: dict[int, int]
    others: dict[int, int]
    end: int  # behind the prompt's last token


@dataclass(frozen=True)
class Prompt:
    """A prompt's rows: one, or one with the right and one with the wrong answer; and those of its counterfactual."""

    rows: tuple[Row, ...]
    counterfactual: tuple[Row, ...] | None
    group: str | None


def prompt_of(model: LoadedModel, pair: Pair, name: str) -> Prompt:
    """A pair's prompt and answers as the model's tokens.

    Args:
        name: what the prompt is called in a sentence.

    Raises:
        DataError: an answer has no token, both are the same, or the prompt has no place for one.
    """
    rows = _rows(model, pair.prompt, pair, name)
    other = None
    if pair.counterfactual is not None:
        other = _rows(model, pair.counterfactual, pair, f"the counterfactual of {name}")
        if [len(row.ids) for row in other] != [len(row.ids) for row in rows]:
            other = None  # it has not the same positions; a note says so
    return Prompt(rows, other, pair.group)


def _rows(model: LoadedModel, prompt: str | tuple[int, ...], pair: Pair, name: str) -> tuple[Row, ...]:
    before, after = special_tokens(model)
    if model.predicts_class:
        return (_classified_row(model, prompt, pair, name, before, after),)
    if model.modality == "masked":
        return _masked_rows(model, prompt, pair, name, before, after)
    made = []
    for answer in (pair.right, pair.wrong):
        start, tokens = _answer(model, prompt, answer, name)
        made.append(([*before, *_bare(start, before, [])], tokens))
    (right_start, right), (wrong_start, wrong) = made
    if right == wrong and right_start == wrong_start:
        raise DataError(f"In {name} the right and the wrong answer are the same tokens.")
    shared = right_start == wrong_start and len(right) == len(wrong) and right[:-1] == wrong[:-1]
    first = _causal_row(right_start, right, wrong if shared else [])
    return (first,) if shared else (first, _causal_row(wrong_start, wrong, []))


def _causal_row(start: list[int], answer: list[int], other: list[int]) -> Row:
    places = range(len(start) - 1, len(start) - 1 + len(answer))
    ids = [*start, *answer[:-1]]
    return Row(ids, dict(zip(places, answer, strict=True)), dict(zip(places, other, strict=False)), len(start))


def _answer(
    model: LoadedModel, prompt: str | tuple[int, ...], answer: str | tuple[int, ...], name: str
) -> tuple[list[int], list[int]]:
    """A prompt's tokens and those of an answer behind it, as the tokenizer makes them of both together where it can."""
    if not isinstance(prompt, str) or not isinstance(answer, str):
        start, tokens = _ids(prompt), _ids(answer)
    else:
        start, whole = encode(model, prompt), encode(model, prompt + answer)
        tokens = whole[len(start) :] if whole[: len(start)] == start else encode(model, answer)
    if not start:
        raise DataError(f"In {name} the prompt has no token; write some text before the answer.")
    if not tokens:
        raise DataError(
            f"In {name} the answer {answer!r} has no token of its own behind the prompt; write it with its space."
        )
    return start, tokens


def _masked_rows(
    model: LoadedModel, prompt: str | tuple[int, ...], pair: Pair, name: str, before: list[int], after: list[int]
) -> tuple[Row, ...]:
    mask = model.tokenizer.mask_token_id
    if mask is None:
        raise DataError(f"The tokenizer of {model.ref} has no mask token; a masked language model needs one.")
    made = []
    for answer in (pair.right, pair.wrong):
        left, tokens, right = _filled(model, prompt, answer, name)
        if mask in tokens:
            raise DataError(
                f"In {name} the answer {answer!r} holds the mask, which stands for an answer; write the answer."
            )
        left, right = _bare(left, before, []), _bare(right, [], after)
        made.append(([*before, *left, *[mask] * len(tokens), *right, *after], len(before) + len(left), tokens))
    (right_ids, place, right_answer), (wrong_ids, wrong_place, other) = made
    if right_answer == other:
        raise DataError(f"In {name} the right and the wrong answer are the same tokens.")
    shared = right_ids == wrong_ids
    rows = [Row(right_ids, _from(place, right_answer), _from(place, other) if shared else {}, len(right_ids))]
    if not shared:
        rows.append(Row(wrong_ids, _from(wrong_place, other), {}, len(wrong_ids)))
    return tuple(rows)


def _classified_row(
    model: LoadedModel, prompt: str | tuple[int, ...], pair: Pair, name: str, before: list[int], after: list[int]
) -> Row:
    """A text classifier's row: the whole text, and two of its classes, which stand at the first place."""
    assert isinstance(prompt, str)  # of a file
    tokens, named = _bare(encode(model, prompt), before, after), ClassLabels(tuple(model.labels))
    if not tokens:
        raise DataError(f"In {name} the prompt has no token; write a text to classify.")
    right, wrong = (
        named(answer, f"{what} of {name}") for what, answer in (("right", pair.right), ("wrong", pair.wrong))
    )
    if right == wrong:
        raise DataError(f"In {name} the right and the wrong answer are the same class.")
    ids = [*before, *tokens, *after]
    return Row(ids, {0: right}, {0: wrong}, len(ids))


def _bare(tokens: list[int], before: list[int], after: list[int]) -> list[int]:
    """Tokens without what is put around them anyway, where a prompt spells it."""
    tokens = tokens[len(before) :] if before and tokens[: len(before)] == before else tokens
    return tokens[: -len(after)] if after and tokens[-len(after) :] == after else tokens


def _ids(tokens: str | tuple[int, ...]) -> list[int]:
    """A prompt or an answer that is given as tokens; a task gives all of a pair in one form."""
    assert not isinstance(tokens, str)
    return list(tokens)


def _from(place: int, tokens: list[int]) -> dict[int, int]:
    return {place + number: token for number, token in enumerate(tokens)}


def mark_of(model: LoadedModel, prompt: str) -> str | None:
    """How a prompt for a masked model writes the place of its answer; None where it does not."""
    return next((mark for mark in (MASK, model.tokenizer.mask_token) if mark in prompt), None)


def _filled(
    model: LoadedModel, prompt: str | tuple[int, ...], answer: str | tuple[int, ...], name: str
) -> tuple[list[int], list[int], list[int]]:
    """The tokens before, of, and behind the answer."""
    if not isinstance(prompt, str) or not isinstance(answer, str):
        return _ids(prompt), _ids(answer), []
    mark = mark_of(model, prompt)
    left, right = prompt.split(mark, 1) if mark else (prompt, "")
    if mark and mark in right:
        raise DataError(f"In {name} the prompt has more than one {mark}; an answer belongs in one place.")
    space = " " if left.endswith(" ") and not answer.startswith(" ") else ""  # many tokenizers join it to the word
    left, answer = (left[:-1], space + answer) if space else (left, answer)
    start, whole, end = (encode(model, text) for text in (left, left + answer + right, right))
    if whole[: len(start)] == start and whole[len(whole) - len(end) :] == end and len(whole) > len(start) + len(end):
        tokens = whole[len(start) : len(whole) - len(end)]
    else:
        tokens = encode(model, answer)
    if not tokens:
        raise DataError(f"In {name} the answer {answer!r} has no token.")
    return start, tokens, end
