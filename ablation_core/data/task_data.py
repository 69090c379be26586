"""From pairs of answers to batches: prompts as rows of one length, padded on the right, with the answers' tokens as targets.

A prompt is one sequence and one prediction, however many tokens its answer has: the answer is scored whole, as the sum of
its tokens' log-probabilities. Where the right and the wrong answer are read off the same logits (answers of one token, or
that differ in their last one, and all answers of masked models) a prompt is one row. Else it is two: the prompt with the
right answer behind it, and with the wrong one.

Padding stands on the right, where no position of a causal model sees it and a masked model's attention mask hides it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ablation_core.data.dataset import DEFAULT_BATCH, IGNORED, Answers, Batch, Data
from ablation_core.data.made_for import reader_key
from ablation_core.data.pairs import Pair, read_pairs
from ablation_core.data.references import Split, source_digest
from ablation_core.data.tasks import TASKS
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import check_known, encode, special_tokens

_SPLIT_SEEDS = {"evaluation": 0, "statistics": 1}
MASK = "[MASK]"  # how a file writes the place of the answer; the tokenizer's own mask is understood too


@dataclass(frozen=True)
class _Row:
    """A row of tokens with its targets: the answer's, and beside them the other answer's where both are read off here."""

    ids: list[int]
    targets: dict[int, int]
    others: dict[int, int]
    end: int  # behind the prompt's last token


@dataclass(frozen=True)
class _Prompt:
    """A prompt's rows: one, or one with the right and one with the wrong answer; and those of its counterfactual."""

    rows: tuple[_Row, ...]
    counterfactual: tuple[_Row, ...] | None
    group: str | None


def load_task(
    ref: str,
    model: LoadedModel,
    predictions: int,
    batch_size: int | None,
    seed: int,
    split: Split,
    seq_len: int | None = None,
) -> Data:
    """Prepare a task for a model: `task:NAME` draws prompts from the seed, `pairs:FILE` takes them from a file.

    The statistics part of a built-in task is drawn from another seed, that of a file is every other group of prompts.

    Raises:
        DataError: there is no such task or file, or a prompt cannot be used; the sentence says which and why.
    """
    drawn = islice(_pairs(ref, model, seed, split), predictions)
    prompts = [_prompt(model, pair, f"prompt {number}") for number, pair in enumerate(drawn)]
    if not prompts:
        raise DataError(f"The {split} part of {ref} has no prompt.")
    rows = max(len(prompt.rows) for prompt in prompts)
    lengths = [len(row.ids) for prompt in prompts for row in (*prompt.rows, *(prompt.counterfactual or ()))]
    longest = max(lengths)
    if model.max_length is not None and longest > model.max_length:
        raise DataError(
            f"{model.ref} reads at most {model.max_length} tokens; a prompt of {ref} has {longest} with its answer."
        )
    filler = _filler(model)

    def batch(chosen: Sequence[int], counterfactual: bool = False) -> Batch:
        picked = [prompts[number] for number in chosen]
        made = [prompt.counterfactual if counterfactual else prompt.rows for prompt in picked]
        flat = [
            (item, which, row) for item, some in enumerate(made) for which, row in enumerate(_doubled(some or (), rows))
        ]
        ids = torch.full((len(flat), longest), filler)
        mask, targets, others = torch.zeros_like(ids), torch.full_like(ids, IGNORED), torch.full_like(ids, IGNORED)
        for place, (_, _, row) in enumerate(flat):
            ids[place, : len(row.ids)] = torch.tensor(row.ids)
            mask[place, : len(row.ids)] = 1
            for position, token in row.targets.items():
                targets[place, position] = token
            for position, token in row.others.items():
                others[place, position] = token
        answers = Answers(
            item=torch.tensor([item for item, _, _ in flat]),
            wrong=torch.tensor([which == 1 for _, which, _ in flat]),
            others=others,
            ends=torch.tensor([row.end for _, _, row in flat]),
        )
        return Batch({"input_ids": ids, "attention_mask": mask}, targets, answers)

    everything = batch(range(len(prompts)))
    check_known(model, int(everything.inputs["input_ids"].max()))
    digest = hashlib.sha256(
        b"".join(tensor.numpy().tobytes() for tensor in (*everything.inputs.values(), everything.targets))
    )
    digest.update(everything.answers.others.numpy().tobytes() if everything.answers else b"")
    return Data(
        ref=ref,
        split=split,
        seq_len=None,
        seed=seed,
        batch_size=batch_size or 4 * DEFAULT_BATCH[model.modality],
        sequences=len(prompts),
        pool=len(prompts),
        predictions=len(prompts),
        fingerprint=digest.hexdigest()[:16],
        source=source_digest(ref),
        notes=_notes(prompts),
        rows=batch,
        made_for=reader_key(model),
        longest=longest,
        groups=_groups(prompts),
        one_answer=rows == 1 and all(len(prompt.rows[0].targets) == 1 for prompt in prompts),
        lengths=np.array([len(prompt.rows[0].ids) for prompt in prompts]),
        counterfactual=None
        if any(prompt.counterfactual is None for prompt in prompts)
        else lambda chosen: batch(chosen, counterfactual=True),
    )


def _pairs(ref: str, model: LoadedModel, seed: int, split: Split) -> Iterator[Pair]:
    kind, _, name = ref.partition(":")
    if kind == "task":
        if name not in TASKS:
            raise DataError(
                f"There is no task {name!r}. Choose one of {', '.join(TASKS)}, or bring your own (pairs:FILE)."
            )
        yield from TASKS[name].draw(model, np.random.default_rng((seed, _SPLIT_SEEDS[split])))
        return
    seen: dict[str, int] = {}
    pairs = list(read_pairs(Path(name)))
    if not pairs:
        raise DataError(f"{name} is empty; a JSONL file of pairs has prompt, right and wrong on each line.")
    for number, pair in enumerate(pairs):
        place = seen.setdefault(pair.group if pair.group is not None else f"\0{number}", len(seen))
        if place % 2 == _SPLIT_SEEDS[split] or len(pairs) == 1:
            yield pair


def _prompt(model: LoadedModel, pair: Pair, name: str) -> _Prompt:
    rows = _rows(model, pair.prompt, pair, name)
    other = None
    if pair.counterfactual is not None:
        other = _rows(model, pair.counterfactual, pair, f"the counterfactual of {name}")
        if [len(row.ids) for row in other] != [len(row.ids) for row in rows]:
            other = None  # it has not the same positions; `_notes` says so
    return _Prompt(rows, other, pair.group)


def _rows(model: LoadedModel, prompt: str | tuple[int, ...], pair: Pair, name: str) -> tuple[_Row, ...]:
    before, after = special_tokens(model)
    if model.modality == "masked":
        return _masked_rows(model, prompt, pair, name, before, after)
    made = []
    for answer in (pair.right, pair.wrong):
        start, tokens = _answer(model, prompt, answer, name)
        start = start[len(before) :] if before and start[: len(before)] == before else start  # once is enough
        made.append(([*before, *start], tokens))
    (right_start, right), (wrong_start, wrong) = made
    if right == wrong and right_start == wrong_start:
        raise DataError(f"In {name} the right and the wrong answer are the same tokens.")
    shared = right_start == wrong_start and len(right) == len(wrong) and right[:-1] == wrong[:-1]
    first = _causal_row(right_start, right, wrong if shared else [])
    return (first,) if shared else (first, _causal_row(wrong_start, wrong, []))


def _causal_row(start: list[int], answer: list[int], other: list[int]) -> _Row:
    places = range(len(start) - 1, len(start) - 1 + len(answer))
    ids = [*start, *answer[:-1]]
    return _Row(ids, dict(zip(places, answer, strict=True)), dict(zip(places, other, strict=False)), len(start))


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
) -> tuple[_Row, ...]:
    mask = model.tokenizer.mask_token_id
    if mask is None:
        raise DataError(f"The tokenizer of {model.ref} has no mask token; a masked language model needs one.")
    made = []
    for answer in (pair.right, pair.wrong):
        left, tokens, right = _filled(model, prompt, answer, name)
        made.append(([*before, *left, *[mask] * len(tokens), *right, *after], len(before) + len(left), tokens))
    (right_ids, place, right_answer), (wrong_ids, wrong_place, other) = made
    if right_answer == other:
        raise DataError(f"In {name} the right and the wrong answer are the same tokens.")
    shared = right_ids == wrong_ids
    rows = [_Row(right_ids, _from(place, right_answer), _from(place, other) if shared else {}, len(right_ids))]
    if not shared:
        rows.append(_Row(wrong_ids, _from(wrong_place, other), {}, len(wrong_ids)))
    return tuple(rows)


def _ids(tokens: str | tuple[int, ...]) -> list[int]:
    """A prompt or an answer that is given as tokens; a task gives all of a pair in one form."""
    assert not isinstance(tokens, str)
    return list(tokens)


def _from(place: int, tokens: list[int]) -> dict[int, int]:
    return {place + number: token for number, token in enumerate(tokens)}


def _filled(
    model: LoadedModel, prompt: str | tuple[int, ...], answer: str | tuple[int, ...], name: str
) -> tuple[list[int], list[int], list[int]]:
    """The tokens before, of, and behind the answer."""
    if not isinstance(prompt, str) or not isinstance(answer, str):
        return _ids(prompt), _ids(answer), []
    mark = next((mark for mark in (MASK, model.tokenizer.mask_token) if mark in prompt), None)
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


def _doubled(rows: Sequence[_Row], count: int) -> Sequence[_Row]:
    """A prompt's rows, as many as every prompt of the data has: one that needs one is shown twice, its answers apart."""
    if len(rows) == count:
        return rows
    (row,) = rows
    wrong = {place: row.others.get(place, token) for place, token in row.targets.items()}
    return _Row(row.ids, row.targets, {}, row.end), _Row(row.ids, wrong, {}, row.end)


def _filler(model: LoadedModel) -> int:
    """The id that fills rows up; which one is of no matter, as nothing sees it."""
    for token in (model.tokenizer.pad_token_id, model.tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def _groups(prompts: Sequence[_Prompt]) -> np.ndarray:
    """The number of each prompt's group, in order of first appearance; long (prompts,)."""
    seen: dict[object, int] = {}
    names = [number if prompt.group is None else prompt.group for number, prompt in enumerate(prompts)]
    return np.array([seen.setdefault(name, len(seen)) for name in names])


def _notes(prompts: Sequence[_Prompt]) -> tuple[str, ...]:
    several = sum(max(len(row.targets) for row in prompt.rows) > 1 for prompt in prompts)
    unequal = sum(prompt.counterfactual is None for prompt in prompts)
    notes = [f"{several} of {len(prompts)} answers have several tokens; they are scored whole."] * (several > 0)
    notes += [
        f"{unequal} of {len(prompts)} counterfactual prompts do not have as many tokens as their prompts; the method "
        f"counterfactual cannot be used."
    ] * (0 < unequal < len(prompts))
    return tuple(notes)
