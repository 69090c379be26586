"""Tasks as data sets: prompts with a right and a wrong answer, drawn from a seed or read from a file, and their batches.

Rows have one length. Padding stands on the right, where no position of a causal model sees it and a masked model's attention
mask hides it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ablation_core.data.dataset import IGNORED, Answers, Batch, Data
from ablation_core.data.references import EVERY_PROMPT, pairs_file
from ablation_core.data.request import DataRequest
from ablation_core.data.tasks.pairs import Pair, read_pairs
from ablation_core.data.tasks.prompts import Prompt, Row, prompt_of
from ablation_core.data.tasks.registry import TASKS
from ablation_core.data.tasks.spelled import Spelled
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import check_known, padding_id

_SPLIT_SEEDS = {"evaluation": 0, "statistics": 1}


def load_task(request: DataRequest, model: LoadedModel) -> Data:
    """Prepare a task for a model: `task:NAME` draws prompts from the seed, `pairs:FILE` takes them from a file.

    The statistics part of a built-in task is drawn from another seed, that of a file is every other group of prompts, which
    are not asked unless the reference ends in `#all`.

    Raises:
        DataError: there is no such task or file, or a prompt cannot be used; the sentence says which and why.
    """
    if model.modality == "vision":
        raise DataError(f"{model.ref} reads images, but {request.ref} holds text.")
    there = _pairs_of(request) if request.ref.startswith("pairs:") else []
    asked = _part(request, there) if there else _drawn(request, model)
    read, drawn = Spelled(), list(islice(asked, request.predictions))
    prompts = []
    for number, pair in enumerate(drawn):
        name = _name(pair, number)
        prompts.append(prompt_of(model, read.looked_at(model, pair, name), name))
    if not prompts:
        raise DataError(
            f"The {request.split} part of {request.ref} has no prompt: every other prompt (or group of them) belongs to it, "
            f"and there is one. Bring more, or choose what learns nothing from the data."
        )
    rows = max(len(prompt.rows) for prompt in prompts)
    lengths = [len(row.ids) for prompt in prompts for row in (*prompt.rows, *(prompt.counterfactual or ()))]
    longest = max(lengths)
    if model.max_length is not None and longest > model.max_length:
        raise DataError(
            f"{model.ref} reads at most {model.max_length} tokens; a prompt of {request.ref} has {longest} with its answer."
        )
    filler = padding_id(model)

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
        if model.predicts_class:  # its one answer belongs to the whole text
            targets, others = targets[:, 0], others[:, 0]
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
    return request.data(
        model,
        seq_len=None,
        documents=None,
        sequences=len(prompts),
        pool=len(prompts),
        predictions=len(prompts),
        fingerprint=digest.hexdigest()[:16],
        notes=(*_left_out(request, len(prompts), len(there)), *_notes(drawn, prompts), *read.sentences(len(prompts))),
        rows=batch,
        longest=longest,
        groups=_groups(prompts),
        one_answer=rows == 1 and all(len(prompt.rows[0].targets) == 1 for prompt in prompts),
        lengths=np.array([len(prompt.rows[0].ids) for prompt in prompts]),
        counterfactual=None
        if any(prompt.counterfactual is None for prompt in prompts)
        else lambda chosen: batch(chosen, counterfactual=True),
    )


def _drawn(request: DataRequest, model: LoadedModel) -> Iterator[Pair]:
    """The prompts of a built-in task."""
    name = request.ref.partition(":")[2]
    if name not in TASKS:
        raise DataError(f"There is no task {name!r}. Choose one of {', '.join(TASKS)}, or bring your own (pairs:FILE).")
    if model.predicts_class:
        raise DataError(
            f"The task {name} asks for words, and {model.ref} is a text classifier; write pairs of your own (pairs:FILE), "
            f"whose right and wrong answers are classes."
        )
    yield from TASKS[name].draw(model, np.random.default_rng((request.seed, _SPLIT_SEEDS[request.split])))


def _pairs_of(request: DataRequest) -> list[Pair]:
    """All prompts of a file, at least one."""
    name, every = pairs_file(request.ref)
    if every and request.split == "statistics":
        raise DataError(
            f"{request.ref} asks every prompt of its file, so that none is left for means by position, learned constants or "
            f"statistics. Leave {EVERY_PROMPT} out, or choose other methods."
        )
    pairs = list(read_pairs(Path(name)))
    if not pairs:
        raise DataError(f"{name} is empty; a JSONL file of pairs has prompt, right and wrong on each line.")
    return pairs


def _part(request: DataRequest, pairs: Sequence[Pair]) -> Iterator[Pair]:
    """Those of a file's prompts that are asked for: every other group, or all."""
    every = pairs_file(request.ref)[1]
    seen: dict[str, int] = {}
    for number, pair in enumerate(pairs):
        place = seen.setdefault(pair.group if pair.group is not None else f"\0{number}", len(seen))
        if every or place % 2 == _SPLIT_SEEDS[request.split]:
            yield pair


def _name(pair: Pair, number: int) -> str:
    """What a pair is called in a sentence: of a file every other group is asked, so that its number alone says little."""
    if not pair.prompt or not isinstance(pair.prompt, str):
        return f"prompt {number}"
    words = pair.prompt if len(pair.prompt) <= 40 else f"{pair.prompt[:39]}…"
    return f"prompt {number} ({words!r})"


def _doubled(rows: Sequence[Row], count: int) -> Sequence[Row]:
    """A prompt's rows, as many as every prompt of the data has: one that needs one is shown twice, its answers apart."""
    if len(rows) == count:
        return rows
    (row,) = rows
    wrong = {place: row.others.get(place, token) for place, token in row.targets.items()}
    return Row(row.ids, row.targets, {}, row.end), Row(row.ids, wrong, {}, row.end)


def _groups(prompts: Sequence[Prompt]) -> np.ndarray:
    """The number of each prompt's group, in order of first appearance; long (prompts,)."""
    seen: dict[object, int] = {}
    names = [number if prompt.group is None else prompt.group for number, prompt in enumerate(prompts)]
    return np.array([seen.setdefault(name, len(seen)) for name in names])


def _left_out(request: DataRequest, asked: int, there: int) -> tuple[str, ...]:
    """That a file holds more prompts than are asked, not counting those that were not wanted."""
    if request.split != "evaluation" or asked == request.predictions:
        return ()
    return (
        f"{asked} of the file's {there} prompts are asked; the others are kept for means by position, learned constants and "
        f"statistics. {request.ref}{EVERY_PROMPT} asks all.",
    ) * (asked < there)


def _notes(pairs: Sequence[Pair], prompts: Sequence[Prompt]) -> tuple[str, ...]:
    several = sum(max(len(row.targets) for row in prompt.rows) > 1 for prompt in prompts)
    given = sum(pair.counterfactual is not None for pair in pairs)
    unequal = given - sum(prompt.counterfactual is not None for prompt in prompts)
    notes = [f"{several} of {len(prompts)} answers have several tokens; they are scored whole."] * (several > 0)
    notes += [
        f"{unequal} of {given} counterfactual prompts do not have as many tokens as their prompts; the method "
        f"counterfactual cannot be used."
    ] * (unequal > 0)
    notes += [
        f"{len(pairs) - given} of {len(pairs)} prompts have no counterfactual prompt; the method counterfactual cannot be used."
    ] * (0 < given < len(pairs))
    return tuple(notes)
