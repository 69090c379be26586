"""Positions: what their text form means in padded batches, worked out by hand."""

import json
from pathlib import Path

import pytest
import torch

from ablation_core import ablate, load_data
from ablation_core.data.dataset import IGNORED, Answers, Batch
from ablation_core.data.positions import Positions
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel

# Two prompts of 5 and 3 tokens in rows of 6; the first has an answer token behind it.
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
TARGETS = torch.full((2, 6), IGNORED)
TARGETS[0, 4], TARGETS[0, 5], TARGETS[1, 2] = 7, 8, 9
ANSWERS = Answers(
    torch.tensor([0, 1]), torch.zeros(2, dtype=torch.bool), torch.full((2, 6), IGNORED), torch.tensor([5, 3])
)
TASK = Batch({"attention_mask": MASK}, TARGETS, ANSWERS)
TEXT = Batch({"attention_mask": MASK}, TARGETS)


def meant(text: str, batch: Batch) -> list[list[int]]:
    mask = Positions.parse(text).mask(batch)(torch.zeros(2, 6, 4))
    assert mask.shape == (2, 6, 1)
    return [row.nonzero()[:, 0].tolist() for row in mask[:, :, 0]]


@pytest.mark.parametrize(
    ("text", "task", "plain"),
    [
        ("last", [[4], [2]], [[5], [2]]),
        ("0", [[0], [0]], [[0], [0]]),
        ("-2", [[3], [1]], [[4], [1]]),
        ("1-2", [[1, 2], [1, 2]], [[1, 2], [1, 2]]),
        ("3-", [[3, 4], []], [[3, 4, 5], []]),
        ("1--2", [[1, 2, 3], [1]], [[1, 2, 3, 4], [1]]),
        ("0, last", [[0, 4], [0, 2]], [[0, 5], [0, 2]]),
        ("-9", [[], []], [[], []]),
    ],
)
def test_positions_are_counted_within_what_is_real(text: str, task: list, plain: list) -> None:
    assert meant(text, TASK) == task
    assert meant(text, TEXT) == plain


def test_answer_means_where_the_answer_is_predicted() -> None:
    assert meant("answer", TASK) == [[4, 5], [2]]
    assert meant("0,answer", TASK) == [[0, 4, 5], [0, 2]]


def test_all_is_every_position() -> None:
    assert Positions.parse("all") == Positions() and Positions().everywhere
    assert Positions.after(0).everywhere
    assert str(Positions.after(2)) == "2-"


@pytest.mark.parametrize("text", ["all", "last", "answer", "3", "-2", "3-7", "3-", "1--2", "3-7,last", "0,answer"])
def test_the_text_form_is_read_back(text: str) -> None:
    assert str(Positions.parse(text)) == text
    assert Positions.parse(str(Positions.parse(text))) == Positions.parse(text)


@pytest.mark.parametrize("text", ["", "first", "3.5", "7-3", "-2--5", "all,3", "3,,4", "1-2-3", "٣"])
def test_what_is_not_a_position_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="position"):
        Positions.parse(text)


def test_a_position_beyond_every_sequence_is_refused() -> None:
    Positions.parse("5").check(6, False)
    for text in ("6", "-7", "6-"):
        with pytest.raises(DataError, match="has 6 tokens"):
            Positions.parse(text).check(6, False)
    with pytest.raises(DataError, match="for tasks"):
        Positions.parse("answer").check(6, False)
    with pytest.raises(DataError, match="0 or more"):
        Positions.after(-1)


@pytest.mark.parametrize("text", ["3-99", "0--99", "12--12", "-3-5"])
def test_positions_that_no_sequence_has_are_refused(opt_mini: LoadedModel, text: str) -> None:
    """All windows have 20 tokens: -3-5 runs from 17 to 5."""
    data = load_data("python-docs", opt_mini, predictions=60, seq_len=20)
    with pytest.raises(DataError, match=r"There is no position|No sequence has positions"):
        ablate(opt_mini, data, "1.3", "zero", positions=text)


def test_tokens_of_an_answer_are_no_positions_of_the_prompt(opt_mini: LoadedModel, tmp_path: Path) -> None:
    pair = {"prompt": "The function", "right": " returns the value of it", "wrong": " None"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair), encoding="utf-8")
    data = load_data(f"pairs:{tmp_path / 'pairs.jsonl'}", opt_mini)
    prompt = 1 + len(opt_mini.tokenizer("The function", add_special_tokens=False)["input_ids"])
    assert data.length > prompt + 1
    with pytest.raises(DataError, match=f"no position {prompt}: the longest sequence has {prompt} tokens"):
        ablate(opt_mini, data, "1.3", "zero", positions=str(prompt))


def test_no_fixed_number_is_spared_before_positions_counted_from_the_end() -> None:
    assert [Positions.parse(text).skipped for text in ("3-", "-3-", "0-", "3-7", "3-,answer")] == [3, 0, 0, 0, 0]
