"""Clean passes that are kept: the same numbers as without, less work, within their limits."""

import numpy as np
import pytest

from ablation_core import load_data
from ablation_core.engine import Recording, ablated_output, constant_replacements, score_outputs
from ablation_core.metrics import METRICS
from ablation_core.models import LoadedModel
from ablation_core.selection import Selection


@pytest.fixture
def unembedded(opt_mini: LoadedModel):
    """How many positions went through the unembedding, counted by a hook."""
    positions: list[int] = []
    handle = opt_mini.module.lm_head.register_forward_hook(
        lambda _m, _i, logits: positions.append(logits[..., 0].numel())
    )
    yield positions
    handle.remove()


def scored(recording: Recording) -> list:
    model = recording.model
    replacements = constant_replacements(Selection.parse("2.1", model.shape), np.zeros((6, 6, 32), np.float32), model)
    scores = []
    for number in range(len(recording.data)):
        recorded = recording[number]
        scores += score_outputs(model, recorded, [ablated_output(model, recorded, replacements)])
    return scores


def test_clean_log_probabilities_are_computed_once(opt_mini: LoadedModel, unembedded: list[int]) -> None:
    data = load_data("python-docs", opt_mini, predictions=300, seq_len=51, batch_size=4)
    assert len(data) == 2
    recording = Recording(opt_mini, data)
    first = scored(recording)
    both = sum(unembedded)
    unembedded.clear()
    again = scored(recording)
    assert sum(unembedded) * 2 == both, "only the ablated run's"
    anew = scored(Recording(opt_mini, data, limit=0))
    for one, other, third in zip(first, again, anew, strict=True):
        for metric in METRICS:
            assert np.array_equal(getattr(one, metric), getattr(other, metric))
            assert np.array_equal(getattr(one, metric), getattr(third, metric))


def test_what_is_kept_stays_within_its_limit(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=300, seq_len=51, batch_size=4)
    vocabulary = opt_mini.module.config.vocab_size
    room = 4 * 50 * vocabulary * 4  # the first batch's 4 windows of 50 predictions, in float32
    recording = Recording(opt_mini, data, clean_limit=room)
    scored(recording)
    assert [len(recording[number].clean) for number in range(2)] == [1, 0]
    assert sum(log_probs.nbytes for log_probs, _ in recording[0].clean.values()) == room
    nothing = Recording(opt_mini, data, limit=0)
    scored(nothing)
    assert not nothing[0].clean
