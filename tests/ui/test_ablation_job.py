"""Ablations and statistics behind pages: partial answers, the same numbers in the end, a change of mind without waiting."""

import time
from dataclasses import replace

import pytest

from ablation_core import ablate, compute_statistics, load_data, load_statistics
from ablation_core.activations.files import find_statistics
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.selection import Selection
from ablation_core.server.lru import LRU
from ablation_core.ui import statistics_job
from ablation_core.ui.ablation import job as ablation_job
from ablation_core.ui.sidebar.view import View

METHODS_COMPARED = ("mean", "peak")


def question(model: LoadedModel, select: str, predictions: int = 900) -> ablation_job.AblationRequest:
    entry = find_statistics(model, "python-docs")
    assert entry is not None
    statistics = load_statistics(entry.path, model)
    selection = Selection.parse(select, model.shape)
    view = View(model.info, "python-docs", predictions, statistics, selection, "mean", 100)
    data = replace(load_data("python-docs", model, predictions), batch_size=1)
    return ablation_job.AblationRequest(view, data, tuple(METHODS[name] for name in METHODS_COMPARED))


def answer(asked: ablation_job.AblationRequest) -> ablation_job.AblationProgress:
    """What the page would show once all is measured."""
    return ablation_job.wait(asked, seconds=120)


def test_a_slow_model_is_estimated_and_then_measured_on_a_growing_sample(opt_mini, monkeypatch) -> None:
    monkeypatch.setattr(ablation_job, "SLOW_WEIGHTS", 0)
    monkeypatch.setattr(ablation_job, "_BETWEEN", 0.0)
    asked = question(opt_mini, "5.1")  # does much harm: one window's estimate of a small one is mostly noise
    job, seen = ablation_job.begin(asked), []
    while job.running:
        if job.result is not None and (not seen or job.result is not seen[-1]):
            seen.append(job.result)
        time.sleep(0.001)
    assert job.error is None
    estimates = [one.estimate for one in seen if one.estimate and one.result is None]
    assert estimates and set(estimates[0].changes) == set(METHODS_COMPARED)
    sizes = [one.result.data["predictions"] for one in seen if one.result]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] == 900
    assert [one.share for one in seen] == sorted(one.share for one in seen)
    whole = answer(asked)  # cached
    assert whole.whole and whole.floor is not None
    measured = [one for one in seen if one.measured]
    assert measured[0].floor is None, "the methods are all shown before the noise floor is measured"
    for row in whole.result.results:
        low, high = whole.floor.band(row.method)
        assert low < high, "each method has its own band"
    assert whole.floor.band("mean") != whole.floor.band("peak")
    assert whole.floor.band("mean") == (whole.floor.low, whole.floor.high) and whole.floor.band("mean", "kl")[0] >= 0
    direct = ablate(
        opt_mini,
        load_data("python-docs", opt_mini, 900),
        "5.1",
        list(METHODS_COMPARED),
        statistics=asked.view.statistics,
    )
    for found, wanted in zip(whole.result.results, direct.results, strict=True):
        assert found.change["loss"].mean == pytest.approx(wanted.change["loss"].mean, abs=1e-5)
    window = replace(asked.data, sequences=1)
    exact = ablate(opt_mini, window, "5.1", list(METHODS_COMPARED), statistics=asked.view.statistics)
    for row in exact.results:
        assert 0.5 < estimates[0].changes[row.method] / row.change["loss"].mean < 2, "of the same size at least"


def test_a_change_of_mind_stops_the_old_ablation_and_does_not_wait_for_it(opt_mini) -> None:
    first, second = question(opt_mini, "0.0", 4000), question(opt_mini, "1.1", 200)
    old = ablation_job.begin(first)
    began = time.monotonic()
    new = ablation_job.begin(second)
    assert time.monotonic() - began < 0.5 and new is not old
    assert old.stopping or not old.running
    new.wait(60)
    assert new.result.whole
    old.wait(60)
    assert not old.running and not (old.result and old.result.whole)


def test_one_estimate_serves_every_selection(opt_mini, monkeypatch) -> None:
    estimates: LRU = LRU(4)
    heads = (
        ablation_job._quick_estimate(question(opt_mini, "2.1"), estimates),
        ablation_job._quick_estimate(question(opt_mini, "2.2"), estimates),
    )
    both = ablation_job._quick_estimate(question(opt_mini, "2.1 2.2"), estimates)
    assert len(estimates) == 1
    for estimated in next(iter(estimates.values())).methods:
        name, loss = estimated.method, estimated.loss
        assert [head.changes[name] for head in heads] == pytest.approx(loss.heads[2, 1:3])
        assert both.changes[name] == pytest.approx(loss.heads[2, 1:3].sum())
        some = ablation_job._quick_estimate(question(opt_mini, "2.1:3,5-7 0.0"), estimates).changes[name]
        assert some == pytest.approx(loss.neurons[2, 1, [3, 5, 6, 7]].sum() + loss.heads[0, 0])


def test_statistics_counted_on_a_page_are_the_command_lines(opt_mini, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(statistics_job, "EVERY", 0.0)
    data = load_data("python-docs", opt_mini, 1500, seq_len=64, batch_size=4, split="statistics")
    looked = []
    for counted in statistics_job.counting_steps(opt_mini, data, tmp_path):
        looked.append((counted.share, counted.tokens))
        assert counted.statistics.peak(100).shape == (6, 6, 32), "a look at each batch, before the ranges are fixed too"
    assert looked[0][1] < 1024 < looked[-1][1], "the first pictures come before the histograms' ranges are fixed"
    assert looked == sorted(looked) and looked[-1][0] == 1
    kept = find_statistics(opt_mini, "python-docs", tmp_path)
    assert kept is not None
    assert kept.digest == compute_statistics(opt_mini, data).digest == counted.statistics.digest
