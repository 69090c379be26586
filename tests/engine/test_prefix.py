"""Ablations that begin in the middle of a sequence: equal to the whole pass, in every causal family that takes a cache."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from ablation_core import load_data
from ablation_core.data.dataset import Batch
from ablation_core.data.positions import Positions
from ablation_core.engine import shared_passes
from ablation_core.engine.clean_passes import (
    Ablation,
    CleanPassCache,
    ablated_outputs,
    ablated_together,
    most_together,
)
from ablation_core.engine.forward import record, run_blocks
from ablation_core.engine.hooks import hidden_of, record_outputs, replace_z
from ablation_core.engine.prefix import fewest_columns
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.spec import AblationSpec
from ablation_core.methods.registry import METHODS
from ablation_core.models.architectures import ARCHITECTURES
from ablation_core.models.loaded import LoadedModel
from ablation_core.runs.backends import Task, measure_together
from ablation_core.runs.units import WorkUnit
from ablation_core.selection import Selection
from tests import tiny

CAUSAL = [family for family in tiny.FAMILIES if ARCHITECTURES[family].modality == "causal"]
WHOLE_WAY: set[str] = set()  # families whose attention does not take a cached prefix so
# These compute the same, and round otherwise: Bloom, and mixtures, each of whose experts may get a row or two.
ROUNDED = {"bloom", "mixtral"}
# Whose masks have windows or biases of their own, so that rows cannot be given columns of their own:
TOGETHER = {"bloom", "gpt_neo", "mistral", "gemma2", "gemma3_text"}
START = 6  # of 12 positions, in three sequences: 18 are run


@pytest.fixture(scope="module", params=CAUSAL)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny.build(request.param)


def padded(model: LoadedModel) -> Batch:
    """Three sequences, of which the last two end earlier, as prompts of several lengths do."""
    batch = tiny.batch(model)
    mask = batch.inputs["attention_mask"].clone()
    mask[1, -2:], mask[2, -4:] = 0, 0
    return Batch({"input_ids": batch.inputs["input_ids"], "attention_mask": mask}, batch.targets)


@contextmanager
def zeroed(model: LoadedModel, layer: int, head: int, start: int) -> Iterator[None]:
    """A hook of the test's own: the head's z is 0 from a position on."""
    columns = slice(head * model.head_dim, (head + 1) * model.head_dim)

    def hook(_module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        z = inputs[0].clone()
        z[:, start:, columns] = 0
        return (z, *inputs[1:])

    handle = model.projections[layer].register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.inference_mode()
def whole(model: LoadedModel, batch: Batch, layer: int, head: int) -> list[Tensor]:
    with zeroed(model, layer, head, START), record_outputs(model) as outputs:
        run_blocks(model, batch)
    return list(map(hidden_of, outputs))


def zero_from(model: LoadedModel, head: int) -> object:
    columns = torch.zeros(model.shape.width(0), dtype=torch.bool)
    columns[head * model.head_dim : (head + 1) * model.head_dim] = True
    return lambda z: torch.where((torch.arange(z.shape[1]) >= START)[:, None] & columns, 0.0, z)


def test_later_positions_are_those_of_the_whole_pass(model: LoadedModel) -> None:
    batch = padded(model)
    clean_pass = record(model, batch, keys_values=True)
    assert model.takes_prefix == (model.family not in WHOLE_WAY)
    plain = record(model, batch)
    assert all(torch.equal(hidden_of(a), hidden_of(b)) for a, b in zip(clean_pass.outputs, plain.outputs, strict=True))
    real = batch.inputs["attention_mask"].bool()
    for layer in range(model.num_layers):
        expected = whole(model, batch, layer, 1)
        found = ablated_outputs(model, clean_pass, {layer: zero_from(model, 1)}, torch.full((3,), START))
        for one, other in zip(map(hidden_of, found), expected, strict=True):
            torch.testing.assert_close(one[real], other[real], rtol=1e-5, atol=1e-5 * float(other.abs().max()))
            assert torch.equal(one[real], other[real]) or model.family in ROUNDED
    assert not any("forward" in vars(module) for module in model.module.modules())


def test_each_sequence_runs_its_own_last_position(model: LoadedModel) -> None:
    batch = padded(model)
    batch = Batch({name: tensor.repeat(6, 1) for name, tensor in batch.inputs.items()}, batch.targets.repeat(6, 1))
    clean_pass = record(model, batch, keys_values=True)
    real = batch.inputs["attention_mask"].bool()
    last = real.sum(1) - 1
    columns = slice(model.head_dim, 2 * model.head_dim)

    def zero_last(z: Tensor) -> Tensor:
        z = z.clone()
        z[torch.arange(len(z)), last, columns] = 0
        return z

    seen: list[int] = []
    for layer in range(model.num_layers):
        with torch.inference_mode(), replace_z(model, {layer: zero_last}), record_outputs(model) as expected:
            run_blocks(model, batch)
        handle = model.blocks[-1].register_forward_hook(lambda _m, _i, output: seen.append(hidden_of(output).shape[1]))
        found = ablated_outputs(model, clean_pass, {layer: zero_last}, last)
        handle.remove()
        few = fewest_columns(model, len(last))
        assert few < batch.targets.shape[1] // 2
        assert seen[-1:] == ([few] if model.family not in TOGETHER else [batch.targets.shape[1] - int(last.min())])
        for one, other in zip(map(hidden_of, found), map(hidden_of, expected), strict=True):
            torch.testing.assert_close(one[real], other[real], rtol=1e-5, atol=1e-5 * float(other.abs().max()))
            assert torch.equal(one[real], other[real]) or model.family in ROUNDED
    assert model.takes_columns is (model.family not in TOGETHER)


def test_only_later_positions_are_run(model: LoadedModel) -> None:
    if model.family in WHOLE_WAY:
        return
    batch = padded(model)
    clean_pass = record(model, batch, keys_values=True)
    seen: list[int] = []
    handles = [
        block.register_forward_hook(lambda _m, _i, output: seen.append(hidden_of(output).shape[1]))
        for block in model.blocks[1:]
    ]
    ablated_outputs(model, clean_pass, {1: zero_from(model, 1)}, torch.full((3,), START))
    for handle in handles:
        handle.remove()
    assert seen == [batch.targets.shape[1] - START] * (model.num_layers - 1)


@pytest.mark.parametrize("left", [False, True])
def test_heads_of_a_layer_share_a_pass_and_give_what_each_gives_alone(model: LoadedModel, left: bool) -> None:
    """Each head against the whole pass with a hook of the test's own, padded at either end."""
    batch = padded(model)
    if left:
        flipped = batch.inputs["attention_mask"].flip(1)
        batch = Batch(batch.inputs | {"attention_mask": flipped}, batch.targets)
    clean_pass = record(model, batch, keys_values=True)
    if not clean_pass.keys_values:
        return
    real = batch.inputs["attention_mask"].bool()
    starts = torch.full((3,), START)
    heads = range(model.shape.heads[1])
    asked = [Ablation({layer: zero_from(model, head)}, starts) for head in heads for layer in (1, 0)]
    seen: list[int] = []
    handle = model.blocks[-1].register_forward_hook(lambda _m, _i, output: seen.append(len(hidden_of(output))))
    together = {number: list(outputs) for number, outputs in ablated_together(model, clean_pass, asked)}
    handle.remove()
    assert seen == [3 * len(heads)] * 2, "one pass a layer"
    assert sorted(together) == list(range(2 * len(heads)))
    for number, outputs in together.items():
        head, layer = number // 2, 1 - number % 2
        for one, other in zip(map(hidden_of, outputs), whole(model, batch, layer, head), strict=True):
            torch.testing.assert_close(one[real], other[real], rtol=1e-5, atol=1e-5 * float(other.abs().max()))


def test_prompts_of_several_lengths_share_a_pass_at_their_own_last_positions(opt_mini: LoadedModel) -> None:
    """All heads of a layer at each prompt's last position, from a sweep's engine, against a plain loop over prompts."""
    data = load_data("task:induction", opt_mini, predictions=6, batch_size=6)
    assert data.lengths is not None and len(set(data.lengths)) > 2
    (batch,) = data
    cache = CleanPassCache(opt_mini, data, keys_values=True)
    units = [
        WorkUnit(f"2.{head}", Selection.parse(f"2.{head}", opt_mini.shape), Positions.parse("last"))
        for head in range(opt_mini.shape.heads[2])
    ]
    rows: list[int] = []
    handle = opt_mini.blocks[-1].register_forward_hook(lambda _m, _i, output: rows.append(len(hidden_of(output))))
    tasks = [Task(unit, (METHODS["zero"],)) for unit in units]
    records = {news.task: news.record for news in measure_together(tasks, 100, None, cache) if news.record}
    handle.remove()
    assert max(rows) == 6 * len(units)
    for head in range(len(units)):
        expected = []
        for row, end in enumerate(batch.answers.ends.tolist()):
            columns = slice(head * opt_mini.head_dim, (head + 1) * opt_mini.head_dim)

            def put(_module: torch.nn.Module, inputs: tuple[Tensor, ...], here: tuple = (end - 1, columns)) -> tuple:
                z = inputs[0].clone()
                z[:, here[0], here[1]] = 0
                return (z,)

            handle = opt_mini.projections[2].register_forward_pre_hook(put)
            with torch.no_grad():
                logits = opt_mini.module(batch.inputs["input_ids"][row : row + 1, :end]).logits[0, -1]
            handle.remove()
            right, wrong = batch.targets[row, end - 1], batch.answers.others[row, end - 1]
            expected.append(float(logits[right] - logits[wrong]))
        found = records[head]["results"][0]["logit_difference"]
        assert found == pytest.approx(sum(expected) / len(expected), abs=1e-5)


def test_many_copies_do_not_share_beyond_the_limits(opt_mini: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_data("task:induction", opt_mini, predictions=4, batch_size=4)
    clean_pass = CleanPassCache(opt_mini, data, keys_values=True)[0]
    starts = Positions.parse("last").firsts(clean_pass.batch)
    # 4 rows of 4 columns each, the fewest that give the same bits
    assert most_together(opt_mini, clean_pass, starts) == shared_passes.TOKENS // 16
    kept = sum(one.nbytes for pair in clean_pass.keys_values for one in pair)
    monkeypatch.setattr(shared_passes, "BYTES", 3 * kept)
    assert most_together(opt_mini, clean_pass, starts) == 3
    monkeypatch.setattr(shared_passes, "BYTES", kept - 1)
    assert most_together(opt_mini, clean_pass, starts) == 1
    assert most_together(opt_mini, clean_pass, None) == 1


@pytest.mark.parametrize(("prompts", "positions"), [(12, "last"), (12, "-9"), (1, "last"), (1, "24-")])
def test_prompts_of_a_bundled_model_are_answered_bit_for_bit(
    opt_mini: LoadedModel, prompts: int, positions: str
) -> None:
    """Of a single prompt somewhat more than its last position is run, so that the bits are the same."""
    data = load_data("task:induction", opt_mini, predictions=prompts)
    spec = AblationSpec(
        Selection.parse("2.3", opt_mini.shape), (METHODS["zero"],), positions=Positions.parse(positions)
    )
    reused = AblationRun(opt_mini, data, spec, None, CleanPassCache(opt_mini, data, keys_values=True))
    assert reused.clean_cache[0].keys_values
    plain = AblationRun(opt_mini, data, spec, None, CleanPassCache(opt_mini, data))
    scores = [run.finish().scores()[1]["zero"] for run in (reused, plain)]
    assert all((scores[0][name] == scores[1][name]).all() for name in scores[0].values)


def test_what_is_not_kept_is_run_whole(opt_mini: LoadedModel) -> None:
    data = load_data("task:induction", opt_mini, predictions=4)
    clean_pass = CleanPassCache(opt_mini, data, limit=0, keys_values=True)[0]
    assert clean_pass.keys_values, "the latest pass is used as it is"
    small = CleanPassCache(opt_mini, data, limit=clean_pass.bytes - 1, keys_values=True)
    assert not small[0].keys_values
