"""Special tokens: found for any alphabet, never targets, never doubled; with fast and slow tokenizers."""

import pytest
import torch
import transformers as tf
from tokenizers import Tokenizer, models, processors

from ablation_core import load_data, load_model
from ablation_core.data.dataset import IGNORED
from ablation_core.data.user_input import prompt
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import special_tokens

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def masked(tokenizer) -> LoadedModel:
    torch.manual_seed(0)
    return load_model(
        tf.BertForMaskedLM(tf.BertConfig(vocab_size=64, **TINY, max_position_embeddings=64)), tokenizer=tokenizer
    )


def alphabet(letters: str, before: list[str], after: list[str]) -> tf.PreTrainedTokenizerFast:
    names = ["<cls>", "<sep>", "<pad>", "<mask>", "<bos>", *letters]
    made = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=[]))
    template = " ".join([*before, "$A", *after])
    specials = [(name, names.index(name)) for name in {*before, *after}]
    made.post_processor = processors.TemplateProcessing(single=template, special_tokens=specials)
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=made, cls_token="<cls>", sep_token="<sep>", pad_token="<pad>", mask_token="<mask>"
    )


@pytest.mark.parametrize("letters", ["ACGT", "ΑΒΓ", "01", "音楽"])
@pytest.mark.parametrize(
    ("before", "after"),
    [(["<cls>"], ["<sep>"]), ([], ["<sep>"]), (["<cls>", "<bos>"], []), ([], []), (["<cls>"], ["<sep>", "<sep>"])],
)
def test_what_stands_around_a_text_in_any_alphabet(letters: str, before: list[str], after: list[str]) -> None:
    model = masked(alphabet(letters, before, after))
    numbers = {"<cls>": 0, "<sep>": 1, "<bos>": 4}
    assert special_tokens(model) == ([numbers[name] for name in before], [numbers[name] for name in after])


def test_a_slow_tokenizer_in_plain_python() -> None:
    class Letters(tf.PythonBackend if hasattr(tf, "PythonBackend") else tf.PreTrainedTokenizer):
        def __init__(self, **options):
            self.names = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *"xyzw"]
            super().__init__(
                unk_token="[UNK]",
                pad_token="[PAD]",
                cls_token="[CLS]",
                sep_token="[SEP]",
                mask_token="[MASK]",
                **options,
            )

        @property
        def vocab_size(self):
            return len(self.names)

        def get_vocab(self):
            return {name: number for number, name in enumerate(self.names)}

        def _tokenize(self, text, **_):
            return list(text.replace(" ", ""))

        def _convert_token_to_id(self, token):
            return self.names.index(token) if token in self.names else 0

        def _convert_id_to_token(self, number):
            return self.names[number]

        def build_inputs_with_special_tokens(self, ids, pair=None):
            return [2, *ids, 3]

    model = masked(Letters())
    assert special_tokens(model) == ([2], [3])
    data = load_data(["xyzw [MASK] xyzw [SEP] yyzz " * 20], model, predictions=100, seq_len=16)
    targets = torch.cat([batch.targets for batch in data])
    assert not set(targets[targets != IGNORED].tolist()) & set(model.tokenizer.all_special_ids)
    assert data.notes


@pytest.mark.parametrize("ref", ["opt-mini", "roberta-mini"])
def test_special_tokens_that_a_text_spells_are_letters(ref: str) -> None:
    model = load_model(ref)
    spelled = " ".join(model.tokenizer.all_special_tokens)
    data = load_data([f"The word {spelled} stands here. " * 100], model, predictions=300, seq_len=64)
    specials = set(model.tokenizer.all_special_ids)
    targets = torch.cat([batch.targets for batch in data])
    assert data.predictions == 300 and not set(targets[targets != IGNORED].tolist()) & specials
    if model.modality == "causal":
        inside = torch.cat([batch.inputs["input_ids"] for batch in data])[:, 1:]
        assert not set(inside.flatten().tolist()) & specials
    assert any("letters" in note for note in data.notes)


def test_one_bos_where_the_text_brings_one() -> None:
    model = load_model("opt-mini")
    bos, name = model.tokenizer.bos_token_id, model.tokenizer.bos_token
    texts = ["Once upon a time there was a text.", "And another one."]
    plain = load_data(texts, model, documents=True)
    brought = load_data([name + text for text in texts], model, documents=True)
    assert plain.fingerprint == brought.fingerprint and any("not repeated" in note for note in brought.notes)
    for text in ("Once upon a time", name + "Once upon a time"):
        ids = prompt(model, text, "python-docs", new_tokens=1).asked.inputs["input_ids"][0].tolist()
        assert ids[0] == bos and ids.count(bos) == 1


def test_special_tokens_in_given_ids_are_no_targets() -> None:
    model = load_model("opt-mini")
    eos = model.tokenizer.eos_token_id
    data = load_data(torch.tensor([[eos, 10, 11, eos, 12, 13]]), model)
    (batch,) = list(data)
    assert batch.targets.tolist() == [[10, 11, IGNORED, 12, 13, IGNORED]]
    assert any("not scored" in note for note in data.notes)
