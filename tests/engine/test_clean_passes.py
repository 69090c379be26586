"""Clean passes that are kept: the same numbers as without, less work, within their limits."""

from pathlib import Path

import numpy as np
import pytest

from ablation_core import load_data
from ablation_core.data.dataset import Data
from ablation_core.engine import clean_passes, forward
from ablation_core.engine.clean_passes import CleanPassCache, ablated_output, constant_replacements
from ablation_core.engine.metrics import METRICS
from ablation_core.engine.scoring import score_outputs
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from ablation_core.selection import Selection

HEADS = ((0, 1), (2, 0), (2, 3), (5, 4))

PLAIN = [name for name, metric in METRICS.items() if not metric.answers]


@pytest.fixture
def unembedded(opt_mini: LoadedModel):
    """How many positions went through the unembedding, counted by a hook."""
    positions: list[int] = []
    handle = opt_mini.module.lm_head.register_forward_hook(
        lambda _m, _i, logits: positions.append(logits[..., 0].numel())
    )
    yield positions
    handle.remove()


def scored(clean_cache: CleanPassCache) -> list:
    model = clean_cache.model
    replacements = constant_replacements(Selection.parse("2.1", model.shape), np.zeros((6, 6, 32), np.float32), model)
    scores = []
    for number in range(len(clean_cache.data)):
        clean_pass = clean_cache[number]
        scores += score_outputs(model, clean_pass, [ablated_output(model, clean_pass, replacements)])
    return scores


def test_clean_predictions_are_scored_once(opt_mini: LoadedModel, unembedded: list[int]) -> None:
    data = load_data("python-docs", opt_mini, predictions=300, seq_len=51, batch_size=4)
    assert len(data) == 2
    clean_cache = CleanPassCache(opt_mini, data)
    first = scored(clean_cache)
    both = sum(unembedded)
    unembedded.clear()
    again = scored(clean_cache)
    assert sum(unembedded) * 2 == both, "only the ablated run's"
    anew = scored(CleanPassCache(opt_mini, data, limit=0))
    for one, other, third in zip(first, again, anew, strict=True):
        for metric in PLAIN:
            assert np.array_equal(one[metric], other[metric])
            assert np.array_equal(one[metric], third[metric])


def test_what_is_kept_stays_within_its_limit(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=300, seq_len=51, batch_size=4)
    vocabulary = opt_mini.module.config.vocab_size
    room = 4 * 50 * vocabulary * 4  # the first batch's 4 windows of 50 predictions, in float32
    clean_cache = CleanPassCache(opt_mini, data, clean_limit=room)
    scored(clean_cache)
    assert [len(clean_cache[number].clean) for number in range(2)] == [1, 0]
    assert sum(clean.probabilities.nbytes for clean in clean_cache[0].clean.values()) == room
    nothing = CleanPassCache(opt_mini, data, limit=0)
    scored(nothing)
    assert not nothing[0].clean


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The clean passes and donors' passes that are made, by name."""
    made: list[str] = []
    for module, name in ((clean_passes, "record"), (forward, "z_values")):
        own = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, own=own, name=name: (made.append(name), own(*args))[1])
    return made


def two_batches(model: LoadedModel) -> Data:
    return load_data("python-docs", model, predictions=300, seq_len=51, batch_size=4)


def swept(clean_cache: CleanPassCache, folder: Path) -> dict:
    """The rows of four heads and a random set, by a constant and by donors."""
    methods = (METHODS["zero"], METHODS["resample-dataset"])
    spec = SweepSpec(methods, heads=HEADS, random_sets=1)
    *_, last = sweep_steps(clean_cache.model, clean_cache.data, spec, None, folder, clean_cache)
    return last.rows


def test_what_fits_is_run_once_and_what_does_not_once_for_many(
    opt_mini: LoadedModel, passes: list[str], tmp_path: Path
) -> None:
    data = two_batches(opt_mini)
    kept = CleanPassCache(opt_mini, data)
    expected = swept(kept, tmp_path / "kept")
    assert (passes.count("record"), passes.count("z_values"), kept.spilled) == (2, 2, False)
    everything = kept.bytes
    passes.clear()
    nothing = CleanPassCache(opt_mini, data, limit=0)
    assert swept(nothing, tmp_path / "nothing") == expected
    # the first batch shows that there is no room, then all five pieces go through both batches together
    assert (passes.count("record"), passes.count("z_values"), nothing.spilled) == (2, 2, True)
    assert nothing.bytes == 0
    passes.clear()
    tight = CleanPassCache(opt_mini, data, limit=everything - 1, clean_limit=0)
    assert swept(tight, tmp_path / "tight") == expected
    assert 0 < tight.bytes < everything


def test_outputs_come_before_pre_outs_where_room_is_short(opt_mini: LoadedModel) -> None:
    data = two_batches(opt_mini)
    whole = CleanPassCache(opt_mini, data)
    assert [list(whole[number].z_values) for number in range(2)] == [[*range(6)]] * 2
    plain = CleanPassCache(opt_mini, data, z_values=False)
    assert [dict(plain[number].z_values) for number in range(2)] == [{}, {}]
    assert whole.bytes == 2 * plain.bytes, "as many values a position as the residual stream has"
    short = CleanPassCache(opt_mini, data, limit=whole.bytes - 1)
    first = scored(short)
    assert not short.spilled and not short[0].z_values and short[0] is short[0]
    for clean_cache in (whole, plain):
        for one, other in zip(first, scored(clean_cache), strict=True):
            assert all(np.array_equal(one[name], other[name]) for name in PLAIN)


@pytest.mark.parametrize("batches_kept", [0, 2])
def test_a_recording_keeps_no_more_than_its_limit(opt_mini: LoadedModel, batches_kept: int) -> None:
    data = load_data("python-docs", opt_mini, predictions=24 * 15, seq_len=16, batch_size=4)
    one = CleanPassCache(opt_mini, data, z_values=False)[0].bytes
    width = opt_mini.module.config.hidden_size
    assert one == opt_mini.num_layers * 4 * 16 * width * 4  # layers, sequences, positions, width, float32
    clean_cache = CleanPassCache(opt_mini, data, limit=batches_kept * one + one // 2)
    for number in range(len(data)):
        clean_pass = clean_cache[number]
        assert (clean_cache[number] is clean_pass) == (number < batches_kept)
        assert clean_cache.bytes == min(number + 1, batches_kept) * one <= clean_cache.limit
