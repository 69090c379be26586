"""Adaptive sweeps: what looking many times may cost, against single ablations, and interrupted anywhere."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import t, ttest_1samp
from torch import Tensor, nn

from ablation_core import ablate, load_data
from ablation_core.__main__ import main
from ablation_core.data.dataset import Data
from ablation_core.errors import DataError, MethodError
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import finished
from ablation_core.runs.adaptive import AdaptiveSpec, adaptive_steps
from ablation_core.runs.adaptive_batches import HeadMeasurements
from ablation_core.runs.ledger import open_ledger
from ablation_core.stats.regression_estimator import RegressionEstimator
from ablation_core.stats.sequential import GroupSequentialTest, plan_interim_looks
from tests.conftest import numbers

SEQUENCES = 48
SOME_HEADS = ((0, 0), (0, 3), (2, 1), (3, 4), (5, 0), (5, 5))


def looked_at(
    values: np.ndarray, first_order: np.ndarray | None = None, sizes: np.ndarray | None = None
) -> GroupSequentialTest:
    """Looks at changes, (changes, sequences), as a sweep does: the open ones only, until none is."""
    looks, shares = plan_interim_looks(values.shape[1], 1)
    looking = GroupSequentialTest(len(values), shares)
    for seen in looks:
        if len(looking.open):
            looking.look(values[looking.open, :seen], np.ones(values.shape[1]), first_order, sizes)
    return looking


def told_in(values: np.ndarray, first_order: np.ndarray | None = None, sizes: np.ndarray | None = None) -> np.ndarray:
    return np.array([verdict == "told" for verdict in looked_at(values, first_order, sizes).verdicts])


def draw(generator: np.random.Generator, kind: str, size: tuple[int, int]) -> np.ndarray:
    return generator.normal(size=size) if kind == "normal" else generator.laplace(size=size)


@pytest.mark.parametrize("kind", ["normal", "laplace"])
def test_where_nothing_has_an_effect_at_most_one_map_in_twenty_tells_one(kind: str) -> None:
    generator = np.random.default_rng(7)
    maps = 200
    wrong = sum(told_in(draw(generator, kind, (24, SEQUENCES))).any() for _ in range(maps))
    assert wrong / maps <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / maps)


def test_of_what_is_told_at_most_one_in_twenty_has_no_effect() -> None:
    generator = np.random.default_rng(8)
    real = np.arange(30) < 10
    shares = []
    for _ in range(150):
        significant = told_in(generator.normal(size=(30, SEQUENCES)) + 0.8 * real[:, None])
        shares.append((significant & ~real).sum() / max(significant.sum(), 1))
    assert np.mean(shares) <= 0.05
    assert (
        np.mean([told_in(generator.normal(size=(30, SEQUENCES)) + 0.8 * real[:, None])[real].mean() for _ in range(20)])
        > 0.9
    )


def test_looking_without_spending_would_be_caught() -> None:
    """The same maps with an unspent 5% at every look are wrong far too often: the test above can fail."""
    generator = np.random.default_rng(9)
    wrong = 0
    for _ in range(150):
        values = generator.normal(size=(1, SEQUENCES))
        looks = [RegressionEstimator.make(values[:, :size], np.ones(SEQUENCES)) for size in (8, 12, 18, 24, 36, 48)]
        wrong += min(look.p()[0] for look in looks) <= 0.05
    assert wrong / 150 > 0.08


def test_intervals_hold_the_mean_wherever_the_looking_ends() -> None:
    generator = np.random.default_rng(10)
    held = []
    for effect in (0.0, 0.3, 0.8, 2.0):
        for _ in range(30):
            looking = looked_at(generator.normal(effect, 1, size=(6, SEQUENCES)))
            held.append(np.abs(looking.mean - effect) <= looking.half_width)
    assert np.mean(held) >= 0.95


def test_p_and_the_reported_interval_never_disagree_about_zero() -> None:
    """Also where an early look decides and a later one is less sure."""
    generator, apart = np.random.default_rng(15), 0
    for _ in range(40):
        values = generator.normal(generator.normal(0, 0.5, (40, 1)), 1, size=(40, SEQUENCES))
        values[:, :8] += 0.6 * (generator.random((40, 1)) < 0.3)
        looking = looked_at(values)
        low, high = looking.intervals()
        np.testing.assert_array_equal((low > 0) | (high < 0), looking.p <= 0.05)
        assert (low <= high).all()
        last = np.abs(looking.mean) > looking.half_width
        apart += (last != (looking.p <= 0.05)).sum()
    assert apart > 0, "the last look's interval alone would disagree"


def test_strong_effects_and_none_take_fewer_predictions_than_doubtful_ones() -> None:
    generator = np.random.default_rng(11)
    noise = generator.normal(size=(60, SEQUENCES))
    effects = np.repeat([0.0, 0.45, 3.0], 20)
    looking = looked_at(noise + effects[:, None])
    none, doubtful, strong = looking.seen.reshape(3, 20).mean(1)
    assert strong < none < SEQUENCES
    assert strong < doubtful
    assert set(looking.verdicts[40:]) == {"told"}


def test_what_was_told_stays_told() -> None:
    generator = np.random.default_rng(12)
    values = generator.normal(size=(20, SEQUENCES)) + np.linspace(0, 1.5, 20)[:, None]
    (sizes, shares), significant = plan_interim_looks(SEQUENCES, 1), set()
    looking = GroupSequentialTest(20, shares)
    for size in sizes:
        looking.look(values[looking.open, :size], np.ones(SEQUENCES))
        now = {i for i, verdict in enumerate(looking.verdicts) if verdict == "told"}
        assert significant <= now
        significant = now
    assert significant


def test_estimates_are_the_ordinary_t_test_where_sequences_are_equally_long() -> None:
    values = np.random.default_rng(13).normal(0.2, 1, (4, 12))
    estimates = RegressionEstimator.make(values * 50, np.full(12, 50))
    np.testing.assert_allclose(estimates.mean, values.mean(1))
    np.testing.assert_allclose(estimates.error, values.std(1, ddof=1) / np.sqrt(12))
    np.testing.assert_allclose(estimates.p(), ttest_1samp(values, 0, axis=1).pvalue)
    low, high = ttest_1samp(values[0], 0).confidence_interval(0.975)
    assert estimates.half_width(0.5)[0] == pytest.approx((high - low) / 2)


def test_changes_that_never_vary_or_are_no_numbers() -> None:
    values = np.stack([np.zeros(SEQUENCES), np.ones(SEQUENCES), np.full(SEQUENCES, np.nan)])
    looking = looked_at(values)
    assert looking.verdicts == ["not told", "told", "no number"]  # all sequences could move none of them
    assert looking.p[:2].tolist() == [1.0, 0.0]


def test_looks_are_few_growing_and_spend_the_whole_error() -> None:
    for sequences, batch_size, batches, parts in [
        (2000, 64, [2, 4, 8, 16, 24, 32], [1, 2, 4, 8, 1, 16]),
        (64, 8, [1, 2, 4, 6, 8], [1 + 2, 4, 8, 1, 16]),
        (20, 3, [3, 4, 5, 7], [1 + 2 + 4, 8, 1, 16]),
        (3, 8, [1], [32]),
    ]:
        planned, shares = plan_interim_looks(sequences, batch_size)
        assert planned == batches
        assert shares.tolist() == [part / 32 for part in parts]


def test_the_chance_of_a_verdict_is_what_simulated_endings_give() -> None:
    generator = np.random.default_rng(14)
    values = generator.normal(0.5, 1, (1, 200))
    now = RegressionEstimator.make(values, np.ones(400))
    # With a flat prior: the true mean about what is known of it, then two hundred more values.
    means = generator.normal(now.mean[0], now.error[0], 4000)
    rest = generator.normal(means, np.std(values) / np.sqrt(200))
    ratio = (values.mean() + rest) / 2 / (np.std(values) / np.sqrt(400))
    for level in (1e-10, 1e-14, 1e-20):
        assert np.mean(2 * t.sf(np.abs(ratio), 399) <= level) == pytest.approx(now.chance(level)[0], abs=0.05)


@pytest.fixture(scope="module")
def data(opt_mini: LoadedModel) -> Data:
    return load_data("python-docs", opt_mini, predictions=24 * 15, seq_len=16, batch_size=4)


def spec(**options) -> AdaptiveSpec:
    methods = tuple(METHODS[name] for name in ("zero", "resample-dataset"))
    return AdaptiveSpec(**{"methods": methods, "heads": SOME_HEADS} | options)


@pytest.fixture(scope="module")
def run(opt_mini: LoadedModel, data: Data, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A whole sweep: its maps on the way as documents, how much each took, its result, its folder and its file."""
    folder, looks, taken, documents = tmp_path_factory.mktemp("whole run"), [], [], []
    for result in adaptive_steps(opt_mini, data, spec(), None, folder):
        looks.append(result.looks)
        taken.append(result.taken)
        documents.append(json.dumps(result.to_dict(), allow_nan=False))
    (path,) = (folder / "runs").glob("*.jsonl")
    return SimpleNamespace(looks=looks, taken=taken, documents=documents, result=result, folder=folder, path=path)


def test_a_head_that_took_everything_is_its_own_ablation(
    opt_mini: LoadedModel, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for chance in ("HARDLY", "SETTLED"):  # none is let go untold
        monkeypatch.setattr(f"ablation_core.stats.sequential.{chance}", 0.0)
    document = finished(adaptive_steps(opt_mini, data, spec(), None, tmp_path)).to_dict()
    whole = [(h["head"], row) for h in document["heads"] for row in h["results"] if row["sequences"] == data.sequences]
    assert whole
    for head, row in whole[:3]:  # each ablation runs a model
        alone = ablate(opt_mini, data, head, row["method"]).results[0].change
        for metric, interval in alone.items():
            assert row["change"][metric]["mean"] == pytest.approx(interval.mean, rel=1e-4, abs=1e-6), (head, metric)
    baseline = ablate(opt_mini, data, "", "zero").baseline
    assert document["baseline"]["loss"] == pytest.approx(baseline.loss, rel=1e-6)


def test_it_takes_less_and_says_how_much(data: Data, run: SimpleNamespace) -> None:
    result = run.result
    rows = [row for head in result.heads for row in head["results"]]
    assert result.open == 0
    assert {row["verdict"] for row in rows} <= {"told", "unlikely", "not told"}
    assert result.taken == pytest.approx(sum(row["predictions"] for row in rows) / (len(rows) * data.predictions))
    assert 0 < result.taken < 1


def test_interrupted_anywhere_it_ends_with_the_same_numbers(
    opt_mini: LoadedModel, data: Data, run: SimpleNamespace, tmp_path: Path
) -> None:
    for stop in (3, 9):
        steps = adaptive_steps(opt_mini, data, spec(), None, tmp_path / str(stop))
        for _ in range(stop):
            next(steps)
        steps.close()
        assert numbers(finished(adaptive_steps(opt_mini, data, spec(), None, tmp_path / str(stop)))) == numbers(
            run.result
        )
    kept = [path.read_bytes() for path in tmp_path.glob("*/runs/*.jsonl")]
    assert kept == [run.path.read_bytes()] * 2


def test_without_gradients_it_ends_all_the_same(
    opt_mini: LoadedModel, data: Data, run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guided = run.result

    def no_gradient(*_args: object) -> None:
        raise RuntimeError("derivative for aten::_int_mm is not implemented")

    monkeypatch.setattr("ablation_core.runs.adaptive_batches.linearise", no_gradient)
    plain = finished(adaptive_steps(opt_mini, data, spec(), None, tmp_path / "plain"))
    assert [r.description["first_order_estimates"] for r in (guided, plain)] == [True, False]
    assert plain.open == 0
    assert guided.taken < plain.taken
    monkeypatch.undo()  # what was measured in another order of the sequences is not taken for this one's
    again = finished(adaptive_steps(opt_mini, data, spec(), None, tmp_path / "plain"))
    assert numbers(again) == numbers(guided)


def test_guesses_are_slopes_of_each_sequences_loss(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    """Against central differences: the z moved a hundredth of the way to zero, and as far away from it."""
    runs = HeadMeasurements(opt_mini, data, 4, SOME_HEADS, spec().methods, None, 100)
    with open_ledger(tmp_path, "adaptive", {}) as ledger:
        runs.attach(ledger)
        for _ in runs.estimate(spec().methods):
            pass
    assert runs.counts.tolist() == [15.0] * 24
    assert sorted(runs.order) == list(range(24))
    batch = data.rows(runs.order[:3])
    for number in (1, 4):
        layer, head = SOME_HEADS[number]
        columns = slice(head * opt_mini.head_dim, (head + 1) * opt_mini.head_dim)
        losses = []
        for step in (0.01, -0.01):

            def move(
                _module: nn.Module, inputs: tuple[Tensor, ...], step: float = step, columns: slice = columns
            ) -> tuple[Tensor, ...]:
                moved = inputs[0].clone()
                moved[..., columns] *= 1 - step
                return (moved, *inputs[1:])

            handle = opt_mini.projections[layer].register_forward_pre_hook(move)
            with torch.no_grad():
                log_probs = opt_mini.module(**batch.inputs).logits.double().log_softmax(-1)[:, :-1]
            handle.remove()
            losses.append(-log_probs.gather(2, batch.targets[:, :-1, None]).sum((1, 2)))
        slopes = (losses[0] - losses[1]).numpy() / 0.02
        np.testing.assert_allclose(runs.first_order["zero"][number, :3], slopes, rtol=0.02, atol=0.005)


def test_a_finished_sweep_is_not_computed_again(
    opt_mini: LoadedModel, data: Data, run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run.folder, tmp_path, dirs_exist_ok=True)
    for again in ("engine.clean_passes.record", "runs.adaptive_batches.linearise"):
        monkeypatch.setattr(f"ablation_core.{again}", lambda *_: pytest.fail("a batch was run again"))
    assert numbers(finished(adaptive_steps(opt_mini, data, spec(), None, tmp_path))) == numbers(run.result)


CHANGES = {
    "another type": lambda record, field: record.update({field: "none"}),
    "another size": lambda record, field: record.update({field: [[1.0]]}),
    "a row less": lambda record, field: record[field].pop(),
    "a number more": lambda record, field: record[field][0].append(0.0),
    "a text for a number": lambda record, field: record[field][0].__setitem__(0, "1"),
    "no numbers": lambda record, field: record.pop(field),
    "no counts": lambda record, field: record.update(counts=None) if "counts" in record else None,
    "a count less": lambda record, field: record["counts"].pop() if "counts" in record else None,
}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(change, id=name, marks=() if name in ("another size", "a count less") else pytest.mark.slow)
        for name, change in CHANGES.items()
    ],
)
def test_what_is_not_built_as_it_should_be_is_measured_anew(
    opt_mini: LoadedModel,
    data: Data,
    run: SimpleNamespace,
    tmp_path: Path,
    change: Callable[[dict, str], object],
) -> None:
    """Every record of a kept run is altered; lines without a digest pass as those of an earlier version do."""
    path = tmp_path / "runs" / run.path.name
    path.parent.mkdir()
    header, *lines = run.path.read_text().splitlines()
    altered = []
    for line in map(json.loads, lines):
        for record in line["record"].values():
            change(record, "guesses" if "guesses" in record else "sums")
        altered.append(json.dumps({"piece": line["piece"], "record": line["record"]}))
    path.write_text("\n".join([header, *altered, ""]))
    assert numbers(finished(adaptive_steps(opt_mini, data, spec(), None, tmp_path))) == numbers(run.result)


def test_with_a_coarse_precision_the_first_look_decides(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    result = finished(adaptive_steps(opt_mini, data, spec(precision=1e3), None, tmp_path))
    assert result.looks == 1
    assert {row["verdict"] for head in result.heads for row in head["results"]} <= {"small", "told"}


def test_a_precision_that_is_none_is_refused(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    for precision in (0.0, -1.0, float("nan")):
        with pytest.raises(DataError, match="above 0 nats"):
            finished(adaptive_steps(opt_mini, data, spec(precision=precision), None, tmp_path))


def test_constants_that_are_learned_are_refused(opt_mini: LoadedModel, data: Data, tmp_path: Path) -> None:
    learned = AdaptiveSpec((METHODS["zero"], METHODS["optimal"]))
    with pytest.raises(
        MethodError, match="The constants of optimal are learned for each head; sweep without --adaptive"
    ):
        finished(adaptive_steps(opt_mini, data, learned, None, tmp_path))


def test_the_maps_on_the_way_grow_into_the_last(run: SimpleNamespace) -> None:
    assert [len(json.loads(document)["heads"]) for document in run.documents] == [len(SOME_HEADS)] * len(run.looks)
    assert run.looks[0] == 0
    assert run.looks == sorted(run.looks)
    assert run.taken == sorted(run.taken)


def test_the_command_prints_a_table_and_a_document(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    shared = ["sweep", "vit-mini", "--adaptive", "--method", "zero", "--predictions", "64", "--batch-size", "8"]
    shared += ["--cache-dir", str(tmp_path)]
    assert main(shared) == 0
    assert "of 36 heads" in capsys.readouterr().out
    assert main([*shared, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["heads"]) == 36
    assert main([*shared, "--precision", "-1"]) == 1
    assert "above 0 nats" in capsys.readouterr().err
    assert main(["sweep", "vit-mini", "--precision", "0.1"]) == 1
    assert "belongs to --adaptive" in capsys.readouterr().err
