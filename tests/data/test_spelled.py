"""Special tokens that texts and prompts spell: letters or special tokens, and said, never silently one of them."""

import json
import shutil
from pathlib import Path

import pytest

from ablation_core import load_data, load_model
from ablation_core.bundled import __file__ as bundled
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """opt-mini with one of its last tokens made a chat's: special, but neither begin, end nor any other named part."""
    folder = tmp_path_factory.mktemp("chatty") / "model"
    shutil.copytree(Path(bundled).parent / "opt-mini", folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    last = next(token for token, number in vocabulary.items() if number == 4095)
    del vocabulary[last]
    vocabulary["<|eot|>"] = 4095
    merges = tokenizer["model"]["merges"]
    tokenizer["model"]["merges"] = [one for one in merges if "".join(one).replace(" ", "") != last and last not in one]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"].append({"id": 4095, "content": "<|eot|>", **flags})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return load_model(str(folder))


@pytest.fixture(scope="module")
def roberta_mini() -> LoadedModel:
    return load_model("roberta-mini")


def test_a_special_token_without_a_part_is_letters_in_a_text_and_no_target_among_ids(chatty: LoadedModel) -> None:
    text = load_data(["The list is sorted<|eot|> in place and returned."], chatty)
    (batch,) = text
    assert 4095 not in batch.inputs["input_ids"] and 4095 not in batch.targets
    assert "read as the letters" in " ".join(text.notes)
    ids = load_data([{"input_ids": [2, 616, 603, 4095, 314, 2721]}], chatty)
    (batch,) = ids
    assert batch.inputs["input_ids"].tolist() == [[2, 616, 603, 4095, 314, 2721]]
    assert batch.targets.tolist() == [[616, 603, -100, 314, 2721, -100]]


def pairs(folder: Path, **fields: str) -> str:
    row = {"prompt": "The cat sat on the", "right": " mat", "wrong": " rug"} | fields
    (folder / "pairs.jsonl").write_text(f"{json.dumps(row)}\n" * 2)
    return f"pairs:{folder / 'pairs.jsonl'}"


def test_prompts_that_spell_special_tokens_say_so(opt_mini: LoadedModel, tmp_path: Path) -> None:
    assert not any("special" in note for note in load_data(pairs(tmp_path), opt_mini).notes)
    for fields in (
        {"prompt": "The cat</s> sat on the"},
        {"right": "</s>"},
        {"counterfactual": "The dog</s> sat on the"},
    ):
        notes = " ".join(load_data(pairs(tmp_path, **fields), opt_mini).notes)
        assert "</s> in 1" in notes and "read as such" in notes


def test_line_ends_of_prompts_are_plain(opt_mini: LoadedModel, tmp_path: Path) -> None:
    plain = load_data(pairs(tmp_path, prompt="The cat\nsat on the"), opt_mini)
    other = load_data(pairs(tmp_path, prompt="The cat\r\nsat on the"), opt_mini)
    assert other.fingerprint == plain.fingerprint and "CR LF" in " ".join(other.notes)


def test_masked_prompts(roberta_mini: LoadedModel, tmp_path: Path) -> None:
    plain = load_data(pairs(tmp_path, prompt="The <mask> sat there.", right=" cat", wrong=" dog"), roberta_mini)
    around = load_data(pairs(tmp_path, prompt="<s>The <mask> sat there.</s>", right=" cat", wrong=" dog"), roberta_mini)
    assert around.fingerprint == plain.fingerprint
    unmarked = load_data(pairs(tmp_path, prompt="The <MASK> sat there."), roberta_mini)
    assert "1 of 1 prompts have no mask" in " ".join(unmarked.notes)
    with pytest.raises(DataError, match="holds the mask"):
        load_data(pairs(tmp_path, prompt="The <mask> sat there.", right="<mask>"), roberta_mini)
