"""Learned constants of a text classifier against plain forwards, one text at a time, so that nothing is padded there.

Those of language models and image classifiers are in `test_registry.py`.
"""

import numpy as np
import pytest
import torch
import transformers

from ablation_core import ablate, compute_statistics, load_data, load_model
from ablation_core.data.dataset import Data
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.methods.optimal import OptimalRun
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Selection
from tests.loading.test_text_classifiers import FAMILIES, NAMES, TEXTS, saved, written

SELECT = "1.2"


@pytest.fixture(scope="module", params=["gpt2", "bert"])
def brought(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, LoadedModel, str]:
    folder = tmp_path_factory.mktemp(request.param)
    place = saved(folder, *FAMILIES[request.param])
    return place, load_model(place, cache_dir=folder / "cache"), written(folder / "reviews.csv")


def part(model: LoadedModel, ref: str, split: str) -> Data:
    return load_data(ref, model, predictions=len(TEXTS), seq_len=64, batch_size=4, split=split)


def plain_loss(folder: str, model: LoadedModel, constants: torch.Tensor | None) -> torch.Tensor:
    """The mean loss over the texts by transformers alone; head 1.2's outputs are these constants, if any."""
    module = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval().requires_grad_(False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    names = {id(one): name for name, one in model.module.named_modules()}
    size = model.head_dim
    if constants is not None:

        def replace(_module: torch.nn.Module, inputs: tuple) -> tuple:
            z = inputs[0]
            middle = constants.to(z.dtype).expand(*z.shape[:-1], size)
            return (torch.cat([z[..., : 2 * size], middle, z[..., 3 * size :]], -1), *inputs[1:])

        module.get_submodule(names[id(model.projections[1])]).register_forward_pre_hook(replace)
    losses = []
    for text, label in TEXTS:
        logits = module(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits[0].double()
        losses.append(-logits.log_softmax(0)[list(NAMES.values()).index(label)])
    return torch.stack(losses).mean()


def test_the_constants_and_their_gradient(brought: tuple[str, LoadedModel, str]) -> None:
    folder, model, ref = brought
    training = part(model, ref, "statistics")  # holds the same texts as the evaluation part
    statistics = compute_statistics(model, training)
    selection = Selection.parse(SELECT, model.shape)
    starts = {"zero": np.zeros_like(statistics.mean), "mean": statistics.mean}
    run = OptimalRun(CleanPassCache(model, training), selection, starts, statistics.std)
    constants = torch.from_numpy(statistics.mean[1, 2]).double().requires_grad_()
    (expected,) = torch.autograd.grad(plain_loss(folder, model, constants), constants)
    found = sum(run._gradient(constants.detach().float(), batch)[1] * len(training.rows(training.numbers(batch)).targets)
                for batch in range(len(training))) / len(TEXTS)  # fmt: skip
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-3, atol=1e-6)
    while run.steps_done < run.steps:
        run.step()
    assert run.learning is not None
    for loss, values in (
        (run.learning.clean, None),
        (run.learning.start_loss, torch.from_numpy(starts[run.learning.start][1, 2])),
        (run.learning.loss, torch.from_numpy(run.values()[1, 2])),
    ):
        assert loss == pytest.approx(float(plain_loss(folder, model, values)), abs=1e-5)
    assert run.learning.loss < run.learning.start_loss


def test_in_an_experiment(brought: tuple[str, LoadedModel, str]) -> None:
    folder, model, ref = brought
    data, statistics = part(model, ref, "evaluation"), compute_statistics(model, part(model, ref, "statistics"))
    mean, optimal = ablate(model, data, SELECT, ["mean", "optimal"], statistics=statistics).to_dict()["results"]
    values = torch.from_numpy(statistics.mean[1, 2])
    assert mean["loss"] == pytest.approx(float(plain_loss(folder, model, values)), abs=1e-5)
    # both parts hold the same texts, so that the loss that was learned is the loss that is measured
    assert optimal["loss"] == pytest.approx(optimal["learning"]["loss"], abs=1e-5)
    assert optimal["loss"] < mean["loss"] and mean["harm"]["removal"] == optimal["change"]["loss"]
