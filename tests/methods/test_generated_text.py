"""A text written with kept keys and values is the text written by a pass over all of it for each token."""

import pytest
import torch

from ablation_core import load_data
from ablation_core.methods.resampling import _with_cache, generated_text
from ablation_core.models.architectures import ARCHITECTURES
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import ordinary_tokens
from tests import tiny


@pytest.mark.parametrize("family", [name for name in tiny.TRANSFORMERS if ARCHITECTURES[name].modality == "causal"])
def test_logits_of_every_family(family: str) -> None:
    model = tiny.build(family)
    ids = tiny.batch(model, rows=1, length=14).inputs["input_ids"][0].tolist()
    next_logits = _with_cache(model)
    with torch.inference_mode():
        for length in (3, *range(4, 15)):  # longer than the windows that some families look back
            whole = model.module(input_ids=torch.tensor([ids[:length]])).logits[0, -1]
            torch.testing.assert_close(next_logits(ids[:length]), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_same_tokens(opt_mini: LoadedModel, seed: int) -> None:
    data = load_data("python-docs", opt_mini, predictions=100, seq_len=64)
    ordinary, generator = torch.from_numpy(ordinary_tokens(opt_mini)), torch.Generator().manual_seed(seed)
    written = generated_text(opt_mini, data, [0], seed).inputs["input_ids"]
    tokens = written[0, :1]  # BOS
    torch.randint(len(ordinary), (1,), generator=generator)  # the first token of a model without BOS is drawn for all
    with torch.inference_mode():
        while len(tokens) < 64:
            shares = opt_mini.module(input_ids=tokens[None]).logits[0, -1].float()[ordinary].softmax(-1)
            tokens = torch.cat([tokens, ordinary[torch.multinomial(shares, 1, generator=generator)]])
    assert written[0].tolist() == tokens.tolist()
