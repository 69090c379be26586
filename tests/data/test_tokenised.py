"""Rows that are tokenised already, as trainers have them: their labels, masks and other columns count or are refused."""

from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers as tf

from ablation_core import ablate, load_data, load_model
from ablation_core.errors import DataError
from ablation_core.models.loaded import LoadedModel
from tests import tiny

IDS = torch.randint(5, tiny.VOCAB, (6, 9), generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])
ROWS = [{"input_ids": ids, "labels": label} for ids, label in zip(IDS, CLASSES, strict=True)]
SECOND = torch.tensor([[0] * 4 + [1] * 5] * 6)


@pytest.fixture(scope="module")
def classifier() -> LoadedModel:
    torch.manual_seed(0)
    config = tf.BertConfig(**tiny.TEXT | tiny.IDS | tiny.WIDE, num_labels=3)
    return load_model(tf.BertForSequenceClassification(config).eval())


@pytest.mark.parametrize(
    "given",
    [
        ROWS,
        [{"input_ids": row.tolist(), "labels": int(label)} for row, label in zip(IDS, CLASSES, strict=True)],
        {"input_ids": IDS, "labels": CLASSES, "token_type_ids": torch.zeros_like(IDS)},
        torch.utils.data.DataLoader(ROWS, batch_size=4),
        datasets.Dataset.from_dict({"input_ids": IDS.tolist(), "labels": CLASSES.tolist()}),
    ],
)
def test_a_classifiers_tokenised_rows_keep_their_classes(classifier: LoadedModel, given: Any) -> None:
    with torch.no_grad():
        wanted = torch.nn.functional.cross_entropy(classifier.module(input_ids=IDS).logits, CLASSES).item()
    result = ablate(classifier, load_data(given, classifier), "0.0", "zero")
    assert result.baseline.loss == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ({"token_type_ids": SECOND}, "token_type_ids of their own, which would be lost"),
        ({"position_ids": torch.arange(9).flip(0).repeat(6, 1)}, "position_ids of their own"),
        ({"attention_mask": torch.tensor([[1, 1, 1, 0, 0, 1, 1, 1, 1]] * 6)}, "hides tokens in its middle"),
        ({"labels": CLASSES[:4]}, "6 rows of ids come with 4 labels"),
    ],
)
def test_what_would_be_lost_is_refused(classifier: LoadedModel, column: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_data({"input_ids": IDS, "labels": CLASSES} | column, classifier)


@pytest.mark.parametrize(
    ("labels", "words"),
    [([5] * 8, "8 labels; each token needs one"), ([99_999] * 9, "has the label 99999"), ([-1] * 9, "the label -1")],
)
def test_labels_that_are_no_tokens_are_refused(opt_mini: LoadedModel, labels: list[int], words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_data({"input_ids": IDS[:1], "labels": [labels]}, opt_mini)


def one_token_for_all(words: list[str]) -> Any:
    """A tokenizer of whole words whose BOS, EOS and padding are one token, as GPT-2's are once padding is set."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    end = "<|endoftext|>"
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*words, end])}, unk_token=end))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return tf.PreTrainedTokenizerFast(tokenizer_object=made, bos_token=end, eos_token=end, unk_token=end, pad_token=end)


def test_a_bos_that_is_also_the_padding_stays_where_it_begins_a_row() -> None:
    tokenizer = one_token_for_all([f"w{n}" for n in range(20)])
    end = tokenizer.bos_token_id
    torch.manual_seed(0)
    config = tf.GPT2Config(
        **tiny.GPT | {"vocab_size": 21, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    )
    module = tf.GPT2LMHeadModel(config).eval()
    model = load_model(module, tokenizer=tokenizer)
    ids = torch.cat([torch.full((5, 1), end), torch.randint(0, 20, (5, 7))], 1)
    with torch.no_grad():
        logits = module(ids).logits[:, :-1]
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item()
    padded = torch.cat([torch.full((5, 2), end), ids, torch.full((5, 3), end)], 1)
    for given in (ids, padded, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}):
        got = ablate(model, load_data(given, model), "0.0", "zero").baseline.loss
        assert got == pytest.approx(wanted, abs=1e-5)


def test_texts_with_gaps_and_texts_that_are_none(opt_mini: LoadedModel) -> None:
    import pandas

    text = "The dog and the river. " * 12
    gaps = load_data(pandas.DataFrame({"text": [None, np.nan, " ", text]}), opt_mini, predictions=30, seq_len=32)
    plain = load_data([text], opt_mini, predictions=30, seq_len=32)
    assert gaps.fingerprint == plain.fingerprint
    assert "3 texts with nothing in them were left out." in gaps.notes
    with pytest.raises(DataError, match="reads text, but an int was given"):
        load_data(datasets.Dataset.from_dict({"text": [1, 2]}), opt_mini)
    with pytest.raises(DataError, match=r"half of a surrogate pair, '.ud800' behind 'The dog '"):
        load_data(["The dog \ud800 and the river"], opt_mini, seq_len=6)
    with pytest.raises(DataError, match="documents is True or False, not 'no'"):
        load_data([text], opt_mini, documents="no")  # type: ignore[arg-type]


def test_padding_without_a_place_in_the_model_is_not_used() -> None:
    """A padding token that was added to the tokenizer, and no row to the embeddings."""
    tokenizer = one_token_for_all([f"w{n}" for n in range(20)])
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    torch.manual_seed(0)
    model = load_model(tf.GPT2LMHeadModel(tf.GPT2Config(**tiny.GPT | {"vocab_size": 21})).eval(), tokenizer=tokenizer)
    (batch,) = list(load_data(["w1 w2 w3", "w4 w5 w6 w7 w8"], model, documents=True, seq_len=8))
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert int(batch.inputs["input_ids"].max()) <= 20
