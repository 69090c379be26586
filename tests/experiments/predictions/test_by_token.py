"""Which tokens lose most in sum, by an example worked out by hand and against a plain loop."""

from collections import defaultdict

import numpy as np
import pytest

from ablation_core.experiments.predictions.by_token import harm_by_token, in_words
from ablation_core.experiments.predictions.per_prediction import PredictionEffects
from ablation_core.report.sentences import harm_sentence


def effects(target: list[int], before: list[float], after: list[float]) -> PredictionEffects:
    place = np.arange(len(target))
    return PredictionEffects(place, place, np.array(target), np.array(before), np.array(after))


NAMES = {1: "line breaks", 2: "line breaks", 3: "“ the”", 4: "“,”"}


def test_a_hand_made_example() -> None:
    # line breaks: +1, +2, −0.5 = 2.5 over 3; the: +0.5; comma: −1. Harm: 2.5 + 0.5 = 3.
    found = harm_by_token(effects([1, 3, 2, 4, 1], [1, 1, 1, 2, 1.5], [2, 1.5, 3, 1, 1]), NAMES.__getitem__)
    assert [(harm.token, harm.predictions) for harm in found] == [("line breaks", 3), ("“ the”", 1), ("“,”", 1)]
    assert [harm.total for harm in found] == pytest.approx([2.5, 0.5, -1])
    assert [harm.mean for harm in found] == pytest.approx([2.5 / 3, 0.5, -1])
    assert [harm.share for harm in found] == pytest.approx([2.5 / 3, 0.5 / 3, -1 / 3])
    assert harm_sentence(found) == (
        "line breaks: 3 of 5 predictions, 0.83 nats each, 83% of all harm. Then “ the” (1, 0.50 nats each, 17%)."
    )


def test_many_predictions_against_a_plain_loop() -> None:
    random = np.random.default_rng(3)
    target, before, after = random.integers(0, 40, 500), random.gamma(2, size=500), random.gamma(2, size=500)
    sums: dict[str, list[float]] = defaultdict(list)
    for one, old, new in zip(target, before, after, strict=True):
        sums[f"token {one // 2}"].append(new - old)
    harm = sum(max(0.0, sum(changes)) for changes in sums.values())
    found = harm_by_token(effects(list(target), list(before), list(after)), lambda one: f"token {one // 2}")
    assert len(found) == len(sums) == 20
    for row in found:
        assert row.predictions == len(sums[row.token])
        assert row.total == pytest.approx(sum(sums[row.token]))
        assert row.share == pytest.approx(sum(sums[row.token]) / harm)
    assert [row.total for row in found] == sorted((row.total for row in found), reverse=True)


def test_what_is_no_number_is_left_out_and_nothing_may_be_harmed() -> None:
    found = harm_by_token(effects([1, 1, 3], [1, 1, 1], [np.nan, 0.5, np.inf]), NAMES.__getitem__)
    assert [(harm.token, harm.predictions, harm.total) for harm in found] == [("line breaks", 1, -0.5)]
    assert harm_sentence(found) == "No token's loss rises in sum."
    assert harm_by_token(effects([1], [1], [np.nan]), NAMES.__getitem__) == []


def test_white_space_is_named_in_words() -> None:
    assert [in_words(name) for name in ("“⏎⏎”", "“ ”", "“a”", "Bag")] == ["line breaks", "spaces", "“a”", "Bag"]
