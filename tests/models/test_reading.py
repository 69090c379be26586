"""The same weights with another tokenizer are another model: neither statistics nor data of the one are taken for the other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from tokenizers import normalizers, pre_tokenizers

from ablation_core import (
    bundled,
    compute_statistics,
    find_statistics,
    load_data,
    load_model,
    load_statistics,
    save_statistics,
)
from ablation_core.errors import DataError, StatisticsError
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.reading import told_of_texts
from tests import tiny
from tests.loading.test_door import saved

LLAMA = tf.LlamaConfig(**tiny.LLAMA | {"vocab_size": 4096})


def opt_tokenizer() -> Any:
    return tf.AutoTokenizer.from_pretrained(bundled.FOLDER / "opt-mini")


def lower(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


def digits(tokenizer: Any) -> None:
    usual = tokenizer.backend_tokenizer.pre_tokenizer
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), usual])


def added(tokenizer: Any) -> None:
    tokenizer.add_tokens(["ablation"])


def special(tokenizer: Any) -> None:
    tokenizer.add_special_tokens({"cls_token": "the"})


EDITS = [lower, digits, added, special]


@pytest.mark.parametrize("edit", EDITS)
def test_a_tokenizer_edited_in_memory_shows_and_statistics_of_it_are_not_taken(
    edit: Callable[[Any], None], opt_mini: LoadedModel, tmp_path: Path
) -> None:
    module = tf.OPTForCausalLM.from_pretrained(bundled.FOLDER / "opt-mini", dtype=torch.float32)
    model = load_model(module, tokenizer=opt_tokenizer())
    assert model.fingerprint == opt_mini.fingerprint
    before = load_data("python-docs", model, 100)
    edit(model.tokenizer)
    assert model.fingerprint.startswith(f"{opt_mini.fingerprint}-")
    assert find_statistics(model, "python-docs", tmp_path) is None, "the published ones are of the other tokenizer"
    with pytest.raises(DataError, match="prepared for another model, whose tokenizer"):
        compute_statistics(model, before)


def test_two_folders_of_the_same_weights_with_two_tokenizers(tmp_path: Path) -> None:
    """Ids of the second are the first's in another order, as of a tokenizer that was trained anew."""
    place = Path(saved(tmp_path / "mine", "LlamaForCausalLM", LLAMA))
    model = load_model(str(place))
    part = load_data("python-docs", model, 60, seq_len=24, split="statistics")
    statistics = compute_statistics(model, part)
    kept = save_statistics(statistics, tmp_path)
    assert find_statistics(load_model(str(place)), "python-docs", tmp_path) is not None
    file = place / "tokenizer.json"
    told = json.loads(file.read_text())
    words = told["model"]["vocab"]
    turned = {word: number if number < 300 else 4395 - number for word, number in words.items()}
    assert sorted(turned.values()) == sorted(words.values())
    told["model"]["vocab"] = turned
    file.write_text(json.dumps(told))
    other = load_model(str(place))
    assert find_statistics(other, "python-docs", tmp_path) is None
    with pytest.raises(StatisticsError, match=r"another model.*of the tokenizer that it was loaded with"):
        load_statistics(kept, other)


def test_what_is_told_is_the_same_for_a_tokenizer_saved_again(tmp_path: Path) -> None:
    tokenizer = opt_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    told = told_of_texts(tokenizer)
    assert told == told_of_texts(tf.AutoTokenizer.from_pretrained(tmp_path)) and set(told) == {
        "tokens",
        "special tokens",
    }
    assert told != told_of_texts(tf.AutoTokenizer.from_pretrained(bundled.FOLDER / "roberta-mini"))


def test_a_tokenizer_that_cannot_read_every_script_is_told_by_what_it_reads() -> None:
    class Narrow:
        all_special_ids, mask_token_id = [0], None

        def __len__(self) -> int:
            return 3

        def get_vocab(self) -> dict[str, int]:
            return {"a": 1, "b": 2, "<s>": 0}

        def __call__(self, text: str, **_: Any) -> Any:
            if not text.isascii():
                raise ValueError("no such token")
            return tf.BatchEncoding({"input_ids": [1 + (letter == "b") for letter in text]})

    assert told_of_texts(Narrow()) == told_of_texts(Narrow())
