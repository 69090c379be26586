"""Tasks: pairs from files, and the rows, targets and masks that are made of them, against the tokenizer's own output."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from ablation_core import ablate, load_data, load_model
from ablation_core.data.dataset import IGNORED, Data
from ablation_core.data.tasks.pairs import read_pairs
from ablation_core.data.tasks.registry import TASKS
from ablation_core.errors import DataError
from ablation_core.methods.registry import choose_methods
from ablation_core.models.loaded import LoadedModel


@pytest.fixture(scope="module")
def roberta_mini() -> LoadedModel:
    return load_model("roberta-mini")


def written(folder: Path, *pairs: dict) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return path


def loaded(model: LoadedModel, path: Path, split: str = "evaluation", **options: int) -> Data:
    return load_data(f"pairs:{path}", model, split=split, **({"predictions": 100} | options))


ONE = {"prompt": "The value of x is", "right": " not", "wrong": " set"}


def test_a_prompt_whose_answers_are_one_token_is_one_row(opt_mini: LoadedModel, tmp_path: Path) -> None:
    batch = loaded(opt_mini, written(tmp_path, ONE)).rows([0])
    tokens = opt_mini.tokenizer(ONE["prompt"]).input_ids
    right, wrong = (opt_mini.tokenizer(ONE[name], add_special_tokens=False).input_ids for name in ("right", "wrong"))
    assert batch.inputs["input_ids"].tolist() == [tokens]
    assert batch.targets.tolist() == [[IGNORED] * (len(tokens) - 1) + right]
    assert batch.answers is not None
    assert batch.answers.others.tolist() == [[IGNORED] * (len(tokens) - 1) + wrong]
    assert batch.answers.ends.tolist() == [len(tokens)]


def test_answers_of_several_tokens_are_two_rows_each_with_its_own_answer(opt_mini: LoadedModel, tmp_path: Path) -> None:
    pair = {"prompt": "It ends with", "right": " zebra crossing", "wrong": " a number"}
    data = loaded(opt_mini, written(tmp_path, pair))
    batch = data.rows([0])
    assert data.notes == ("1 of 1 answers have several tokens; they are scored whole.",)
    start = opt_mini.tokenizer(pair["prompt"]).input_ids
    for row, name in enumerate(("right", "wrong")):
        answer = opt_mini.tokenizer(pair[name], add_special_tokens=False).input_ids
        ids = start + answer[:-1]
        assert batch.inputs["input_ids"][row, : len(ids)].tolist() == ids
        assert batch.inputs["attention_mask"][row].tolist() == [1] * len(ids) + [0] * (data.length - len(ids))
        scored = batch.targets[row][batch.targets[row] != IGNORED].tolist()
        assert scored == answer and int(batch.targets[row, len(start) - 1]) == answer[0]
    assert batch.answers is not None
    assert batch.answers.item.tolist() == [0, 0] and batch.answers.wrong.tolist() == [False, True]


def test_a_masked_prompt_has_a_mask_for_each_token_of_the_answer(roberta_mini: LoadedModel, tmp_path: Path) -> None:
    pair = {"prompt": "the [MASK] is returned by it", "right": "value", "wrong": "object"}
    batch = loaded(roberta_mini, written(tmp_path, pair)).rows([0])
    whole = roberta_mini.tokenizer("the value is returned by it").input_ids
    place = int((batch.targets[0] != IGNORED).nonzero()[0])
    assert int(batch.targets[0, place]) == whole[place]
    whole[place] = roberta_mini.tokenizer.mask_token_id
    assert batch.inputs["input_ids"][0].tolist() == whole
    own_mask = {**pair, "prompt": "the <mask> is returned by it"}
    again = loaded(roberta_mini, written(tmp_path, own_mask)).rows([0])
    assert torch.equal(again.inputs["input_ids"], batch.inputs["input_ids"])


def test_groups_stay_on_one_side_and_are_numbered(opt_mini: LoadedModel, tmp_path: Path) -> None:
    pairs = [
        ONE | {"prompt": f"The value of {name} is", "group": group}
        for name, group in zip("abcdef", "uuvvww", strict=True)
    ]
    path = written(tmp_path, *pairs)
    here, there = loaded(opt_mini, path), loaded(opt_mini, path, "statistics")
    assert here.groups is not None and there.groups is not None
    assert here.groups.tolist() == [0, 0, 1, 1] and there.groups.tolist() == [0, 0]  # u and w; v
    assert here.sequences + there.sequences == 6


def test_counterfactual_prompts_have_the_same_shape_or_the_method_is_not_offered(
    opt_mini: LoadedModel, tmp_path: Path
) -> None:
    data = loaded(opt_mini, written(tmp_path, ONE | {"counterfactual": "The value of y is"}))
    assert data.counterfactual is not None
    other = data.counterfactual([0])
    tokens = opt_mini.tokenizer("The value of y is").input_ids
    assert other.inputs["input_ids"].tolist() == [tokens] and torch.equal(other.targets, data.rows([0]).targets)
    longer = loaded(opt_mini, written(tmp_path, ONE | {"counterfactual": "The value of y is not what it is"}))
    assert longer.counterfactual is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": "a", "right": " b"}', "has no wrong"),
        ('{"prompt": "a", "right": " b", "wrong": " b"}', "are the same"),
        ('{"prompt": "a", "right": "", "wrong": " b"}', "answer is empty"),
        ('{"prompt": "a", "right": 3, "wrong": " b"}', "not a text"),
        ('{"prompt": "a", "right": " b", "wrong": " c", "answer": " d"}', "has a field 'answer'"),
        ("[1, 2]", "not an object"),
        ("prompt,right,wrong", "not JSON"),
    ],
)
def test_a_line_that_is_not_a_pair_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"{json.dumps(ONE)}\n\n{line}\n")
    with pytest.raises(DataError, match=words) as caught:
        list(read_pairs(path))
    assert "Line 3 of" in str(caught.value)


def test_what_a_model_cannot_read_is_refused(opt_mini: LoadedModel, tmp_path: Path) -> None:
    long = written(tmp_path, ONE | {"prompt": "word " * (opt_mini.max_length or 0)})
    with pytest.raises(DataError, match="reads at most"):
        loaded(opt_mini, long)
    with pytest.raises(DataError, match="no token"):
        loaded(opt_mini, written(tmp_path, ONE | {"prompt": ""}))
    with pytest.raises(DataError, match="no file"):
        loaded(opt_mini, tmp_path / "elsewhere.jsonl")
    with pytest.raises(DataError, match="no task 'chess'"):
        load_data("task:chess", opt_mini, 10)


@pytest.mark.parametrize("name", ["induction", "agreement", "greater-than", "facts"])
def test_a_task_is_the_same_for_the_same_seed_and_disjoint_in_its_parts(opt_mini: LoadedModel, name: str) -> None:
    one, same = (load_data(f"task:{name}", opt_mini, 12, seed=3) for _ in range(2))
    other, part = (
        load_data(f"task:{name}", opt_mini, 12, seed=seed, split=split)
        for seed, split in ((4, "evaluation"), (3, "statistics"))
    )
    assert one.fingerprint == same.fingerprint
    assert len({one.fingerprint, other.fingerprint, part.fingerprint}) == 3
    assert one.counterfactual is not None and one.predictions == 12


def test_an_induction_prompt_repeats_and_its_right_answer_followed_before(opt_mini: LoadedModel) -> None:
    for pair in islice(TASKS["induction"].draw(opt_mini, np.random.default_rng(0)), 50):
        tokens, changed = list(pair.prompt), list(pair.counterfactual or ())
        first = tokens.index(tokens[-1])
        assert first < len(tokens) - 1
        assert (tokens[first + 1],) == pair.right and pair.wrong[0] in tokens
        assert (changed[changed.index(changed[-1]) + 1],) == pair.wrong and len(changed) == len(tokens)


def test_ioi_names_the_one_who_was_mentioned_once() -> None:
    class Tokenizer:
        def __call__(self, text: str, **_options: object) -> object:
            return type("Ids", (), {"input_ids": text.split()})

    model = type("Model", (), {"tokenizer": Tokenizer(), "ref": "words"})
    pairs = list(islice(TASKS["ioi"].draw(model, np.random.default_rng(0)), 40))  # type: ignore[arg-type]
    for pair in pairs:
        words = pair.prompt.replace(",", "").replace(".", "").split()
        assert words.count(pair.right.strip()) == 1 and words.count(pair.wrong.strip()) == 2
        changed = pair.counterfactual.replace(",", "").replace(".", "").split()
        assert changed.count(pair.right.strip()) == 2 and changed.count(pair.wrong.strip()) == 1
    orders = [pair.prompt.index(pair.right) < pair.prompt.index(pair.wrong) for pair in pairs]
    assert orders == [True, False] * 20 and [pair.group for pair in pairs[:3]] == ["item 0", "item 0", "item 1"]


def test_years_are_written_with_the_tokens_that_are_asked_for(opt_mini: LoadedModel) -> None:
    """Where the tokenizer joins a century with a year (opt-mini: 1850 is not 18 and 50), the year is not an answer."""
    pairs = list(islice(TASKS["greater-than"].draw(opt_mini, np.random.default_rng(0)), 60))
    for pair in pairs:
        assert isinstance(pair.prompt, str) and isinstance(pair.right, str) and isinstance(pair.wrong, str)
        begin = int(pair.prompt.split(" to the year ")[0][-2:])
        assert int(pair.right) > begin > int(pair.wrong)
        start = opt_mini.tokenizer(pair.prompt).input_ids
        for answer in (pair.right, pair.wrong):
            assert opt_mini.tokenizer(pair.prompt + answer).input_ids[: len(start)] == start


@pytest.mark.parametrize(
    ("counterfactuals", "said"),
    [
        ([" it", " it"], ("2 of 2 counterfactual prompts do not have as many tokens",)),
        ([" it", ""], ("1 of 2 counterfactual prompts do not have as many tokens",)),
        (["", None], ("1 of 2 prompts have no counterfactual prompt",)),
        (["", ""], ()),
        ([None, None], ()),
    ],
)
def test_a_note_tells_missing_counterfactual_prompts_from_those_of_another_length(
    opt_mini: LoadedModel, tmp_path: Path, counterfactuals: list, said: tuple
) -> None:
    asked = [
        {"prompt": f"The {word} is", "right": " true", "wrong": " false"}
        | ({} if more is None else {"counterfactual": f"The {word} is{more}"})
        for word, more in zip(("list", "string"), counterfactuals, strict=True)
        for _ in range(2)  # every other one is asked
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    notes = [
        note for note in load_data(f"pairs:{tmp_path / 'pairs.jsonl'}", opt_mini).notes if "counterfactual" in note
    ]
    assert len(notes) == len(said) and all(note.startswith(start) for note, start in zip(notes, said, strict=True))


@pytest.mark.parametrize("rows", [[ONE], [ONE | {"group": "g"}, ONE | {"prompt": "Then the value is", "group": "g"}]])
def test_nothing_is_learned_from_the_only_prompt_which_is_the_one_asked(
    opt_mini: LoadedModel, tmp_path: Path, rows: list[dict]
) -> None:
    """Its means by position would be its own values, and their effect 0, whatever the head does."""
    path = written(tmp_path, *rows)
    data = loaded(opt_mini, path)
    assert data.sequences == len(rows)
    with pytest.raises(DataError, match=r"statistics part .* has no prompt: every other prompt"):
        loaded(opt_mini, path, "statistics")
    assert "mean-positional" not in [method.name for method in choose_methods(["all"], "causal", data)]
    for name in ("mean-positional", "optimal"):
        with pytest.raises(DataError, match="has no prompt"):
            ablate(opt_mini, data, "2.3", name, statistics="python-docs")


def test_every_prompt_of_a_file_is_asked_where_that_is_said(opt_mini: LoadedModel, tmp_path: Path) -> None:
    """And what a part is left for is refused then, not made from the prompts that are asked."""
    rows = [{"prompt": f"There are {n} ways to", "right": " do", "wrong": " be"} for n in range(7)]
    path = written(tmp_path, *rows)
    half, every = load_data(f"pairs:{path}", opt_mini), load_data(f"pairs:{path}#all", opt_mini)
    assert (half.sequences, every.sequences) == (4, 7)
    assert (
        half.notes[0].startswith("4 of the file's 7 prompts are asked")
        and f"pairs:{path}#all asks all" in half.notes[0]
    )
    assert not [note for note in every.notes if "are asked" in note]
    assert every.source == half.source, "the same file"
    with pytest.raises(DataError, match="asks every prompt of its file, so that none is left for means by position"):
        load_data(f"pairs:{path}#all", opt_mini, split="statistics")
    asked = choose_methods(["all"], "causal", every)
    assert "mean-positional" not in [method.name for method in asked]
    logits = []
    for row in rows:  # each prompt by itself, by a plain forward
        ids = opt_mini.tokenizer(row["prompt"], return_tensors="pt").input_ids
        scores = opt_mini.module(ids).logits[0, -1].log_softmax(-1)
        right, wrong = (
            opt_mini.tokenizer(row[name], add_special_tokens=False).input_ids for name in ("right", "wrong")
        )
        assert len(right) == len(wrong) == 1
        logits.append(float(scores[right[0]] - scores[wrong[0]]))
    found = ablate(opt_mini, every, "2.3", "zero").baseline["logit_difference"]
    assert found == pytest.approx(np.mean(logits), abs=1e-4)
