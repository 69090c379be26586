"""Interactions of heads, against whole forwards with hooks of the test's own."""

from itertools import combinations

import numpy as np
import pytest
import torch

from ablation_core import interact, load_data, noise_floor
from ablation_core.cli.text.experiments import format_interactions
from ablation_core.data.dataset import IGNORED, Data
from ablation_core.engine.metrics import METRICS
from ablation_core.errors import MethodError, SelectionError
from ablation_core.experiments.interactions import _verdict
from ablation_core.models.loaded import LoadedModel
from ablation_core.report.present.interactions import interaction_matrix
from ablation_core.report.present.words import interaction_sentences
from ablation_core.stats.intervals import Interval, mean_intervals
from tests.experiments.test_task_ablation import by_hand

HEADS = ("0.4", "1.3", "5.0")


def log_probs_without(model: LoadedModel, data: Data, heads: tuple[str, ...]) -> torch.Tensor:
    """Of all rows, with these heads set to zero."""
    batch = data.rows(range(data.sequences))

    def zeroed(columns: list[slice]):  # type: ignore[no-untyped-def]
        def hook(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            z = inputs[0].clone()
            for where in columns:
                z[..., where] = 0
            return (z, *inputs[1:])

        return hook

    size, places = model.head_dim, [tuple(map(int, head.split("."))) for head in heads]
    hooks = []
    for layer in {layer for layer, _ in places}:
        columns = [slice(head * size, (head + 1) * size) for at, head in places if at == layer]
        hooks.append(model.projections[layer].register_forward_pre_hook(zeroed(columns)))
    try:
        with torch.no_grad():
            return model.module(**batch.inputs).logits.double().log_softmax(-1)
    finally:
        for hook in hooks:
            hook.remove()


def losses(model: LoadedModel, data: Data, heads: tuple[str, ...]) -> np.ndarray:
    """Each prediction's loss with these heads set to zero."""
    batch, log_probs = data.rows(range(data.sequences)), log_probs_without(model, data, heads)
    scored = batch.targets != IGNORED
    return -log_probs[scored].gather(1, batch.targets[scored][:, None])[:, 0].numpy()


def test_every_figure_is_the_plain_forwards(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=300, seq_len=32)
    found = interact(opt_mini, data, " ".join(HEADS), "zero").to_dict()
    clean = losses(opt_mini, data, ())
    change = {names: losses(opt_mini, data, names) - clean for size in (1, 2, 3) for names in combinations(HEADS, size)}
    sequences = np.nonzero((data.rows(range(data.sequences)).targets != IGNORED).numpy())[0]

    def interval(values: np.ndarray) -> list[float]:
        (wanted,) = mean_intervals(values[None], sequences, data.seed)
        return [wanted.mean, wanted.low or 0.0, wanted.high or 0.0]

    for single in found["singles"]:
        assert list(single["change"]["loss"].values()) == pytest.approx(interval(change[single["head"],]), abs=2e-5)
    for pair in found["pairs"]:
        one, other = pair["pair"]
        beyond = change[one, other] - change[one,] - change[other,]
        assert list(pair["interaction"].values()) == pytest.approx(interval(beyond), abs=4e-5)
        assert (pair["p"] <= 0.05) == (pair["interaction"]["low"] > 0 or pair["interaction"]["high"] < 0)
        assert pair["q"] >= pair["p"] or pair["q"] == pytest.approx(pair["p"])
    whole = change[HEADS] - sum(change[head,] for head in HEADS)
    assert list(found["interaction"].values()) == pytest.approx(interval(whole), abs=4e-5)
    assert [pair["pair"] for pair in found["pairs"]] == [list(pair) for pair in combinations(HEADS, 2)]


@pytest.mark.parametrize(
    ("interaction", "q", "verdict"),
    [
        (Interval(0.3, 0.2, 0.4), 0.01, "redundant"),
        (Interval(-0.3, -0.4, -0.2), 0.01, "synergistic"),
        (Interval(0.3, 0.2, 0.4), 0.2, "undecided"),  # not after all pairs are counted
        (Interval(0.01, -0.05, 0.06), 0.9, "independent"),  # within a tenth of 1
        (Interval(0.1, -0.3, 0.5), 0.6, "undecided"),
        (Interval(0.3, None, None), None, "undecided"),
    ],
)
def test_what_an_interaction_is_called(interaction: Interval, q: float | None, verdict: str) -> None:
    single = Interval(1.0, 0.9, 1.1)
    assert _verdict(interaction, single, Interval(-0.2, -0.3, -0.1), q) == verdict


@pytest.mark.parametrize("select", ["", "0.4", "*.*"])
def test_too_few_or_too_many_heads_are_refused(opt_mini: LoadedModel, select: str) -> None:
    data = load_data("python-docs", opt_mini, predictions=10)
    with pytest.raises(SelectionError, match="2 to 24 heads"):
        interact(opt_mini, data, select, "zero")


def test_one_method_and_positions_in_any_form(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=60, seq_len=16)
    for call in (interact, noise_floor):
        with pytest.raises(MethodError, match="'all' stands for"):
            call(opt_mini, data, "0.4 1.3", method="all")
    listed, written = (interact(opt_mini, data, "0.4 1.3", "zero", positions=at) for at in ([3, "last"], "3,last"))
    assert listed == written and listed.positions == "3,last"


def test_on_a_task_the_logit_difference_interacts_unless_another_metric_is_chosen(opt_mini: LoadedModel) -> None:
    data = load_data("task:induction", opt_mini, predictions=8)

    def changes(metric: str) -> dict[tuple[str, ...], np.ndarray]:
        found = {
            names: np.array([one[metric] for one in by_hand(data, log_probs_without(opt_mini, data, names))])
            for names in ((), ("3.3",), ("5.1",), ("3.3", "5.1"))
        }
        return {names: values - found[()] for names, values in found.items()}

    for metric, named in (("logit_difference", None), ("loss", "loss"), ("top1", "top1")):
        result = interact(opt_mini, data, "3.3 5.1", "zero", metric=named)
        change, (pair,) = changes(metric), result.pairs
        wanted = (change["3.3", "5.1"] - change["3.3",] - change["5.1",]).mean()
        assert result.metric == metric and pair.interaction.mean == pytest.approx(wanted, abs=4e-5)
        assert result.singles["5.1"].mean == pytest.approx(change["5.1",].mean(), abs=2e-5)
        assert result.to_dict()["joint"]["change"][metric]["mean"] == pytest.approx(pair.joint.mean)
        label = METRICS[metric].label
        assert f"change of {label} (mean)" in result.to_frame("pairs") and label in format_interactions(result)
        assert METRICS[metric].noun in interaction_sentences(result)[0] and interaction_matrix(result).to_dict()
    for name in ("kl", "speed"):
        with pytest.raises(MethodError, match="choose from loss, top1, top10, logit_difference"):
            interact(opt_mini, data, "3.3 5.1", "zero", metric=name)


def test_where_less_is_worse_a_joint_fall_beyond_the_sum_is_redundancy() -> None:
    single, beyond = Interval(-1.0, -1.1, -0.9), Interval(-0.3, -0.4, -0.2)
    assert _verdict(beyond, single, single, 0.01, worse=-1) == "redundant"
    assert _verdict(Interval(0.3, 0.2, 0.4), single, single, 0.01, worse=-1) == "synergistic"
