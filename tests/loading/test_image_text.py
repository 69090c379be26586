"""Models of texts and images, as Gemma 3 and LLaVA are published: asked with text alone, they are causal language models."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from ablation_core import ablate, load_data, load_model
from ablation_core.errors import ModelError
from tests.models.every_family import build
from tests.tiny import IMAGE

TEXT = "The cat sat on the mat, and the dog looked at the cat.\n" * 12


@pytest.mark.parametrize("family", ["gemma3", "idefics3", "llava"])
@pytest.mark.parametrize("way", ["folder", "memory"])
def test_text_alone_is_scored_as_the_whole_model_scores_it(tmp_path: Path, family: str, way: str) -> None:
    module = build("image-text", family, tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    model = load_model(str(tmp_path / "model")) if way == "folder" else load_model(module, tokenizer=tokenizer)
    assert model.modality == "causal" and model.shape.heads == (4, 4, 4)
    data = load_data([TEXT], model, 60, seq_len=20)
    batch = data.rows(range(data.sequences))
    zeroed = ablate(model, data, "1.2", "zero")
    losses = {}
    for name in ("clean", "ablated"):
        if name == "ablated":
            module.get_submodule(names_of(model)).weight.data[:, 24:36] = 0  # the third of four heads of 12
        with torch.inference_mode():
            logits = module(**batch.inputs).logits.double()
        losses[name] = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        if name == "clean":
            assert zeroed.baseline["loss"] == pytest.approx(float(losses[name]), abs=1e-5)
    change = float(losses["ablated"] - losses["clean"])
    assert zeroed.results[0].change["loss"].mean == pytest.approx(change, abs=1e-5)


def names_of(model: Any) -> str:
    """The name of layer 1's projection."""
    return next(name for name, part in model.module.named_modules() if part is model.projections[1])


def test_one_that_reads_no_text_alone_and_an_encoder_decoder_say_so(tmp_path: Path) -> None:
    blip = transformers.BlipForConditionalGeneration(
        transformers.BlipConfig(
            text_config={"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 4096},
            vision_config=IMAGE,
        )
    )
    with pytest.raises(ModelError, match=r"cannot be run on a tiny batch, a text of 10 tokens .*pixel_values"):
        load_model(blip)
    t5 = transformers.T5ForConditionalGeneration(
        transformers.T5Config(d_model=24, d_kv=12, d_ff=24, num_layers=2, num_heads=2, vocab_size=99)
    )
    with pytest.raises(ModelError, match="encoder-decoder"):
        load_model(t5)
