"""Tasks of text classifiers: the answers are classes. Against plain forwards of one text at a time, without padding."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from ablation_core import ablate, estimate, load_data, load_model, position_map
from ablation_core.data.dataset import Data
from ablation_core.errors import DataError
from ablation_core.experiments.predictions.task_prompts import asked_prompts
from ablation_core.models.loaded import LoadedModel
from tests import tiny

NAMES = {0: "bad", 1: "good", 2: "odd"}
FAMILIES = {
    "bert": ("BertForSequenceClassification", transformers.BertConfig, tiny.TEXT | tiny.IDS | tiny.WIDE),
    "gpt2": ("GPT2ForSequenceClassification", transformers.GPT2Config, tiny.GPT),
}
PAIRS = (
    {"prompt": "Page 3.", "right": "good", "wrong": "bad", "counterfactual": "Page 4."},
    {"prompt": "It is 2 of 5 pages long.", "right": "bad", "wrong": "2", "counterfactual": "It is 1 of 7 pages long."},
    {"prompt": "The value of x is 4 here.", "right": "good", "wrong": "odd", "counterfactual": "The value of x is 6 here."},
    {"prompt": "1 2 3", "right": "odd", "wrong": "good", "counterfactual": "3 2 1"},
)  # fmt: skip
HEAD = (1, 2)
Edit = Callable[[torch.Tensor], object]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, opt_mini: LoadedModel) -> LoadedModel:
    kind, config, arguments = FAMILIES[request.param]
    torch.manual_seed(3)
    module = getattr(transformers, kind)(config(**arguments | {"vocab_size": 4096, "id2label": NAMES})).eval()
    for parameter in module.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return load_model(module, tokenizer=opt_mini.tokenizer)


@pytest.fixture(scope="module")
def data(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load_data(_file(tmp_path_factory.mktemp("pairs"), *PAIRS), model)


def _file(folder: Path, *pairs: dict) -> str:
    """A file whose evaluation part, every other line, is these pairs."""
    path, lines = folder / "pairs.jsonl", [line for pair in pairs for line in (pair, pair)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return f"pairs:{path}"


def _run(model: LoadedModel, text: str, edit: Edit | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the classes, and the head's z (positions, head_dim), of one text."""
    layer, head = HEAD
    columns = slice(head * model.head_dim, (head + 1) * model.head_dim)
    seen: dict[str, torch.Tensor] = {}

    def hook(_module: torch.nn.Module, inputs: tuple) -> tuple:
        z = inputs[0].clone()
        seen["z"] = z[0, :, columns].clone()
        if edit:
            edit(z[0, :, columns])
        return (z, *inputs[1:])

    handle = model.projections[layer].register_forward_pre_hook(hook)
    try:
        with torch.no_grad():
            logits = model.module(input_ids=torch.tensor([model.tokenizer(text).input_ids])).logits[0]
    finally:
        handle.remove()
    return logits.double().log_softmax(-1), seen["z"]


def _numbers(pair: dict) -> tuple[int, int]:
    classes = {name: number for number, name in NAMES.items()} | {"2": 2}
    return classes[pair["right"]], classes[pair["wrong"]]


@pytest.mark.parametrize("positions", ["all", "last", "1-2"])
def test_every_figure_is_the_plain_forwards(model: LoadedModel, data: Data, positions: str) -> None:
    where = {"all": slice(None), "last": slice(-1, None), "1-2": slice(1, 3)}[positions]
    rows: dict[str, list[list[float]]] = {"zero": [], "counterfactual": []}
    baseline = []
    for pair in PAIRS:
        right, wrong = _numbers(pair)
        clean, _ = _run(model, pair["prompt"])
        baseline.append(
            [float(clean[right] - clean[wrong]), float(clean[right].exp()), float(clean[right] > clean[wrong])]
        )
        _, other = _run(model, pair["counterfactual"])
        edits: dict[str, Edit] = {
            "zero": lambda z: z[where].zero_(),
            "counterfactual": lambda z, other=other: z[where].copy_(other[where]),
        }
        for method, edit in edits.items():
            found, _ = _run(model, pair["prompt"], edit)
            rows[method].append(
                [float(found[right] - found[wrong]), float(found[right].exp()), float(found[right] > found[wrong])]
            )
    document = ablate(model, data, "1.2", list(rows), positions=positions).to_dict()
    assert document["data"]["predictions"] == len(PAIRS)
    for shown, wanted in ((document["baseline"], baseline), *zip(document["results"], rows.values(), strict=True)):
        for metric, value in zip(("logit_difference", "probability", "accuracy"), np.mean(wanted, 0), strict=True):
            assert shown[metric] == pytest.approx(value, abs=1e-5), metric


def test_single_prompts_and_estimates(model: LoadedModel, data: Data) -> None:
    frame = ablate(model, data, "1.2", "zero").to_frame("predictions").set_index(["method", "sequence"])
    small = 1e-3  # of the head's z is taken away: the slope's share of the change
    found = estimate(model, data, "zero").methods[0]["logit_difference"].heads[HEAD]
    slopes = []
    for number, pair in enumerate(PAIRS):
        right, wrong = _numbers(pair)
        clean, _ = _run(model, pair["prompt"])
        without, _ = _run(model, pair["prompt"], lambda z: z.zero_())
        nudged, _ = _run(model, pair["prompt"], lambda z: z.mul_(1 - small))
        assert frame.loc[("zero", number), "change of logit_difference"] == pytest.approx(
            float(without[right] - without[wrong] - clean[right] + clean[wrong]), abs=1e-5
        )
        slopes.append(float(nudged[right] - nudged[wrong] - clean[right] + clean[wrong]) / small)
    assert found == pytest.approx(np.mean(slopes), rel=0.02, abs=2e-3)


def test_prompts_are_shown_with_their_classes(model: LoadedModel, data: Data) -> None:
    first = asked_prompts(model, data)[0]
    assert (first.prompt.strip(), first.right, first.wrong) == ("Page 3.", "good", "bad")


def test_a_map_by_position_counts_the_texts_that_are_long_enough(
    model: LoadedModel, data: Data, tmp_path: Path
) -> None:
    lengths = [len(model.tokenizer(one.prompt.strip()).input_ids) for one in asked_prompts(model, data)]
    result = position_map(model, data, "zero", select="1.2", positions="0,6,-1", cache=tmp_path)
    assert result.sequences == tuple(sum(n > at for n in lengths) for at in (0, 6, 0))
    alone = ablate(model, data, "1.2", "zero", positions="6").to_dict()["results"][0]["change"]["logit_difference"]
    assert result.changes("zero", "logit_difference")["1.2", 6] == pytest.approx(alone["mean"], abs=1e-6)


def test_what_cannot_be_asked_is_a_sentence(model: LoadedModel, data: Data, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a text classifier; write pairs of your own"):
        load_data("task:induction", model)
    with pytest.raises(DataError, match=r"no class 'great'.*classes are bad, good, odd"):
        load_data(_file(tmp_path, {"prompt": "Fine.", "right": "great", "wrong": "bad"}), model)
    with pytest.raises(DataError, match="are the same class"):
        load_data(_file(tmp_path, {"prompt": "Fine.", "right": "good", "wrong": "1"}), model)
    with pytest.raises(DataError, match="answers for its whole text"):
        ablate(model, data, "1.2", "zero", positions="answer")
