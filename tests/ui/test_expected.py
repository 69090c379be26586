"""The forecast of a run's duration: its words and its arithmetic."""

import threading
from types import SimpleNamespace

import pytest

from ablation_core import load_data
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import ModelShape
from ablation_core.server.turns import fair_lock
from ablation_core.ui.runs import expected


def test_the_words_are_as_rough_as_the_forecast() -> None:
    said = [expected.about(seconds) for seconds in (3, 43, 57, 170, 3600, 9000)]
    assert said == [
        "a few seconds",
        "about 40 seconds",
        "about 1 minute",
        "about 3 minutes",
        "about 60 minutes",
        "about 2.5 hours",
    ]


def test_a_head_costs_the_blocks_behind_it_and_the_scoring() -> None:
    # two blocks and the scoring: a head of the first costs all three, one of the second two of three
    assert expected.passes_of_heads(ModelShape((2, 2), 4), 4) == pytest.approx(2 * 1 + 2 * 2 / 3)
    assert expected.passes_of_heads(ModelShape((0, 2), 4), 3) == pytest.approx(3 * 2 / 3)


def test_the_forecast_is_in_proportion_and_waits_for_nobody(
    opt_mini: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_data("python-docs", opt_mini, predictions=20)
    ticks = iter([0.0, 5.0, 10.0, 12.0])  # of the two passes the second counts
    monkeypatch.setattr(expected, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert expected.seconds_of(opt_mini, data, 3.0) == pytest.approx(2.0 * 3 * len(data))
    assert expected.seconds_of(opt_mini, data, 6.0) == pytest.approx(2.0 * 6 * len(data)), "it is timed once"
    other = load_data("python-docs", opt_mini, predictions=40)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with fair_lock(opt_mini):
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    assert expected.seconds_of(opt_mini, other, 1.0) is None
    done.set()
    thread.join()
