"""Ablations on tasks and at chosen positions, against whole forwards with a hook of the test's own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ablation_core import ablate, describe_head, direct_effects, estimate, load_data, load_model, sweep, writes
from ablation_core.data.dataset import IGNORED, Data
from ablation_core.errors import DataError, MethodError
from ablation_core.models.loaded import LoadedModel
from ablation_core.stats.intervals import mean_intervals

HEAD = (1, 3)


def plain(model: LoadedModel, data: Data, replaced: dict[int, list[int]] | None, value: float = 0.0) -> torch.Tensor:
    """Log-probabilities of all rows with the head's neurons set to a value at these positions of each row."""
    batch = data.rows(range(data.sequences))
    layer, head = HEAD
    columns = slice(head * model.head_dim, (head + 1) * model.head_dim)

    def hook(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        z = inputs[0].clone()
        for row, positions in (replaced or {}).items():
            for position in positions:
                z[row, position, columns] = value
        return (z, *inputs[1:])

    handle = model.projections[layer].register_forward_pre_hook(hook)
    try:
        with torch.no_grad():
            return model.module(**batch.inputs).logits.double().log_softmax(-1)
    finally:
        handle.remove()


def by_hand(data: Data, log_probs: torch.Tensor) -> list[dict[str, float]]:
    """Each prompt's figures, token by token."""
    batch = data.rows(range(data.sequences))
    assert batch.answers is not None
    found = []
    for prompt in range(data.sequences):
        right = wrong = 0.0
        top1 = 1.0
        for row in range(len(batch.targets)):
            if int(batch.answers.item[row]) != prompt:
                continue
            for place in range(batch.targets.shape[1]):
                target, other = int(batch.targets[row, place]), int(batch.answers.others[row, place])
                if target == IGNORED:
                    continue
                at = log_probs[row, place]
                if bool(batch.answers.wrong[row]):
                    wrong += float(at[target])
                    continue
                right += float(at[target])
                wrong += float(at[other]) if other != IGNORED else 0.0
                top1 = min(top1, float(at.argmax() == target))
        found.append(
            {"loss": -right, "top1": top1, "logit_difference": right - wrong, "accuracy": float(right > wrong)}
        )
    return found


@pytest.fixture(scope="module")
def roberta_mini() -> LoadedModel:
    return load_model("roberta-mini")


def pairs(folder: Path, *lines: dict) -> str:
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"pairs:{folder / 'pairs.jsonl'}"


MIXED = (
    {"prompt": "The value of x is", "right": " not", "wrong": " set", "group": "a"},
    {"prompt": "It ends with", "right": " zebra crossing", "wrong": " a number", "group": "b"},
    {"prompt": "The name of this function is the", "right": " same", "wrong": " other", "group": "a"},
    {"prompt": "If the file does", "right": " not exist", "wrong": " exist", "group": "c"},
)


@pytest.mark.parametrize("ref", ["task:induction", "task:greater-than", "file"])
@pytest.mark.parametrize("name", ["opt-mini", "roberta-mini"])
def test_every_figure_is_the_plain_forwards(
    name: str, ref: str, opt_mini: LoadedModel, roberta_mini: LoadedModel, tmp_path: Path
) -> None:
    model = opt_mini if name == "opt-mini" else roberta_mini
    lines = (
        MIXED if model.modality == "causal" else ({**line, "prompt": line["prompt"] + " [MASK] ."} for line in MIXED)
    )
    data = load_data(pairs(tmp_path, *lines) if ref == "file" else ref, model, predictions=6)
    result = ablate(model, data, "1.3", "zero").to_dict()
    everywhere = {row: list(range(data.length)) for row in range(2 * data.sequences)}
    everywhere = {
        row: where for row, where in everywhere.items() if row < len(data.rows(range(data.sequences)).targets)
    }
    for shown, log_probs in (
        (result["baseline"], plain(model, data, None)),
        (result["results"][0], plain(model, data, everywhere)),
    ):
        wanted = by_hand(data, log_probs)
        for metric in ("loss", "top1", "logit_difference", "accuracy"):
            assert shown[metric] == pytest.approx(np.mean([row[metric] for row in wanted]), abs=2e-5), metric
        assert shown["probability"] == pytest.approx(np.mean([np.exp(-row["loss"]) for row in wanted]), abs=1e-5)


def test_the_last_position_is_that_of_each_prompt(opt_mini: LoadedModel, tmp_path: Path) -> None:
    data = load_data(pairs(tmp_path, *MIXED), opt_mini, predictions=4)
    batch = data.rows(range(data.sequences))
    assert batch.answers is not None
    ends = {row: [int(end) - 1] for row, end in enumerate(batch.answers.ends)}
    wanted = by_hand(data, plain(opt_mini, data, ends))
    result = ablate(opt_mini, data, "1.3", "zero", positions="last")
    assert result.to_dict()["positions"] == "last"
    assert result.results[0].performance["logit_difference"] == pytest.approx(
        np.mean([row["logit_difference"] for row in wanted]), abs=2e-5
    )
    assert result.results[0].performance.loss != ablate(opt_mini, data, "1.3", "zero").results[0].performance.loss


def test_positions_of_text_are_those_of_a_hook(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=60, seq_len=16)
    log_probs = plain(opt_mini, data, {row: [2, 3, 15] for row in range(data.sequences)})
    batch = data.rows(range(data.sequences))
    scored = batch.targets != IGNORED
    wanted = -log_probs[scored].gather(1, batch.targets[scored][:, None]).mean()
    found = ablate(opt_mini, data, "1.3", "zero", positions="2-3,last").results[0].performance.loss
    assert found == pytest.approx(float(wanted), abs=2e-5)


def test_the_prompt_itself_as_its_counterfactual_changes_no_bit(opt_mini: LoadedModel, tmp_path: Path) -> None:
    lines = [line | {"counterfactual": line["prompt"]} for line in MIXED]
    data = load_data(pairs(tmp_path, *lines), opt_mini, predictions=4)
    row = ablate(opt_mini, data, "*.*", "counterfactual").results[0]
    assert all(interval.mean == 0 for interval in row.change.values())


def test_another_prompt_as_counterfactual_gives_its_values(opt_mini: LoadedModel, tmp_path: Path) -> None:
    line = MIXED[0] | {"counterfactual": "The value of y is"}
    data = load_data(pairs(tmp_path, line), opt_mini, predictions=1)
    assert data.counterfactual is not None
    other = ablate(opt_mini, data, "*.*", "counterfactual").results[0].performance
    own = load_data(pairs(tmp_path, line | {"prompt": "The value of y is"}), opt_mini, predictions=1)
    # With every head as in the other prompt only the embeddings differ, so that it is near that prompt's own result.
    there = ablate(opt_mini, own, "", "zero").baseline
    here = ablate(opt_mini, data, "", "zero").baseline
    assert abs(other["logit_difference"] - there["logit_difference"]) <= abs(
        here["logit_difference"] - there["logit_difference"]
    )
    plain_text = load_data("python-docs", opt_mini, predictions=10)
    with pytest.raises(MethodError, match="counterfactual prompt of as many tokens"):
        ablate(opt_mini, plain_text, "0.0", "counterfactual")


def test_means_by_position_are_means_of_each_position(opt_mini: LoadedModel) -> None:
    from ablation_core.engine import forward
    from ablation_core.methods.positional import positional_means

    data = load_data("task:agreement", opt_mini, predictions=7, split="statistics")
    batch = data.rows(range(7))
    z = forward.z_values(opt_mini, batch, [2])[2].double()
    means = positional_means(opt_mini, data, data)[2][0]
    mask = batch.inputs["attention_mask"].bool()
    for position in range(data.length):
        wanted = z[mask[:, position], position].mean(0) if mask[:, position].any() else z[mask].mean(0)
        assert torch.allclose(means[position].double(), wanted, atol=1e-6)


def test_intervals_resample_groups(opt_mini: LoadedModel, tmp_path: Path) -> None:
    lines = [
        {"prompt": f"The {noun} of {name} is", "right": " not", "wrong": " set", "group": name}
        for name in "abcdefghijklmn"
        for noun in ("value", "name", "type")
    ]
    data = load_data(pairs(tmp_path, *lines), opt_mini, predictions=100)
    assert data.sequences == 21  # every other of the 14 groups
    result = ablate(opt_mini, data, "1.3", "zero")
    everywhere = {row: list(range(data.length)) for row in range(data.sequences)}
    before, after = (by_hand(data, plain(opt_mini, data, where)) for where in (None, everywhere))
    change = np.array([b["loss"] - a["loss"] for a, b in zip(before, after, strict=True)])
    (wanted,) = mean_intervals(change[None], np.repeat(np.arange(7), 3), data.seed)
    found = result.results[0].change["loss"]
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-4)


def test_what_cannot_be_asked_is_refused(opt_mini: LoadedModel, tmp_path: Path) -> None:
    data = load_data("python-docs", opt_mini, predictions=10)
    with pytest.raises(DataError, match="position answer is for tasks"):
        ablate(opt_mini, data, "0.0", "zero", positions="answer")
    with pytest.raises(DataError, match="no position 500"):
        ablate(opt_mini, data, "0.0", "zero", positions="500")


def test_what_goes_by_single_tokens_refuses_answers_of_several(opt_mini: LoadedModel, tmp_path: Path) -> None:
    statistics = "python-docs"
    data = load_data(pairs(tmp_path, *MIXED), opt_mini, predictions=4)
    for ask in (
        lambda: estimate(opt_mini, data, "zero"),
        lambda: ablate(opt_mini, data, "0.0", "optimal", statistics=statistics),
        lambda: direct_effects(opt_mini, data),
        lambda: writes(opt_mini, "0.0", data),
    ):
        with pytest.raises(DataError, match="needs answers of one token"):
            ask()
    with pytest.raises(DataError, match="sweep without --adaptive"):
        sweep(opt_mini, data, "zero", adaptive=True, cache=tmp_path)


def test_an_estimate_of_a_task_is_that_of_its_right_answers(opt_mini: LoadedModel) -> None:
    data = load_data("task:induction", opt_mini, predictions=24)
    found = estimate(opt_mini, data, "zero").methods[0].loss.heads
    exact = {
        name: ablate(opt_mini, data, name, "zero").results[0].change["loss"].mean for name in ("0.0", "2.2", "5.5")
    }
    small = min(exact, key=lambda name: abs(exact[name]))  # of second order: good where little changes
    layer, head = map(int, small.split("."))
    assert found[layer, head] == pytest.approx(exact[small], abs=0.05 + 0.5 * abs(exact[small]))


def test_every_head_of_a_task(opt_mini: LoadedModel, tmp_path: Path) -> None:
    data = load_data("task:induction", opt_mini, predictions=10)
    swept = sweep(opt_mini, data, "zero", heads=[(1, 3), (4, 5)], cache=tmp_path).to_dict()
    for head in swept["heads"]:
        alone = ablate(opt_mini, data, head["head"], "zero").to_dict()["results"][0]
        for metric in ("loss", "logit_difference", "accuracy", "probability"):
            assert head["results"][0][metric] == alone[metric]
            assert head["results"][0]["change"][metric] == alone["change"][metric]


def test_a_head_is_described_where_answers_have_several_tokens_without_what_needs_one(
    opt_mini: LoadedModel, tmp_path: Path
) -> None:
    data = load_data(pairs(tmp_path, *MIXED), opt_mini)
    document = describe_head(opt_mini, data, "1.3").to_dict()
    assert document["writes"] is None and document["direct_effect"] is None
    assert any("answers of one token" in note for note in document["notes"])
    alone = ablate(opt_mini, data, "1.3", "zero").to_dict()["results"][0]["change"]["loss"]["mean"]
    assert document["total_effect"]["mean"] == pytest.approx(alone)


def test_a_direct_effects_interval_keeps_groups_together(opt_mini: LoadedModel) -> None:
    data = load_data("task:agreement", opt_mini, predictions=20)
    direct = direct_effects(opt_mini, data)
    assert data.groups is not None and len(set(data.groups.tolist())) == 10
    (expected,) = mean_intervals(direct.by_head[:, 1, 3][None], data.groups, data.seed)
    assert direct.interval((1, 3)) == expected
